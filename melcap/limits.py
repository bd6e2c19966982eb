"""Limits that hold for audio everywhere: in files, tokens, resamplers and codecs."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from melcap.errors import InputError

MIN_RATE = 1_000
MAX_RATE = 768_000
MAX_CHANNELS = 64
"""Channels of one clip. A damaged header can ask for thousands, and each takes memory."""


def checked_rate(rate: Any, name: str = "sample rate") -> int:
    """Return a sample rate in Hz as an int.

    Whole numbers of any kind are taken: 44100, 44100.0, those of NumPy, tensors of one number.

    Raises:
        InputError: for anything else, and for a rate outside `MIN_RATE` to `MAX_RATE`.
    """
    # tensors and arrays of one number
    plain: Any = rate.item() if getattr(rate, "ndim", None) == 0 else rate
    real = not isinstance(plain, bool) and isinstance(plain, Real)
    if not (real and math.isfinite(plain) and plain == int(plain)):
        raise InputError(f"The {name} must be an integer in Hz, not {rate!r}.")
    value = int(plain)
    if not MIN_RATE <= value <= MAX_RATE:
        raise InputError(f"The {name} must be from {MIN_RATE} to {MAX_RATE} Hz, not {value}.")
    return value


def check_channels(shape: tuple[int, ...], what: str) -> None:
    """Refuse audio [channels, samples] with more than `MAX_CHANNELS` channels.

    Raises:
        InputError: it names the transpose where that would fit.
    """
    channels, samples = shape
    if channels > MAX_CHANNELS:
        hint = "" if samples > MAX_CHANNELS else "; it looks like [samples, channels]: transpose it"
        raise InputError(
            f"{what} must be [channels, samples] with at most {MAX_CHANNELS} channels, "
            f"not {list(shape)}{hint}"
        )
