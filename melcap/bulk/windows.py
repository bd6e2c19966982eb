"""Clips cut into windows: a few seconds with the context that their tokens depend on.

A codec's tokens depend on a bounded stretch of audio, so windows of any clips can share a batch, a
three-hour file needs no more memory than a short one, and the tokens are those of the whole clip:
`Codec.encode` works in the same chunks.
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
    """The facts of a codec that a reader must know: plain numbers, so that it needs no torch.

    A window holds up to `columns` columns of `column` samples each at `rate` Hz, `left` samples
    before the first and `right` samples behind the last.
    """

    rate: int
    column: int
    columns: int
    left: int
    right: int

    @classmethod
    def of(cls, codec: Codec) -> Framing:
        from melcap.model.stages import inputs_for

        column = codec.config.column_samples
        first, last = inputs_for(codec.encode_stages, 0, 1)
        return cls(codec.config.mel.sample_rate, column, codec.chunk_columns, -first, last - column)

    def samples(self, columns: int) -> int:
        """Return the length of a window with so many columns."""
        return self.left + columns * self.column + self.right


class WindowCutter:
    """Cuts a clip that arrives block by block; the clip lies in silence that never ends.

    Yields float32 [channels, `framing.samples(columns)`], where `columns` is that of the framing
    but for the last window.
    """

    def __init__(self, framing: Framing, channels: int) -> None:
        self.framing = framing
        self._held: FloatArray = np.zeros((channels, framing.left), np.float32)
        self._taken = 0
        self._given = 0

    def push(self, block: FloatArray) -> Iterator[FloatArray]:
        """The windows that [channels, n] samples complete."""
        self._taken += block.shape[1]
        self._held = np.concatenate((self._held, block), axis=1)
        while self._held.shape[1] >= self.framing.samples(self.framing.columns):
            yield self._take(self.framing.columns)

    def flush(self) -> Iterator[FloatArray]:
        """The windows that are left when the clip has ended."""
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
