"""Clips cut into windows: a few seconds, with the context on which their tokens depend.

The tokens of a codec depend on a bounded stretch of audio. So windows of any clips can share a
batch, and a file of three hours needs no more memory than a short one. The tokens are those of the
whole clip, because `Codec.encode` works in the same chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from melcap.io.resample import FloatArray

if TYPE_CHECKING:
    from melcap.codec import Codec


@dataclass(frozen=True)
class Framing:
    """The numbers of a codec that a reading process needs, so that it need not import torch.

    Attributes:
        rate: the codec's sample rate in Hz.
        column: the samples of a column.
        columns: the most columns in a window.
        left: the samples of context before a window's first column.
        right: the samples of context after its last column.
    """

    rate: int
    column: int
    columns: int
    left: int
    right: int

    @classmethod
    def of(cls, codec: Codec) -> Framing:
        """Return the framing of a codec."""
        from melcap.model.stages import inputs_for

        column = codec.config.column_samples
        first, last = inputs_for(codec.encode_stages, 0, 1)
        return cls(codec.config.mel.sample_rate, column, codec.chunk_columns, -first, last - column)

    def samples(self, columns: int) -> int:
        """Return the samples of a window of `columns` columns, with its context."""
        return self.left + columns * self.column + self.right


class WindowCutter:
    """Cuts a clip that arrives block by block, with silence before and after it.

    The windows are float32 [channels, `framing.samples(columns)`]. `columns` is that of the framing
    for all windows but the last.
    """

    def __init__(self, framing: Framing, channels: int) -> None:
        self.framing = framing
        self._held: FloatArray = np.zeros((channels, framing.left), np.float32)
        self._taken = 0
        self._given = 0

    def push(self, block: FloatArray) -> Iterator[FloatArray]:
        """Take samples [channels, n] and yield the windows that they complete."""
        self._taken += block.shape[1]
        self._held = np.concatenate((self._held, block), axis=1)
        while self._held.shape[1] >= self.framing.samples(self.framing.columns):
            yield self._take(self.framing.columns)

    def flush(self) -> Iterator[FloatArray]:
        """Yield the windows that are left at the end of the clip."""
        columns = -(-self._taken // self.framing.column)
        while self._given < columns:
            rest = min(columns - self._given, self.framing.columns)
            missing = self.framing.samples(rest) - self._held.shape[1]
            if missing > 0:
                self._held = np.pad(self._held, ((0, 0), (0, missing)))
            yield self._take(rest)

    def _take(self, columns: int) -> FloatArray:
        window = self._held[:, : self.framing.samples(columns)]
        self._held = self._held[:, columns * self.framing.column :]
        self._given += columns
        return window
