"""The windows of columns in which a codec of the published architecture works.

Norms and attention see a whole window and nothing beyond it. Its weights learnt from clips of ten
seconds, so longer clips are cut into windows of that length, from the beginning on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.config import BaseConfig
from melcap.config.base import SHORTEST_WINDOW

FloatArray = npt.NDArray[np.floating[Any]]

Window = tuple[int, int]
"""The first column of a window, and the column after its last."""


def windows_of(columns: int, length: int) -> list[Window]:
    """Return the windows of a clip of `columns` columns, all but the last `length` columns long.

    The last one takes a remainder that is too short for a window.

    Example:
        >>> from melcap.model.base.windows import windows_of
        >>> windows_of(500, 216), windows_of(440, 216)
        ([(0, 216), (216, 432), (432, 500)], [(0, 216), (216, 440)])
    """
    starts = list(range(0, columns, length))
    if len(starts) > 1 and columns - starts[-1] < SHORTEST_WINDOW:
        starts.pop()
    return list(zip(starts, [*starts[1:], columns], strict=True))


def signal_of(
    config: BaseConfig, samples: FloatArray, offset: int, total: int, window: Window
) -> FloatArray:
    """Return the samples that the frames of a window cover, with half a window of the STFT around.

    The clip is continued with zeros to the centre of its last frame, and mirrored at both ends.

    Args:
        config: the configuration of the codec.
        samples: clips of one length, or a part of them, floating point [..., samples].
        offset: the place in the clip of the first of these samples.
        total: the length of the clip, or any number that is far enough beyond the window.
        window: the window.

    Returns:
        [..., samples], of the hops of the window's frames and `n_fft` - `hop` more.
    """
    unit, mel = config.column_samples, config.mel
    columns = -(-total // unit)
    end = max(total, columns * unit - mel.hop)
    first, last = window[0] * unit - mel.n_fft // 2, window[1] * unit + mel.n_fft // 2 - mel.hop
    places = np.abs(np.arange(first, last))
    places = np.where(places < end, places, 2 * (end - 1) - places)
    here = samples.take(places - offset, axis=-1, mode="clip")
    here[..., places >= total] = 0
    return here
