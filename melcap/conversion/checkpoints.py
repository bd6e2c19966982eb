"""The published checkpoint files: tensors out of pickles that may come from anywhere."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melcap.errors import WeightsError
from melcap.io.files import require_regular
from melcap.model.base.published import CODEBOOK, MEL_DECODER

State = dict[str, Tensor]


def read_stage1(path: Path) -> State:
    """Return the tensors of the tokenizer, the file of stage 1.

    Raises:
        WeightsError: for a file that cannot be read, needs more than tensors and plain data, or
            holds no tokenizer.
    """
    state = _state(path, "encoder", "stage 1, a tokenizer such as vae_00620000")
    if CODEBOOK not in state:
        raise WeightsError(f"{path}: has no codebook ({CODEBOOK}); it is not a file of stage 1")
    return state


def read_stage2(path: Path) -> State:
    """Return the tensors of the mel decoder and the vocoder, the file of stage 2.

    Raises:
        WeightsError: for a file that cannot be read, needs more than tensors and plain data, or
            holds no mel decoder.
    """
    state = _state(path, "state_dict", "stage 2, a Lightning checkpoint such as last.ckpt")
    if not any(name.startswith(MEL_DECODER) for name in state):
        raise WeightsError(
            f"{path}: has no mel decoder ({MEL_DECODER}*); it is a Vocos for true mels, and cannot "
            "decode tokens"
        )
    return state


def _state(path: Path, entry: str, what: str) -> State:
    """Return the state dict at an entry of a file that `torch.save` wrote."""
    content = _load(path)
    state = content.get(entry) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path}: has no entry {entry!r}; it is not a file of {what}")
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _load(path: Path) -> Any:
    try:
        require_regular(path)
        # Mapped files are read as far as tensors are used: most of stage 2 is optimiser states.
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: refused: it is damaged, or needs more than tensors and plain data, and "
            f"loading it could run code: {_first_line(error)}"
        ) from error
    except Exception as error:  # whatever damage makes of an unpickler
        raise WeightsError(
            f"{path}: is damaged, or not a file that torch.save wrote: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return f"{str(error).strip().partition(chr(10))[0]:.200}"
