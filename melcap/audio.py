"""Audio files in and out, block by block: a long file needs no more memory than a short one.

Files are read with soundfile (libsndfile) and PyAV (FFmpeg); see `melcap.io.readers` for which reads
what, for what is noticed of damaged files, and for what is not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from melcap.errors import AudioFileError, InputError
from melcap.io.audio_writer import AudioWriter, write
from melcap.io.readers import AUDIO_SUFFIXES, open_source
from melcap.io.readers.errors import audio_error, require_channels
from melcap.io.readers.opening import AudioFile, open_input
from melcap.io.readers.source import CLEARLY, checked_blocks
from melcap.io.resample import FloatArray, Resampler, resample, resampled_length
from melcap.limits import MAX_RATE, MIN_RATE

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioReader",
    "AudioWriter",
    "Resampler",
    "read",
    "resample",
    "resampled_length",
    "write",
]

_BLOCK = 1 << 16
_VALUES = 1 << 17
"""Samples of all channels together that a block holds where no size is asked for."""


class AudioReader:
    """An audio file as a stream of float32 blocks; a context manager.

    `name` is what errors call the file, `sample_rate` is in Hz (Ogg Opus is always 48000),
    `channels` come in the order of wav files. `samples` is the length per channel that the file
    declares or its frames add up to, None where it says nothing: good for a progress bar, while
    the truth is what `blocks` yields (m4a and webm round to milliseconds).

    Args:
        source: a path, or a binary file object: an open file, io.BytesIO, a pipe, a member of an
            archive. It is read from its position on and stays open. What is not a whole file on
            a disk is copied to a temporary file first; 4 GiB is the most.

    Raises:
        AudioFileError: naming the file, when it is missing, no regular file, no audio, empty, cut
            short or damaged.
        InputError: for what is neither a path nor a binary file object.
    """

    def __init__(self, source: AudioFile) -> None:
        self._file = open_input(source)
        self.name = self._file.name
        try:
            self._source = open_source(self._file)
        except BaseException:
            self._file.close()
            raise
        self.sample_rate = self._source.sample_rate
        self.channels = self._source.channels
        self.samples = self._source.samples
        self._started = False
        try:
            if self.samples == 0:
                raise audio_error(self.name, "holds no audio samples")
            if not MIN_RATE <= self.sample_rate <= MAX_RATE:
                possible = f"possible are {MIN_RATE} to {MAX_RATE} Hz"
                what = f"has a sample rate of {self.sample_rate} Hz; {possible}"
                raise audio_error(self.name, what)
            require_channels(self.name, self.channels)
        except AudioFileError:
            self.close()
            raise

    def blocks(
        self, size: int | None = None, first: int = 0, until: int | None = None
    ) -> Iterator[FloatArray]:
        """Yield float32 [channels, size], the last one shorter; one pass from start to end.

        Args:
            size: samples per channel in a block; None for a number that keeps blocks small for
                any number of channels.
            first: the first sample of the stretch that is wanted.
            until: the one behind its last; None for the end of the file. Up to 0.1 s of the
                stretch may be missing at the end of the file, as lists have rounded numbers.

        Raises:
            InputError: for a size below 1, or a second call.
            AudioFileError: for NaN or infinite samples, a damaged stream, one that ends before the
                file or `until` says, and a file that shrinks or grows meanwhile.
        """
        if size is None:
            size = max(1, min(_BLOCK, _VALUES // self.channels))
        if size < 1:
            raise InputError(f"The block size must be at least 1 sample, not {size}.")
        if self._started:
            raise InputError(f"{self.name} is read once per reader; open it again.")
        self._started = True
        try:
            yield from self._stretch(size, first, until)
        except AudioFileError:
            self._file.check_size()
            raise

    def _stretch(self, size: int, first: int, until: int | None) -> Iterator[FloatArray]:
        done = self._source.skip(first) if first else 0
        for block in checked_blocks(self._source, self.name, size, done):
            here, done = done, done + block.shape[1]
            block = block[:, max(0, first - here) : None if until is None else until - here]
            finite = np.isfinite(block).all(axis=0)
            if not finite.all():
                at = max(here, first) + int(np.argmin(finite))
                what = f"has a NaN or infinite sample, the first at index {at}"
                raise audio_error(self.name, what)
            if block.shape[1]:
                yield block
            if until is not None and done >= until:
                return
        if done == 0:
            raise audio_error(self.name, "holds no audio samples")
        self._file.check_size()
        if done <= first or (until is not None and until - done > CLEARLY * self.sample_rate):
            wanted = f"{first / self.sample_rate:.2f} s"
            wanted += " on" if until is None else f" to {until / self.sample_rate:.2f} s"
            length = f"{done / self.sample_rate:.2f} s"
            raise audio_error(self.name, f"is {length} long, and is asked for from {wanted}")

    def close(self) -> None:
        self._source.close()
        self._file.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(source: AudioFile) -> tuple[FloatArray, int]:
    """Return a whole file as float32 [channels, samples], and its sample rate in Hz.

    Raises:
        AudioFileError, InputError: as `AudioReader` does.
    """
    with AudioReader(source) as reader:
        return np.concatenate(list(reader.blocks()), axis=1), reader.sample_rate
