"""The mel decoder of stage 1 as a file beside the weights, so that stage 1 can always go on.

Stage 2 tunes the codec's mel decoder together with the vocoder, for the waveform; it does not give
mels any more. Stage 1 needs one that does. `a.mel-decoder.safetensors` belongs to the encoder and
the codebook of `a.safetensors`, and its metadata says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from melcap.errors import WeightsError
from melcap.files import replacing

_SUFFIX = ".mel-decoder.safetensors"


def path_beside(weights: Path) -> Path:
    """Return where the mel decoder of a weights file belongs."""
    return weights.with_name(weights.name.removesuffix(".safetensors") + _SUFFIX)


def save_mel_decoder(
    path: Path, decoder: Mapping[str, Tensor], encoder: nn.Module, vectors: Tensor
) -> None:
    """Write a mel decoder in half precision, for the encoder and the codebook that it belongs to.

    Args:
        path: the file to write.
        decoder: the decoder's state.
        encoder: the encoder as it was loaded from the weights file, or as it is stored there.
        vectors: the codebook, likewise.

    Raises:
        WeightsError: where the file cannot be written.
    """
    half = {name: value.half().contiguous() for name, value in decoder.items()}
    data = safetensors.torch.save(half, {"tokenizer": tokenizer_hash(encoder, vectors)})
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise WeightsError(f"{path}: cannot write the mel decoder: {error.strerror}") from error


def load_mel_decoder(path: Path, encoder: nn.Module, vectors: Tensor) -> dict[str, Tensor]:
    """Read a mel decoder's state, in float32.

    Raises:
        WeightsError: where the file cannot be read, or belongs to another encoder or codebook.
    """
    try:
        with safe_open(path, framework="pt") as file:
            owner = (file.metadata() or {}).get("tokenizer")
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot read the mel decoder: {error.strerror or error}"
        ) from error
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a mel decoder: {error}") from error
    if owner != tokenizer_hash(encoder, vectors):
        raise WeightsError(
            f"{path}: belongs to another tokenizer than these weights: train one for them "
            "(--stage 1, decoder_only), or remove the file"
        )
    return state


def tokenizer_hash(encoder: nn.Module, vectors: Tensor) -> str:
    """Return the SHA-256 of an encoder and a codebook, as a weights file stores them (float16)."""
    digest = hashlib.sha256()
    for name, value in [*sorted(encoder.state_dict().items()), ("vectors", vectors)]:
        digest.update(name.encode())
        digest.update(value.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()
