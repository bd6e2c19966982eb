"""Bits a token under a fixed predictor: how much of a codec's tokens a language model can foresee.

A predictor is a `melcap.lm.ContextModel` that was trained for so many steps on the tokens of the
training set, never on the clips that are measured. Each tokenizer has its own, all made in the same
way (docs/measures.md), so that figures compare tokenizers and not efforts.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from melcap.errors import InputError
from melcap.lm import ContextModel

TITLES = {"bits_per_token": "bits/token", "predicted_kbps": "predicted kbps"}
SUFFIX = ".predictor.safetensors"


def find(tokenizer_id: str | None, given: Path | None = None) -> Path | None:
    """Return the file of a tokenizer's predictor: the one given, or one of the package.

    Args:
        tokenizer_id: whose predictor; None for a codec without one.
        given: a file to look at first. It counts where it is of that tokenizer.

    Raises:
        WeightsError: where `given` is no predictor.
    """
    if given is not None and _load(given).tokenizer_id == tokenizer_id:
        return given
    own = Path(str(resources.files("melcap") / "weights" / f"{tokenizer_id}{SUFFIX}"))
    return own if own.is_file() else None


def fingerprint(file: Path | None) -> str | None:
    """Return the beginning of a file's SHA-256, which tells predictors apart."""
    return None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def predict(file: Path, tokens: npt.NDArray[np.integer[Any]], seconds: float) -> dict[str, float]:
    """Return the measures of `TITLES` for a clip.

    Args:
        file: the predictor.
        tokens: integers [rows, columns].
        seconds: length of the clip.

    Raises:
        InputError: for tokens that are not of the predictor's tokenizer.
    """
    if not tokens.size:
        raise InputError("a clip without tokens has no bits a token")
    with torch.no_grad():
        bits = _load(file).bits(torch.from_numpy(tokens.astype(np.int64))[None])
    total = float(bits.double().sum())
    return {"bits_per_token": total / tokens.size, "predicted_kbps": total / seconds / 1000}


@lru_cache(maxsize=4)
def _load(file: Path) -> ContextModel:
    return ContextModel.load(file)
