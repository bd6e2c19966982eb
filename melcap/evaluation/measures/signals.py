"""Check and resample signals for measures and codecs."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from melcap import audio
from melcap.errors import InputError

Wave: TypeAlias = npt.NDArray[np.floating[Any]]
Audio: TypeAlias = npt.NDArray[np.float32]
"""Samples as clips are read and codecs take them."""


def resample(wave: Wave, source: int, target: int) -> Wave:
    """Resample [samples] from `source` to `target` Hz, in float32.

    Where the rates are equal, the array is returned as it is.
    """
    if source == target:
        return wave
    resampled: Wave = audio.resample(wave.astype(np.float32)[None], source, target)[0]
    return resampled


def both_at(target: int, reference: Wave, decoded: Wave, sample_rate: int) -> tuple[Wave, Wave]:
    """Check two signals, and resample them to `target` Hz in float64.

    Raises:
        InputError: for signals that are not two finite arrays [samples] of the same length.
    """
    if reference.ndim != 1 or reference.shape != decoded.shape or not reference.size:
        raise InputError(
            "reference and decoded must be two arrays [samples] of one length, "
            f"not {list(reference.shape)} and {list(decoded.shape)}"
        )
    if not (np.isfinite(reference).all() and np.isfinite(decoded).all()):
        raise InputError("reference and decoded must be finite: one has NaN or infinity")
    pair = (resample(wave, sample_rate, target) for wave in (reference, decoded))
    first, second = (wave.astype(np.float64) for wave in pair)
    return first, second
