"""Audio files written block by block, which appear when they are complete, and not before."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from melcap.errors import InputError
from melcap.io.readers.errors import audio_error, reason
from melcap.io.resample import FloatArray
from melcap.limits import check_channels, checked_rate

_BLOCK = 1 << 16
_AT_ONCE = 1 << 20
_FORMATS = {"wav": "WAV", "flac": "FLAC"}
_BITS = {"PCM_16": 16, "PCM_24": 24, "FLOAT": 32}
# Sizes in a wav header have 32 bits; the rest is room for the header.
_WAV_LIMIT = 2**32 - 2**12


class AudioWriter:
    """Writes float32 blocks as wav or flac; a context manager.

    A file appears under its name when the `with` block ends well, replacing what was there; before
    that it has a temporary name in the same folder, and an exception leaves nothing. A file object
    gets all bytes at that moment too, from an unnamed temporary file: its header has true sizes,
    in a pipe as well, and after an exception the object has got nothing. PCM clips samples beyond
    full scale (1.0) and counts them in `clipped`.

    Args:
        target: a path, or a file object open for writing bytes, which stays open.
        sample_rate: in Hz.
        channels: of every block.
        subtype: PCM_16, PCM_24 or FLOAT (wav only).
        format: wav or flac; None takes it from the name of the file.
        samples: the length per channel if it is known; what a wav cannot hold is then refused
            before anything is written.

    Raises:
        AudioFileError: for another format or subtype, a missing folder, no samples, or what the
            file system or format refuses.
        InputError: for a rate outside 1000 to 768000 Hz, or a file object without a format.
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
        self._output: IO[bytes] | None = None
        self._temporary: Path | None = None
        if channels < 1:
            raise InputError(f"An audio file needs at least one channel, not {channels}.")
        if isinstance(target, (str, os.PathLike)):
            self._path: Path | None = Path(target)
            self.name = str(self._path)
        else:
            self._path, self._target = None, target
            named = getattr(target, "name", None)
            self.name = named if isinstance(named, str) else "<stream>"
        self._format = self._checked_format(format)
        if subtype not in _BITS or (self._format, subtype) == ("FLAC", "FLOAT"):
            possible = "PCM_16, PCM_24" + (", FLOAT" if self._format == "WAV" else "")
            raise audio_error(self.name, f"cannot be written as {subtype}; possible are {possible}")
        # libsndfile finds out with the first block, and blames the decoder.
        rate_fits = self.sample_rate < 65536 or self.sample_rate % 10 == 0
        if self._format == "FLAC" and not (rate_fits and self.sample_rate <= 655_350):
            raise audio_error(self.name, f"cannot hold {self.sample_rate} Hz in flac; write .wav")
        self._require_room((samples or 0) * channels)
        if self._path is not None:
            self._require_place(self._path)

    def write(self, block: FloatArray) -> None:
        """Append float32 [channels, n].

        Raises:
            InputError: for another shape or dtype, NaN or infinity.
            AudioFileError: for what the file system or format refuses.
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
            # Converted here because reading divides by the same power of two: exact both ways.
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
            if self._path is None:
                self._output = tempfile.TemporaryFile(prefix="melcap-")
            else:
                self._temporary = self._path.with_name(f".melcap-{secrets.token_hex(6)}.part")
                self._output = self._temporary.open("xb")
            self._file = soundfile.SoundFile(
                self._output.fileno(),
                "w",
                self.sample_rate,
                self.channels,
                self.subtype,
                format=self._format,
                closefd=False,
            )
        except (RuntimeError, OSError) as exc:
            self._discard()
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
                self._hand_over()
        except (RuntimeError, OSError) as exc:
            if kind is None:  # else the exception that brought us here says more
                raise audio_error(self.name, f"cannot be written ({reason(exc)})") from exc
        finally:
            self._discard()

    def _hand_over(self) -> None:
        assert self._output is not None
        if self._path is not None and self._temporary is not None:
            self._output.close()
            os.replace(self._temporary, self._path)
            return
        self._output.seek(0)
        while piece := self._output.read(_AT_ONCE):
            while piece:
                written = self._target.write(piece)
                if not written:
                    raise OSError("the file object takes no more bytes")
                piece = piece[written:]
        self._target.flush()

    def _discard(self) -> None:
        if self._output is not None:
            self._output.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def _checked_format(self, given: str | None) -> str:
        if given is None and self._path is None:
            raise InputError(f"The format of {self.name} must be said: format='wav' or 'flac'.")
        if given is not None and given not in _FORMATS:
            raise InputError(f"The format must be wav or flac, not {given!r}.")
        suffix = self._path.suffix.lower().removeprefix(".") if self._path else ""
        if given is None and suffix not in _FORMATS:
            raise audio_error(self.name, "cannot be written: the name must end in .wav or .flac")
        return _FORMATS[given or suffix]

    def _require_room(self, values: int) -> None:
        size = self._bytes + values * _BITS[self.subtype] // 8
        if self._format == "WAV" and size > _WAV_LIMIT:
            raise audio_error(self.name, "would exceed the 4 GiB that a wav can hold; write .flac")

    @staticmethod
    def _require_place(path: Path) -> None:
        if path.is_dir():
            raise audio_error(str(path), "cannot be written: it is a folder")
        if path.exists() and not path.is_file():
            raise audio_error(str(path), "cannot be written: it is not a regular file")
        if not path.parent.is_dir():
            raise audio_error(str(path), "cannot be written: its folder does not exist")


def write(
    target: str | os.PathLike[str] | IO[bytes],
    wave: FloatArray,
    sample_rate: int,
    subtype: str = "PCM_16",
    *,
    format: str | None = None,
) -> int:
    """Write float32 [channels, samples] as wav or flac, and return how many samples were clipped.

    Raises:
        AudioFileError, InputError: as `AudioWriter` does.
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
