"""Codecs with trained weights: the ones that came with the package, or a weights file.

Numbers are stored in half precision and computed with in single. Nothing is ever downloaded.
"""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from melcap.codec import Codec
from melcap.config import CodecConfig
from melcap.errors import ModelMismatchError, WeightsError
from melcap.io import weights_file
from melcap.io.weights_file import DECODER, WeightsFile
from melcap.model.quality import Quality, griffin_lim_steps

DEFAULT = "melcap-lite.safetensors"


def load(
    path: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    *,
    quality: Quality = "default",
    decoder: str | os.PathLike[str] | None = None,
) -> Codec:
    """Return a codec, ready to use.

    Args:
        path: a weights file written by `save`; None for the weights that came with the package.
        device: where to compute.
        quality: of decoding: "fast", "default" or "best" (see `Codec`); the tokens are the same.
        decoder: a weights file whose mel decoder and vocoder take the place of those of `path`: a
            decoder alone, written by `save_decoder`, or a whole codec.

    Raises:
        WeightsError: where there is no such file, it does not hold a codec's weights, or some of
            these are NaN or infinite.
        ModelMismatchError: for a decoder of another tokenizer.
        InputError: for another quality.

    Example:
        >>> import melcap
        >>> melcap.load().sample_rate
        44100
    """
    if path is None:
        source = default_file()
        weights = weights_file.read(source, _recorded_hash(source.with_suffix(".sha256")))
    else:
        weights = weights_file.read(Path(path))
    if weights.tokenizer_id is not None:
        raise WeightsError(
            f"{weights.path}: holds a decoder alone, for tokenizer {weights.tokenizer_id}: "
            f'melcap.load(decoder="{weights.path}") puts it behind the encoder of other weights'
        )
    codec = _codec(weights, quality)
    if decoder is not None:
        codec = _with_decoder(codec, weights, weights_file.read(Path(decoder)), quality)
    return codec.eval().requires_grad_(False).to(device)


def default_file() -> Path:
    """Return the path of the weights that came with the package."""
    return Path(str(resources.files("melcap") / "weights" / DEFAULT))


def save(codec: Codec, path: str | os.PathLike[str]) -> str:
    """Write weights and configuration; returns the SHA-256 of the file.

    What endless silence becomes is learnt anew from the rounded weights before they are written.

    Raises:
        WeightsError: for weights that are not finite in half precision, or a file that cannot be
            written.
    """
    target = Path(path)
    half = weights_file.halved(codec.state_dict(), target)
    rounded = _built(codec.config, half)
    rounded.learn_silence()
    half["silence"] = rounded.silence
    return weights_file.write(target, codec.config, half)


def save_decoder(codec: Codec, path: str | os.PathLike[str]) -> str:
    """Write mel decoder and vocoder alone, for `load(decoder=path)`; returns the file's SHA-256.

    The file names the tokenizer of the weights as `save` would write them: in half precision.

    Raises:
        WeightsError: as `save` does.
    """
    target = Path(path)
    half = weights_file.halved(codec.state_dict(), target)
    tokenizer_id = _built(codec.config, half).tokenizer_id
    own = {name: value for name, value in half.items() if name.startswith(DECODER)}
    return weights_file.write(target, codec.config, own, tokenizer_id)


def require_file(codec: Codec) -> None:
    """Refuse a codec whose weights are in no file, for tokens that are written to disk.

    Raises:
        WeightsError: saving would round the weights, and the tokens would be another tokenizer's.
    """
    if codec.model == "untrained":
        raise WeightsError(
            "this codec has no weights file, and nothing could decode its tokens later: save it "
            "(melcap.pretrained.save), then load it"
        )


def _codec(weights: WeightsFile, quality: Quality) -> Codec:
    griffin_lim_steps(weights.config, quality)  # an unknown quality is no fault of the weights
    try:
        codec = _built(weights.config, weights.state, weights.model, quality)
        codec.codebook.check(codec.silence)
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{weights.path}: the weights do not fit their configuration") from error
    return codec


def _with_decoder(
    codec: Codec, weights: WeightsFile, other: WeightsFile, quality: Quality
) -> Codec:
    """Return the codec with the mel decoder and the vocoder of another weights file."""
    found = other.tokenizer_id or _codec(other, "default").tokenizer_id
    if found != codec.tokenizer_id:
        raise ModelMismatchError(
            f"{other.path}: this decoder is for tokenizer {found}, and {codec.model} has tokenizer "
            f"{codec.tokenizer_id}: load it with weights of tokenizer {found}"
        )
    tokenizer = replace(
        codec.config.tokenizer, decoder_blocks=other.config.tokenizer.decoder_blocks
    )
    config = replace(
        codec.config, name=other.config.name, tokenizer=tokenizer, vocoder=other.config.vocoder
    )
    state = {name: value for name, value in weights.state.items() if not name.startswith(DECODER)}
    state |= {name: value for name, value in other.state.items() if name.startswith(DECODER)}
    return _codec(replace(other, config=config, state=state), quality)


@torch.inference_mode(False)
def _built(
    config: CodecConfig,
    state: dict[str, Tensor],
    model: str = "untrained",
    quality: Quality = "default",
) -> Codec:
    """Return a codec with copies of these weights, float32 and on the CPU whatever is set.

    Raises:
        RuntimeError, ValueError: where the weights do not fit.
    """
    weights = {}
    for name, value in state.items():
        if (value.dtype == torch.int32) != (name == "silence"):
            raise ValueError(f"{name} is {value.dtype}")
        dtype = torch.float32 if value.is_floating_point() else value.dtype
        weights[name] = value.to("cpu", dtype, copy=True).contiguous()
    # On the meta device a configuration allocates nothing, whatever it asks for: what fits there is
    # no larger than the weights.
    for device in ("meta", "cpu"):
        with torch.device(device):
            codec = Codec(config, model, quality)
        codec.load_state_dict(weights, assign=True)
    return codec


def _recorded_hash(path: Path) -> str:
    try:
        return path.read_text().split()[0]
    except (OSError, IndexError) as error:
        raise WeightsError(f"{path}: the package is incomplete; install melcap again") from error
