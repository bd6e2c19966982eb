"""Audio files in and out, block by block: a long file needs no more memory than a short one.

Files are read with soundfile (libsndfile) and PyAV (FFmpeg); see `melcap.decoders` for which reads
what, and for what is refused as cut short.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from melcap.decoders import AUDIO_SUFFIXES, audio_error, open_source, reason
from melcap.errors import InputError
from melcap.resample import (
    MAX_RATE,
    MIN_RATE,
    FloatArray,
    Resampler,
    checked_rate,
    resample,
    resampled_length,
)

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
_ROUNDING = 0.1
"""Seconds that a file may end before a stretch of it does: lists have rounded numbers."""
# A damaged header can ask for tens of thousands, and each takes a block.
_MAX_CHANNELS = 64
_FORMATS = {".wav": "WAV", ".flac": "FLAC"}
_SUBTYPES = {"PCM_16": 16, "PCM_24": 24, "FLOAT": 32}
# Sizes in a wav header have 32 bits; the rest is room for the header.
_WAV_LIMIT = 2**32 - 2**12


class AudioReader:
    """An audio file as a stream of float32 blocks; a context manager.

    `sample_rate` is in Hz (Ogg Opus is always 48000), `channels` in the order of wav files.
    `samples` is the length per channel that the container declares, None where it declares none:
    good for a progress bar, while the truth is what `blocks` yields (m4a rounds to milliseconds).

    Raises AudioFileError, naming the file, when it is missing, no audio, empty or cut short.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._source = open_source(self.path)
        self.sample_rate = self._source.sample_rate
        self.channels = self._source.channels
        self.samples = self._source.samples
        self._started = False
        if self.samples == 0:
            self.close()
            raise audio_error(self.path, "holds no audio samples")
        if not MIN_RATE <= self.sample_rate <= MAX_RATE:
            self.close()
            possible = f"possible are {MIN_RATE} to {MAX_RATE} Hz"
            raise audio_error(self.path, f"has a sample rate of {self.sample_rate} Hz; {possible}")
        if not 1 <= self.channels <= _MAX_CHANNELS:
            self.close()
            possible = f"possible are 1 to {_MAX_CHANNELS}"
            raise audio_error(self.path, f"has {self.channels} channels; {possible}")

    def blocks(
        self, size: int = _BLOCK, first: int = 0, until: int | None = None
    ) -> Iterator[FloatArray]:
        """Yields float32 [channels, size], the last one shorter; one pass from start to end.

        `first` and `until` cut a stretch out: samples first to until - 1, of which up to
        `_ROUNDING` seconds may be missing at the end of the file.

        Raises InputError for a size below 1 or a second call, and AudioFileError for NaN or
        infinite samples, a damaged stream, or one that ends before the container or `until` says.
        """
        if size < 1:
            raise InputError(f"The block size must be at least 1 sample, not {size}.")
        if self._started:
            raise InputError(f"{self.path} is read once per reader; open it again.")
        self._started = True
        done = self._source.skip(first) if first else 0
        for block in self._source.blocks(size):
            here, done = done, done + block.shape[1]
            block = block[:, max(0, first - here) : None if until is None else until - here]
            finite = np.isfinite(block).all(axis=0)
            if not finite.all():
                at = max(here, first) + int(np.argmin(finite))
                raise audio_error(
                    self.path, f"has a NaN or infinite sample, the first at index {at}"
                )
            if block.shape[1]:
                yield block
            if until is not None and done >= until:
                return
        if done == 0:
            raise audio_error(self.path, "holds no audio samples")
        if done < self._source.at_least:
            raise audio_error(
                self.path, f"is cut short: it ends after {done} of {self.samples} samples"
            )
        if done <= first or (until is not None and until - done > _ROUNDING * self.sample_rate):
            wanted = f"{first / self.sample_rate:.2f} s"
            wanted += " on" if until is None else f" to {until / self.sample_rate:.2f} s"
            length = f"{done / self.sample_rate:.2f} s"
            raise audio_error(self.path, f"is {length} long, and is asked for from {wanted}")

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AudioWriter:
    """Writes float32 blocks as .wav or .flac; a context manager.

    The file appears under its name when the `with` block ends well, replacing what was there;
    before that it has a temporary name in the same folder, and an exception leaves nothing.
    `subtype` is PCM_16, PCM_24 or FLOAT (wav only). PCM clips samples beyond full scale (1.0)
    and counts them in `clipped`.

    Raises AudioFileError for another extension or subtype, a missing folder, no samples, or what
    the file system or format refuses, and InputError for a rate outside 1000 to 768000 Hz.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        channels: int,
        subtype: str = "PCM_16",
    ) -> None:
        self.path = Path(path)
        self.sample_rate = checked_rate(sample_rate)
        self.channels = channels
        self.subtype = subtype
        self.clipped = 0
        self._bytes = 0
        self._file: Any = None
        if channels < 1:
            raise InputError(f"An audio file needs at least one channel, not {channels}.")
        self._format = _FORMATS.get(self.path.suffix.lower(), "")
        if not self._format:
            raise audio_error(self.path, "cannot be written: the name must end in .wav or .flac")
        if subtype not in _SUBTYPES or (self._format, subtype) == ("FLAC", "FLOAT"):
            possible = "PCM_16, PCM_24" + (", FLOAT" if self._format == "WAV" else "")
            raise audio_error(self.path, f"cannot be written as {subtype}; possible are {possible}")
        # libsndfile finds out with the first block, and blames the decoder.
        rate_fits = self.sample_rate < 65536 or self.sample_rate % 10 == 0
        if self._format == "FLAC" and not (rate_fits and self.sample_rate <= 655_350):
            raise audio_error(self.path, f"cannot hold {self.sample_rate} Hz in flac; write .wav")
        if self.path.is_dir():
            raise audio_error(self.path, "cannot be written: it is a folder")
        if not self.path.parent.is_dir():
            raise audio_error(self.path, "cannot be written: its folder does not exist")
        self._temporary = self.path.with_name(f".melcap-{secrets.token_hex(6)}.part")

    def write(self, block: FloatArray) -> None:
        """Appends float32 [channels, n]; InputError for another shape, NaN or infinity."""
        if block.ndim != 2 or block.shape[0] != self.channels or block.dtype != np.float32:
            raise InputError(
                f"A block must be float32 [{self.channels}, samples], "
                f"not {block.dtype} {list(block.shape)}."
            )
        if not np.isfinite(block).all():
            raise InputError(f"Cannot write NaN or infinite samples to {self.path}.")
        bits = _SUBTYPES[self.subtype]
        self._bytes += block.size * bits // 8
        if self._format == "WAV" and self._bytes > _WAV_LIMIT:
            raise audio_error(self.path, "would exceed the 4 GiB that a wav can hold; write .flac")
        frames: np.ndarray[Any, Any] = block.T
        if self.subtype != "FLOAT":
            # Converted here because reading divides by the same power of two: exact both ways.
            self.clipped += int(np.count_nonzero(np.abs(block) > 1))
            full = 2 ** (bits - 1)
            whole = np.clip(np.rint(np.clip(frames, -1, 1) * full), -full, full - 1)
            frames = whole.astype(np.int16) if bits == 16 else whole.astype(np.int32) << 8
        try:
            self._file.write(np.ascontiguousarray(frames))
        except (RuntimeError, AssertionError) as exc:
            raise audio_error(self.path, f"cannot be written ({reason(exc)})") from exc

    def __enter__(self) -> AudioWriter:
        import soundfile

        try:
            self._file = soundfile.SoundFile(
                os.fsencode(self._temporary),
                "w",
                self.sample_rate,
                self.channels,
                self.subtype,
                format=self._format,
            )
        except RuntimeError as exc:
            self._temporary.unlink(missing_ok=True)
            raise audio_error(self.path, f"cannot be written ({reason(exc)})") from exc
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
                raise audio_error(self.path, "would be empty, as no samples were written")
            if kind is None:
                os.replace(self._temporary, self.path)
        except (RuntimeError, OSError) as exc:
            if kind is None:  # else the exception that brought us here says more
                raise audio_error(self.path, f"cannot be written ({reason(exc)})") from exc
        finally:
            self._temporary.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> tuple[FloatArray, int]:
    """The whole file as (float32 [channels, samples], sample rate in Hz).

    Raises AudioFileError as `AudioReader` does.
    """
    with AudioReader(path) as reader:
        return np.concatenate(list(reader.blocks()), axis=1), reader.sample_rate


def write(
    path: str | os.PathLike[str], wave: FloatArray, sample_rate: int, subtype: str = "PCM_16"
) -> int:
    """Writes float32 [channels, samples] as .wav or .flac; returns how many samples were clipped.

    Raises AudioFileError and InputError as `AudioWriter` does.
    """
    if wave.ndim != 2:
        raise InputError(f"A wave must be float32 [channels, samples], not {list(wave.shape)}.")
    with AudioWriter(path, sample_rate, wave.shape[0], subtype) as writer:
        for start in range(0, wave.shape[1], _BLOCK):
            writer.write(wave[:, start : start + _BLOCK])
    return writer.clipped
