"""The choice of the activation, which published weights do not tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources

import torch

from melcap.audio import read
from melcap.base_codec import BaseCodec
from melcap.errors import WeightsError
from melcap.model.base.windows import signal_of
from melcap.ops import log_mel

ACTIVATIONS = ("tanh", "silu")
GOOD = 1.5
"""The largest error of a codec that works; that of an untrained one is several times as large."""
CLEARLY = 0.75
"""The error of the right activation is at most this part of the other's."""


def clip_error(codec: BaseCodec) -> float:
    """Return the mean absolute error of ln-mel after a round trip of a clip of two seconds."""
    with resources.as_file(resources.files("melcap") / "conversion" / "clip.flac") as path:
        samples, rate = read(path)
    wave = torch.from_numpy(samples[0])
    decoded = codec.decode(codec.encode(wave, rate))
    before, after = (_ln_mel(codec, clip) for clip in (wave, decoded))
    return float((before - after).abs().mean())


def chosen(errors: Mapping[str, float]) -> str:
    """Return the activation with the clearly lower error.

    Args:
        errors: the error of each activation, as `clip_error` measures it.

    Raises:
        WeightsError: where none is clearly better, or none works at all.

    Example:
        >>> from melcap.conversion.activation import chosen
        >>> chosen({"tanh": 0.4, "silu": 2.9})
        'tanh'
    """
    best, other = sorted(errors, key=lambda name: errors[name])
    if errors[best] > GOOD or errors[best] > CLEARLY * errors[other]:
        told = ", ".join(f"{name} {error:.2f}" for name, error in errors.items())
        raise WeightsError(
            "the activation cannot be told from these weights: the mean error of ln-mel on a clip "
            f"is {told}. Say --activation tanh, which the published weights have with near "
            "certainty, or --activation silu"
        )
    return best


def errors_of(codec: Callable[[str], BaseCodec]) -> dict[str, float]:
    """Return the error of each activation, given what makes a codec with it."""
    return {name: clip_error(codec(name)) for name in ACTIVATIONS}


def _ln_mel(codec: BaseCodec, wave: torch.Tensor) -> torch.Tensor:
    window = (0, codec.columns(len(wave)))
    signal = signal_of(codec.config, wave.cpu().numpy(), 0, len(wave), window)
    return (
        log_mel(torch.from_numpy(signal)[None], codec.config.mel, padding=(0, 0))
        * codec.config.mel.std
    )
