"""Codecs with trained weights, from the weights that come with the package or from a file.

Files hold half precision, and a codec computes in float32. Nothing is downloaded.
"""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import overload

import torch

from melcap import stored_weights
from melcap.audio_codec import AudioCodec
from melcap.base_codec import BaseCodec
from melcap.codec import Codec, require_own
from melcap.config import BaseConfig, CodecConfig
from melcap.errors import InputError, ModelMismatchError, WeightsError
from melcap.io import weights_file
from melcap.io.weights_file import DECODER, WeightsFile
from melcap.model.network import UNTRAINED
from melcap.model.quality import Quality

DEFAULT = "melcap-lite.safetensors"


@overload
def load(
    path: None = None,
    device: torch.device | str = "cpu",
    *,
    quality: Quality = "default",
    decoder: str | os.PathLike[str] | None = None,
) -> Codec: ...


@overload
def load(
    path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    *,
    quality: Quality = "default",
    decoder: str | os.PathLike[str] | None = None,
) -> AudioCodec: ...


def load(
    path: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    *,
    quality: Quality = "default",
    decoder: str | os.PathLike[str] | None = None,
) -> AudioCodec:
    """Return a codec with trained weights.

    Args:
        path: a weights file that `save` wrote; None for the weights that come with the package.
        device: where to compute.
        quality: the quality of decoding, "fast", "default" or "best" (see `Codec`). The tokens are
            the same.
        decoder: a weights file whose mel decoder and vocoder replace those of `path`: a decoder
            alone, which `save_decoder` wrote, or a whole codec.

    Returns:
        A `Codec`, or a `BaseCodec` where the file holds weights of the published architecture.

    Raises:
        WeightsError: if there is no such file, it does not hold a codec's weights, or some of these
            are NaN or infinite.
        ModelMismatchError: for a decoder of another tokenizer.
        InputError: for a quality that the codec does not have, or a decoder for a `BaseCodec`.

    Example:
        >>> import melcap
        >>> codec = melcap.load()
        >>> codec.sample_rate, codec.vocab_size
        (44100, 8192)
    """
    if path is None:
        source = default_file()
        weights = weights_file.read(source, _recorded_hash(source.with_suffix(".sha256")))
    else:
        weights = weights_file.read(Path(path))
    if isinstance(weights.config, BaseConfig):
        if quality != "default" or decoder is not None:
            raise InputError(
                f"{weights.path}: a codec of the published MelCap architecture has one quality and "
                "one decoder: leave out quality and decoder"
            )
        return stored_weights.base_network_of(BaseCodec, weights).to(device)
    codec = stored_weights.network_of(Codec, weights, quality)
    if decoder is not None:
        other = _with_decoder(codec, weights, weights_file.read(Path(decoder)))
        codec = stored_weights.network_of(Codec, other, quality)
    return codec.to(device)


def default_file() -> Path:
    """Return the path of the weights that come with the package."""
    return Path(str(resources.files("melcap") / "weights" / DEFAULT))


def save(codec: AudioCodec, path: str | os.PathLike[str]) -> str:
    """Write the weights and the configuration of a codec to a file, for `load` to read.

    The weights of a `Codec` are rounded to half precision, and the silence column is computed again
    from the rounded weights. Those of a `BaseCodec` are written as they are. The codec itself does
    not change.

    Args:
        codec: the codec.
        path: the file, a safetensors file; an existing one is replaced.

    Returns:
        The SHA-256 of the file, as hexadecimal digits.

    Raises:
        WeightsError: for weights that are not finite in half precision, or a file that cannot be
            written.

    Example:
        >>> import pathlib, tempfile, melcap
        >>> from melcap import pretrained
        >>> codec = melcap.load()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "copy.safetensors"
        ...     digest = pretrained.save(codec, path)
        ...     pretrained.load(path).tokenizer_id == codec.tokenizer_id
        True
    """
    assert isinstance(codec, Codec | BaseCodec)
    return stored_weights.save(codec, Path(path))


def save_decoder(codec: AudioCodec, path: str | os.PathLike[str]) -> str:
    """Write the mel decoder and the vocoder of a codec to a file, for `load(decoder=path)`.

    The weights are rounded to half precision. The file has the id of the tokenizer that `save`
    would write, whose weights are rounded too.

    Args:
        codec: the codec.
        path: the file, a safetensors file; an existing one is replaced.

    Returns:
        The SHA-256 of the file, as hexadecimal digits.

    Raises:
        WeightsError: for weights that are not finite in half precision, or a file that cannot be
            written.
        InputError: for a codec of the published architecture, which has one decoder.

    Example:
        >>> import pathlib, tempfile, melcap
        >>> from melcap import pretrained
        >>> codec = melcap.load()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "decoder.safetensors"
        ...     digest = pretrained.save_decoder(codec, path)
        ...     melcap.load(decoder=path).tokenizer_id == codec.tokenizer_id
        True
    """
    own = require_own(codec, "a decoder alone")
    return stored_weights.save_decoder(own, Path(path))


def require_file(codec: AudioCodec) -> None:
    """Raise an error for a codec whose weights are in no file; call it before writing its tokens.

    Saving the codec later would round the weights, and so give another tokenizer, which cannot
    decode these tokens.

    Raises:
        WeightsError: with the advice to save the codec and load it again.
    """
    if codec.model == UNTRAINED:
        raise WeightsError(
            "this codec has no weights file, and nothing could decode its tokens later: save it "
            "(melcap.pretrained.save), then load it"
        )


def _with_decoder(codec: Codec, weights: WeightsFile, other: WeightsFile) -> WeightsFile:
    """Return the codec's weights with the mel decoder and the vocoder of another file."""
    if not isinstance(weights.config, CodecConfig) or not isinstance(other.config, CodecConfig):
        raise WeightsError(
            f"{other.path}: a decoder of the published MelCap architecture cannot be exchanged"
        )
    found = other.tokenizer_id or stored_weights.network_of(Codec, other).tokenizer_id
    if found != codec.tokenizer_id:
        raise ModelMismatchError(
            f"{other.path}: this decoder is for tokenizer {found}, and {codec.model} has tokenizer "
            f"{codec.tokenizer_id}: load it with weights of tokenizer {found}"
        )
    tokenizer = replace(
        weights.config.tokenizer, decoder_blocks=other.config.tokenizer.decoder_blocks
    )
    config = replace(
        weights.config, name=other.config.name, tokenizer=tokenizer, vocoder=other.config.vocoder
    )
    state = {name: value for name, value in weights.state.items() if not name.startswith(DECODER)}
    state |= {name: value for name, value in other.state.items() if name.startswith(DECODER)}
    return replace(other, config=config, state=state, tokenizer_id=None)


def _recorded_hash(path: Path) -> str:
    """Return the first word of the file with the SHA-256 of the package's weights."""
    try:
        return path.read_text().split()[0]
    except (OSError, IndexError) as error:
        raise WeightsError(f"{path}: the package is incomplete; install melcap again") from error
