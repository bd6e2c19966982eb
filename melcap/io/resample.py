"""Streaming sample-rate conversion with an exact length that no cutting into blocks can change."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.errors import InputError
from melcap.limits import MAX_CHANNELS, check_channels, checked_rate

FloatArray = npt.NDArray[np.float32]

# More than this at once buys no speed and only costs memory.
_STEP = 1 << 16


def resampled_length(samples: int, source: int, target: int) -> int:
    """Samples at `target` Hz that `samples` at `source` Hz become: ceil(samples * target / source).

    Raises InputError for a negative count or a rate outside 1000 to 768000 Hz.
    """
    source, target = checked_rate(source, "source rate"), checked_rate(target, "target rate")
    if samples < 0:
        raise InputError(f"The number of samples must not be negative, and it is {samples}.")
    return -(-samples * target // source)


class Resampler:
    """Converts a stream of float32 blocks [channels, n] from `source` to `target` Hz.

    After `push` of every block and one `flush`, exactly `resampled_length(total input)` samples
    per channel have come out, aligned with the input (no delay), and with the same bits whatever
    the block sizes were. With equal rates `push` hands its argument back. Arithmetic is float32:
    amplitudes near the float32 maximum overflow to infinity.

    Raises InputError for a rate outside 1000 to 768000 Hz, or channels outside 1 to 64.
    """

    def __init__(self, source: int, target: int, channels: int) -> None:
        self.source = checked_rate(source, "source rate")
        self.target = checked_rate(target, "target rate")
        if not 1 <= channels <= MAX_CHANNELS:
            raise InputError(f"A resampler takes 1 to {MAX_CHANNELS} channels, not {channels}.")
        self.channels = channels
        self._taken = 0
        self._given = 0
        self._flushed = False
        self._stream: Any = None
        if self.source != self.target:
            import soxr

            self._stream = soxr.ResampleStream(
                self.source, self.target, channels, dtype="float32", quality="HQ"
            )

    def push(self, block: FloatArray) -> FloatArray:
        """Takes float32 [channels, n], n >= 0; returns what is ready, [channels, m], m >= 0.

        Raises InputError for another shape or dtype, or after `flush`.
        """
        if self._flushed:
            raise InputError("This resampler has been flushed; make a new one for a new signal.")
        if block.ndim != 2 or block.shape[0] != self.channels or block.dtype != np.float32:
            raise InputError(
                f"A block must be float32 [{self.channels}, samples], "
                f"not {block.dtype} {list(block.shape)}."
            )
        if self._stream is None:
            return block
        self._taken += block.shape[1]
        pieces = [
            self._convert(block[:, start : start + _STEP], last=False)
            for start in range(0, block.shape[1], _STEP)
        ]
        ready = np.concatenate(pieces, axis=1) if pieces else self._nothing()
        self._given += ready.shape[1]
        return ready

    def flush(self) -> FloatArray:
        """Ends the signal and returns its last samples, [channels, m], m >= 0.

        Raises InputError when called twice.
        """
        if self._flushed:
            raise InputError("This resampler has been flushed already.")
        self._flushed = True
        if self._stream is None:
            return self._nothing()
        # soxr rounds the length to the nearest; the silence after the signal makes that a ceiling.
        silence = np.zeros((self.channels, self.source // self.target + 2), dtype=np.float32)
        wanted = resampled_length(self._taken, self.source, self.target) - self._given
        return np.ascontiguousarray(self._convert(silence, last=True)[:, :wanted])

    def _convert(self, block: FloatArray, last: bool) -> FloatArray:
        out = self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last)
        return np.ascontiguousarray(out.T)

    def _nothing(self) -> FloatArray:
        return np.zeros((self.channels, 0), dtype=np.float32)


def resample(wave: FloatArray, source: int, target: int) -> FloatArray:
    """float32 [channels, n] at `source` Hz as [channels, resampled_length(n)] at `target` Hz.

    The bits are those of `Resampler` fed in any blocks. Equal rates return `wave` itself.
    Raises InputError as `Resampler` does.
    """
    if wave.ndim != 2:
        raise InputError(f"A wave must be float32 [channels, samples], not {list(wave.shape)}.")
    check_channels(wave.shape, "A wave")
    stream = Resampler(source, target, wave.shape[0])
    ready = stream.push(wave)
    if stream.source == stream.target:
        return ready
    return np.concatenate([ready, stream.flush()], axis=1)
