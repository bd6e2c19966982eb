"""Audio files read block by block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from melcap.errors import AudioFileError, InputError
from melcap.io.audio.errors import audio_error, require_channels
from melcap.io.audio.input_file import AudioFile, open_input
from melcap.io.audio.opening import open_source
from melcap.io.audio.source import SLACK_SECONDS, checked_blocks
from melcap.io.resample import FloatArray
from melcap.limits import MAX_RATE, MIN_RATE

_BLOCK = 1 << 16
_VALUES = 1 << 17
"""The most samples of all channels together in a block of the default size."""


class AudioReader:
    """A reader of an audio file as a stream of float32 blocks; a context manager.

    Args:
        source: A path, or a binary file object: an open file, io.BytesIO, a pipe, a member of an
            archive. A file object is read from its position on and stays open. Anything but a
            whole file on disk is copied to a temporary file first, 4 GiB at most.

    Attributes:
        name: The name of the file in errors.
        sample_rate: The sample rate in Hz; always 48000 for Ogg Opus.
        channels: The number of channels, which come in the order of wav files.
        samples: The length per channel that the file declares or that its frames add up to; None
            where the file does not say. It is exact enough for a progress bar; the number of
            samples that `blocks` yields may differ (m4a and webm round to milliseconds).

    Raises:
        AudioFileError: For a file that is missing, not a regular file, no audio, empty, cut short
            or damaged. The message names the file.
        InputError: For a source that is neither a path nor a binary file object.

    Example:
        >>> import io
        >>> import numpy as np
        >>> from melcap import audio
        >>> file = io.BytesIO()
        >>> clipped = audio.write(file, np.zeros((2, 100_000), np.float32), 48000, format="flac")
        >>> _ = file.seek(0)
        >>> with audio.AudioReader(file) as reader:
        ...     shapes = [block.shape for block in reader.blocks(65536)]
        >>> reader.sample_rate, reader.samples, shapes
        (48000, 100000, [(2, 65536), (2, 34464)])
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
                possible = f"{MIN_RATE} to {MAX_RATE} Hz are possible"
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
            size: The number of samples per channel in a block. None chooses a number that keeps
                blocks small for any number of channels.
            first: The first sample of the stretch to read.
            until: The sample after its last one; None for the end of the file. Up to 0.1 s of the
                stretch may be missing at the end of the file, because lists of clips have rounded
                times.

        Yields:
            Blocks float32 [channels, size]; full scale is 1.0.

        Raises:
            InputError: For a size below 1, and for a second call.
            AudioFileError: For NaN or infinite samples, a damaged stream, a stream that ends before
                the declared length or `until`, and a file that shrinks or grows while it is read.
        """
        if size is None:
            size = max(1, min(_BLOCK, _VALUES // self.channels))
        if size < 1:
            raise InputError(f"The block size must be at least 1 sample, not {size}.")
        if self._started:
            raise InputError(f"An AudioReader reads {self.name} only once; open the file again.")
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
        if done <= first or (until is not None and until - done > SLACK_SECONDS * self.sample_rate):
            wanted = f"{first / self.sample_rate:.2f} s"
            wanted += " on" if until is None else f" to {until / self.sample_rate:.2f} s"
            length = f"{done / self.sample_rate:.2f} s"
            raise audio_error(self.name, f"is {length} long and cannot be read from {wanted}")

    def close(self) -> None:
        """Close the decoder and the file; a file object of the caller stays open."""
        self._source.close()
        self._file.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(source: AudioFile) -> tuple[FloatArray, int]:
    """Return a whole file as float32 [channels, samples], and its sample rate in Hz.

    Args:
        source: A path or a binary file object, as for `AudioReader`.

    Returns:
        The samples, full scale is 1.0, and the sample rate.

    Raises:
        AudioFileError: For a file that `AudioReader` refuses, and for NaN or infinite samples.
        InputError: For a source that is neither a path nor a binary file object.

    Example:
        >>> import io
        >>> import numpy as np
        >>> from melcap import audio
        >>> file = io.BytesIO()
        >>> clipped = audio.write(file, np.zeros((2, 4410), np.float32), 44100, format="wav")
        >>> _ = file.seek(0)
        >>> wave, rate = audio.read(file)
        >>> wave.shape, wave.dtype, rate
        ((2, 4410), dtype('float32'), 44100)
    """
    with AudioReader(source) as reader:
        return np.concatenate(list(reader.blocks()), axis=1), reader.sample_rate
