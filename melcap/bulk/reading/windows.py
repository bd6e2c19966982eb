"""Clips cut into windows: a few seconds, with the context on which their tokens depend.

The tokens of a codec depend on a bounded stretch of audio. So windows of any clips can share a
batch, and a file of three hours needs no more memory than a short one. The tokens are those of the
whole clip, because `encode` of the codec works in the same windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from melcap.config import BaseConfig
from melcap.config.base import SHORTEST_WINDOW
from melcap.io.resample import FloatArray
from melcap.model.base.windows import signal_of

if TYPE_CHECKING:
    from melcap.audio_codec import AudioCodec


@dataclass(frozen=True)
class Framing:
    """The numbers of a codec that a reading process needs, so that it need not import torch.

    Attributes:
        rate: the codec's sample rate in Hz.
        column: the samples of a column.
        columns: the columns of each window of a clip but the last.
        left: the samples of context before a window's first column.
        right: the samples of context after its last column.
        shortest: the fewest columns of a last window after others. A shorter rest belongs to the
            window before it.
        published: the configuration of a codec of the published architecture, which mirrors clips
            at their ends. None for melcap's own, which has silence there.
    """

    rate: int
    column: int
    columns: int
    left: int
    right: int
    shortest: int = 1
    published: BaseConfig | None = None

    @classmethod
    def of(cls, codec: AudioCodec) -> Framing:
        """Return the framing of a codec.

        Raises:
            InputError: for a codec of an unknown class.
        """
        from melcap.base_codec import BaseCodec
        from melcap.codec import require_own
        from melcap.model.stages import inputs_for

        rate, column = codec.sample_rate, codec.config.column_samples
        if isinstance(codec, BaseCodec):
            config = codec.config
            left, right = config.mel.n_fft // 2, config.mel.n_fft // 2 - config.mel.hop
            columns = config.tokenizer.window_columns
            return cls(rate, column, columns, left, right, SHORTEST_WINDOW, config)
        own = require_own(codec, "melcap tokenize")
        first, last = inputs_for(own.encode_stages, 0, 1)
        return cls(rate, column, own.chunk_columns, -first, last - column)

    @property
    def one_length(self) -> bool:
        """Return whether windows that are encoded together must have one length."""
        return self.published is not None

    def samples(self, columns: int) -> int:
        """Return the samples of a window of `columns` columns, with its context."""
        return self.left + columns * self.column + self.right


class WindowCutter:
    """Cuts a clip that arrives block by block into windows.

    The windows are float32 [channels, `framing.samples(columns)`]. `columns` is that of the framing
    for all windows but the last.
    """

    def __init__(self, framing: Framing, channels: int) -> None:
        self.framing = framing
        self._held: FloatArray = np.zeros((channels, 0), np.float32)
        self._offset = 0  # the place of the first sample that is held
        self._taken = 0
        self._given = 0

    def push(self, block: FloatArray) -> Iterator[FloatArray]:
        """Take samples [channels, n] and yield the windows that they complete."""
        framing = self.framing
        self._taken += block.shape[1]
        self._held = np.concatenate((self._held, block), axis=1)
        # A window is sure to end there once there is another after it.
        surely = framing.samples(framing.columns + framing.shortest) - framing.left
        while self._taken - self._given * framing.column >= surely:
            yield self._take(framing.columns)

    def flush(self) -> Iterator[FloatArray]:
        """Yield the windows that are left at the end of the clip."""
        framing = self.framing
        columns = -(-self._taken // framing.column)
        while rest := columns - self._given:
            several = rest >= framing.columns + framing.shortest
            yield self._take(framing.columns if several else rest)

    def _take(self, columns: int) -> FloatArray:
        framing = self.framing
        window = self._given, self._given + columns
        if framing.published is not None:
            signal = signal_of(framing.published, self._held, self._offset, self._taken, window)
        else:
            signal = self._in_silence(window)
        self._given += columns
        first = max(0, self._given * framing.column - framing.left)
        self._held = self._held[:, first - self._offset :]
        self._offset = first
        return signal

    def _in_silence(self, window: tuple[int, int]) -> FloatArray:
        """Return the samples of a window, with zeros for those outside the clip."""
        before = max(0, self.framing.left - window[0] * self.framing.column)
        length = self.framing.samples(window[1] - window[0])
        inside = self._held[:, : length - before]
        return np.pad(inside, ((0, 0), (before, length - before - inside.shape[1])))
