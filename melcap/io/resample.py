"""Streaming sample-rate conversion; length and bits do not depend on how a signal is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.errors import InputError
from melcap.limits import MAX_CHANNELS, check_channels, checked_rate

FloatArray = npt.NDArray[np.float32]

# Larger steps are no faster and only take more memory.
_STEP = 1 << 16


def resampled_length(samples: int, source: int, target: int) -> int:
    """Return the length of `samples` samples after resampling: ceil(samples * target / source).

    Args:
        samples: The number of samples before.
        source: The sample rate before, in Hz.
        target: The sample rate after, in Hz.

    Raises:
        InputError: For a negative number, and for a rate outside 1000 to 768000 Hz.

    Example:
        >>> from melcap.audio import resampled_length
        >>> resampled_length(44100, 44100, 16000), resampled_length(1, 44100, 48000)
        (16000, 2)
    """
    source, target = checked_rate(source, "source rate"), checked_rate(target, "target rate")
    if samples < 0:
        raise InputError(f"The number of samples must not be negative, but it is {samples}.")
    return -(-samples * target // source)


class Resampler:
    """A converter of a stream of float32 blocks [channels, n] from `source` to `target` Hz.

    After `push` of every block and one `flush`, the output has exactly
    `resampled_length(total input)` samples per channel. It is aligned with the input (no delay),
    and its bits do not depend on the sizes of the blocks. With equal rates `push` returns its
    argument. Arithmetic is float32: amplitudes near the float32 maximum overflow to infinity.

    Args:
        source: The sample rate of the input in Hz.
        target: The sample rate of the output in Hz.
        channels: The number of channels.

    Raises:
        InputError: For a rate outside 1000 to 768000 Hz, and for channels outside 1 to 64.

    Example:
        >>> import numpy as np
        >>> from melcap.audio import Resampler
        >>> resampler = Resampler(48000, 16000, 1)
        >>> blocks = [resampler.push(np.zeros((1, 4800), np.float32)) for _ in range(10)]
        >>> sum(block.shape[1] for block in [*blocks, resampler.flush()])
        16000
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
        """Take float32 [channels, n], n >= 0, and return the output so far, [channels, m], m >= 0.

        Raises:
            InputError: For another shape or dtype, and after `flush`.
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
        """End the signal and return the last samples, [channels, m], m >= 0.

        Raises:
            InputError: For a second call.
        """
        if self._flushed:
            raise InputError("This resampler has been flushed already.")
        self._flushed = True
        if self._stream is None:
            return self._nothing()
        # soxr rounds the length to the nearest; with silence after the signal the ceiling is there.
        silence = np.zeros((self.channels, self.source // self.target + 2), dtype=np.float32)
        wanted = resampled_length(self._taken, self.source, self.target) - self._given
        return np.ascontiguousarray(self._convert(silence, last=True)[:, :wanted])

    def _convert(self, block: FloatArray, last: bool) -> FloatArray:
        out = self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last)
        return np.ascontiguousarray(out.T)

    def _nothing(self) -> FloatArray:
        return np.zeros((self.channels, 0), dtype=np.float32)


def resample(wave: FloatArray, source: int, target: int) -> FloatArray:
    """Return a wave at another sample rate.

    The bits are those that `Resampler` gives for any blocks. With equal rates, `wave` itself is
    returned.

    Args:
        wave: float32 [channels, n].
        source: Its sample rate in Hz.
        target: The sample rate of the result in Hz.

    Returns:
        float32 [channels, resampled_length(n, source, target)].

    Raises:
        InputError: For another shape or dtype, a rate outside 1000 to 768000 Hz, and more than 64
            channels.

    Example:
        >>> import numpy as np
        >>> from melcap.audio import resample
        >>> resample(np.zeros((2, 44100), np.float32), 44100, 48000).shape
        (2, 48000)
    """
    if wave.ndim != 2:
        raise InputError(f"A wave must be float32 [channels, samples], not {list(wave.shape)}.")
    check_channels(wave.shape, "A wave")
    stream = Resampler(source, target, wave.shape[0])
    ready = stream.push(wave)
    if stream.source == stream.target:
        return ready
    return np.concatenate([ready, stream.flush()], axis=1)
