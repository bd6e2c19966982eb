"""Limits of audio that hold for files, tokens, resamplers and codecs alike."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from melcap.errors import InputError

MIN_RATE = 1_000
MAX_RATE = 768_000
MAX_CHANNELS = 64
"""The most channels of a clip. A damaged header can ask for thousands, and each takes memory."""


def checked_rate(rate: Any, name: str = "sample rate") -> int:
    """Return a sample rate in Hz as an int.

    Args:
        rate: a whole number of any type: 44100, 44100.0, a NumPy number, a tensor of one number.
        name: what the rate is called in an error.

    Raises:
        InputError: for anything else, and for a rate outside `MIN_RATE` to `MAX_RATE`.

    Example:
        >>> from melcap.limits import checked_rate
        >>> checked_rate(44100.0)
        44100
    """
    # a tensor or an array of one number becomes that number
    plain: Any = rate.item() if getattr(rate, "ndim", None) == 0 else rate
    real = not isinstance(plain, bool) and isinstance(plain, Real)
    if not (real and math.isfinite(plain) and plain == int(plain)):
        raise InputError(f"The {name} must be an integer in Hz, not {rate!r}.")
    value = int(plain)
    if not MIN_RATE <= value <= MAX_RATE:
        raise InputError(f"The {name} must be from {MIN_RATE} to {MAX_RATE} Hz, not {value}.")
    return value


def check_channels(shape: tuple[int, ...], what: str) -> None:
    """Refuse audio with more than `MAX_CHANNELS` channels.

    Args:
        shape: of the audio, (channels, samples).
        what: what the audio is called in the error.

    Raises:
        InputError: it suggests the transpose where that would fit.
    """
    channels, samples = shape
    if channels > MAX_CHANNELS:
        hint = "" if samples > MAX_CHANNELS else "; it looks like [samples, channels]: transpose it"
        raise InputError(
            f"{what} must be [channels, samples] with at most {MAX_CHANNELS} channels, "
            f"not {list(shape)}{hint}"
        )
