"""The mel decoder of stage 1 as a file beside the weights, so that stage 1 can be continued.

Stage 2 tunes the codec's mel decoder together with the vocoder, for the waveform. After that it
does not decode to mels any more, which stage 1 needs. `a.mel-decoder.safetensors` belongs to the
encoder and the codebook of `a.safetensors`; its metadata holds the tokenizer's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from melcap.codec import Codec
from melcap.errors import WeightsError
from melcap.io.files import replacing
from melcap.model.tokenizer_id import tokenizer_id_of

_SUFFIX = ".mel-decoder.safetensors"


def path_beside(weights: Path) -> Path:
    """Return the path of the mel decoder of a weights file."""
    return weights.with_name(weights.name.removesuffix(".safetensors") + _SUFFIX)


def save_mel_decoder(path: Path, decoder: Mapping[str, Tensor], codec: Codec) -> None:
    """Write a mel decoder in half precision, for the encoder and the codebook that it belongs to.

    Args:
        path: the file to write.
        decoder: the decoder's state.
        codec: the codec as it was loaded from the weights file, or as it is stored there.

    Raises:
        WeightsError: if the file cannot be written.
    """
    half = {name: value.half().contiguous() for name, value in decoder.items()}
    data = safetensors.torch.save(half, {"tokenizer_id": stored_tokenizer_id(codec)})
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise WeightsError(f"{path}: cannot write the mel decoder: {error.strerror}") from error


def load_mel_decoder(path: Path, codec: Codec) -> dict[str, Tensor]:
    """Read the state of a mel decoder, in float32.

    Raises:
        WeightsError: if the file cannot be read, or belongs to another encoder or codebook.
    """
    try:
        with safe_open(path, framework="pt") as file:
            owner = (file.metadata() or {}).get("tokenizer_id")
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot read the mel decoder: {error.strerror or error}"
        ) from error
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a mel decoder: {error}") from error
    if owner != stored_tokenizer_id(codec):
        raise WeightsError(
            f"{path}: belongs to another tokenizer than these weights: train one for them "
            "(--stage 1 --decoder-only), or remove the file"
        )
    return state


def stored_tokenizer_id(codec: Codec) -> str:
    """Return the id of the tokenizer as a weights file holds it, in float16."""
    stored = {name: value.half() for name, value in codec.encoder.state_dict().items()}
    return tokenizer_id_of(codec.config, stored, codec.codebook.vectors.half())
