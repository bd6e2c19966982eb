"""Audio files written block by block; a file appears only when it is complete."""

from __future__ import annotations

import os
from types import TracebackType
from typing import IO, Any

import numpy as np

from melcap.errors import InputError
from melcap.io.audio.errors import audio_error, reason
from melcap.io.audio.output_file import AudioOutput
from melcap.io.resample import FloatArray
from melcap.limits import check_channels, checked_rate

_BLOCK = 1 << 16
_FORMATS = {"wav": "WAV", "flac": "FLAC"}
_BITS = {"PCM_16": 16, "PCM_24": 24, "FLOAT": 32}
# Sizes in a wav header have 32 bits; the rest is room for the header.
_WAV_LIMIT = 2**32 - 2**12


class AudioWriter:
    """A writer of float32 blocks to a wav or flac file; a context manager.

    A file appears under its name, and replaces one of the same name, when the `with` block ends
    without an exception. Until then it has a temporary name in the same folder; after an exception
    nothing is left. A file object also gets all bytes at the end, from an unnamed temporary file.
    So the header has true sizes, in a pipe too, and after an exception nothing has been written.

    Args:
        target: A path, or a file object that is open for writing bytes; it stays open.
        sample_rate: The sample rate in Hz.
        channels: The number of channels of every block.
        subtype: PCM_16, PCM_24 or FLOAT (wav only).
        format: wav or flac; None takes it from the name of the file.
        samples: The length per channel where it is known. If a wav cannot hold it, the writer is
            refused before anything is written.

    Attributes:
        clipped: The number of samples beyond full scale (1.0), which PCM clips.

    Raises:
        AudioFileError: For a name with another suffix, another subtype, a missing folder, no
            samples, and errors of the file system or the format.
        InputError: For a rate outside 1000 to 768000 Hz, fewer than one channel, another `format`,
            and a file object without one.

    Example:
        >>> import io
        >>> import numpy as np
        >>> from melcap.audio import AudioWriter
        >>> file = io.BytesIO()
        >>> with AudioWriter(file, 44100, 2, format="wav") as writer:
        ...     for _ in range(3):
        ...         writer.write(np.zeros((2, 1000), np.float32))
        >>> len(file.getvalue())
        12044
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | IO[bytes],
        sample_rate: int,
        channels: int,
        subtype: str = "PCM_16",
        *,
        format: str | None = None,
        samples: int | None = None,
    ) -> None:
        self.sample_rate = checked_rate(sample_rate)
        self.channels = channels
        self.subtype = subtype
        self.clipped = 0
        self._bytes = 0
        self._file: Any = None
        if channels < 1:
            raise InputError(f"An audio file needs at least one channel, not {channels}.")
        self._output = AudioOutput(target)
        self.name = self._output.name
        self._format = self._checked_format(format)
        if subtype not in _BITS or (self._format, subtype) == ("FLAC", "FLOAT"):
            possible = "PCM_16, PCM_24" + (", FLOAT" if self._format == "WAV" else "")
            raise audio_error(self.name, f"cannot be written as {subtype}; use {possible}")
        # libsndfile would refuse the rate only with the first block, and not name it.
        rate_fits = self.sample_rate < 65536 or self.sample_rate % 10 == 0
        if self._format == "FLAC" and not (rate_fits and self.sample_rate <= 655_350):
            raise audio_error(self.name, f"cannot hold {self.sample_rate} Hz in flac; write .wav")
        self._require_room((samples or 0) * channels)
        self._output.require_place()

    def write(self, block: FloatArray) -> None:
        """Append float32 [channels, n].

        Raises:
            InputError: For another shape or dtype, NaN or infinity.
            AudioFileError: For errors of the file system or the format.
        """
        if block.ndim != 2 or block.shape[0] != self.channels or block.dtype != np.float32:
            raise InputError(
                f"A block must be float32 [{self.channels}, samples], "
                f"not {block.dtype} {list(block.shape)}."
            )
        if not np.isfinite(block).all():
            raise InputError(f"Cannot write NaN or infinite samples to {self.name}.")
        self._require_room(block.size)
        bits = _BITS[self.subtype]
        self._bytes += block.size * bits // 8
        frames: np.ndarray[Any, Any] = block.T
        if self.subtype != "FLOAT":
            # Converted here with the power of two that reading divides by, so both are exact.
            self.clipped += int(np.count_nonzero(np.abs(block) > 1))
            full = 2 ** (bits - 1)
            whole = np.clip(np.rint(np.clip(frames, -1, 1) * full), -full, full - 1)
            frames = whole.astype(np.int16) if bits == 16 else whole.astype(np.int32) << 8
        try:
            self._file.write(np.ascontiguousarray(frames))
        except (RuntimeError, AssertionError) as exc:
            raise audio_error(self.name, f"cannot be written ({reason(exc)})") from exc

    def __enter__(self) -> AudioWriter:
        import soundfile

        try:
            self._file = soundfile.SoundFile(
                self._output.open(),
                "w",
                self.sample_rate,
                self.channels,
                self.subtype,
                format=self._format,
                closefd=False,
            )
        except (RuntimeError, OSError) as exc:
            self._output.discard()
            raise audio_error(self.name, f"cannot be written ({reason(exc)})") from exc
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._file.close()
            if kind is None and not self._bytes:
                raise audio_error(self.name, "would be empty, as no samples were written")
            if kind is None:
                self._output.commit()
        except (RuntimeError, OSError) as exc:
            if kind is None:  # otherwise the exception of the block says more
                raise audio_error(self.name, f"cannot be written ({reason(exc)})") from exc
        finally:
            self._output.discard()

    def _checked_format(self, given: str | None) -> str:
        path = self._output.path
        if given is None and path is None:
            raise InputError(f"The format of {self.name} is missing: pass format='wav' or 'flac'.")
        if given is not None and given not in _FORMATS:
            raise InputError(f"The format must be wav or flac, not {given!r}.")
        suffix = path.suffix.lower().removeprefix(".") if path else ""
        if given is None and suffix not in _FORMATS:
            raise audio_error(self.name, "cannot be written: the name must end in .wav or .flac")
        return _FORMATS[given or suffix]

    def _require_room(self, values: int) -> None:
        size = self._bytes + values * _BITS[self.subtype] // 8
        if self._format == "WAV" and size > _WAV_LIMIT:
            raise audio_error(self.name, "would exceed the 4 GiB that a wav can hold; write .flac")


def write(
    target: str | os.PathLike[str] | IO[bytes],
    wave: FloatArray,
    sample_rate: int,
    subtype: str = "PCM_16",
    *,
    format: str | None = None,
) -> int:
    """Write float32 [channels, samples] as wav or flac.

    Args:
        target: A path, or a file object that is open for writing bytes; it stays open.
        wave: The samples; full scale is 1.0.
        sample_rate: The sample rate in Hz.
        subtype: PCM_16, PCM_24 or FLOAT (wav only).
        format: wav or flac; None takes it from the name of the file.

    Returns:
        The number of samples that were clipped to full scale.

    Raises:
        AudioFileError: As for `AudioWriter`.
        InputError: As for `AudioWriter`, and for a wave of another shape or dtype, with NaN, or
            with infinity.

    Example:
        >>> import io
        >>> import numpy as np
        >>> from melcap import audio
        >>> audio.write(io.BytesIO(), np.array([[0.5, 1.5]], np.float32), 44100, format="wav")
        1
    """
    if wave.ndim != 2:
        raise InputError(f"A wave must be float32 [channels, samples], not {list(wave.shape)}.")
    check_channels(wave.shape, "A wave")
    channels, samples = wave.shape
    with AudioWriter(
        target, sample_rate, channels, subtype, format=format, samples=samples
    ) as writer:
        for start in range(0, samples, _BLOCK):
            writer.write(wave[:, start : start + _BLOCK])
    return writer.clipped
