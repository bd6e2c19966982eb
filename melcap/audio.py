"""Audio files in and out, block by block: a long file needs no more memory than a short one.

Files are read with soundfile (libsndfile), and with PyAV (FFmpeg) where libsndfile falls short:
formats it does not know (m4a, aac), Ogg files of several streams (it stops after the first, in
silence), and Ogg Opus. Opus copied from webm or cut makes libsndfile 1.2.2 stop part-way, or come
up to 312 samples late, since it trusts page positions where FFmpeg counts the samples to skip.
On other files the two agree to 1e-6, given PyAV's libopus: FFmpeg's own Opus decoder is a few
samples off in the speech modes. Opus is always 48 kHz here, whatever rate it was made from.

A file cut short is refused: wav and aiff (sizes of the chunks) and Ogg (an incomplete last page)
when it is opened; flac, m4a, and an mp3 that says its length, when reading comes to the early end.
Read to the end as they are: a wav whose size field is a recorder's placeholder (0x7FFF0000 and
above), an Ogg that ends between two pages, and an mp3 or aac that does not say its length.
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np

from melcap.errors import AudioFileError, InputError
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
    "AudioReader",
    "AudioWriter",
    "Resampler",
    "read",
    "resample",
    "resampled_length",
    "write",
]

_BLOCK = 1 << 16
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
        self._source = _open(self.path)
        self.sample_rate = self._source.sample_rate
        self.channels = self._source.channels
        self.samples = self._source.samples
        self._started = False
        if self.samples == 0:
            self.close()
            raise _error(self.path, "holds no audio samples")
        if not MIN_RATE <= self.sample_rate <= MAX_RATE:
            self.close()
            possible = f"possible are {MIN_RATE} to {MAX_RATE} Hz"
            raise _error(self.path, f"has a sample rate of {self.sample_rate} Hz; {possible}")
        if not 1 <= self.channels <= _MAX_CHANNELS:
            self.close()
            possible = f"possible are 1 to {_MAX_CHANNELS}"
            raise _error(self.path, f"has {self.channels} channels; {possible}")

    def blocks(self, size: int = _BLOCK) -> Iterator[FloatArray]:
        """Yields float32 [channels, size], the last one shorter; one pass from start to end.

        Raises InputError for a size below 1 or a second call, and AudioFileError for NaN or
        infinite samples, a damaged stream, or one that ends before the container says.
        """
        if size < 1:
            raise InputError(f"The block size must be at least 1 sample, not {size}.")
        if self._started:
            raise InputError(f"{self.path} is read once per reader; open it again.")
        self._started = True
        done = 0
        for block in self._source.blocks(size):
            finite = np.isfinite(block).all(axis=0)
            if not finite.all():
                at = done + int(np.argmin(finite))
                raise _error(self.path, f"has a NaN or infinite sample, the first at index {at}")
            done += block.shape[1]
            yield block
        if done == 0:
            raise _error(self.path, "holds no audio samples")
        if done < self._source.at_least:
            raise _error(self.path, f"is cut short: it ends after {done} of {self.samples} samples")

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
            raise _error(self.path, "cannot be written: the name must end in .wav or .flac")
        if subtype not in _SUBTYPES or (self._format, subtype) == ("FLAC", "FLOAT"):
            possible = "PCM_16, PCM_24" + (", FLOAT" if self._format == "WAV" else "")
            raise _error(self.path, f"cannot be written as {subtype}; possible are {possible}")
        # libsndfile finds out with the first block, and blames the decoder.
        rate_fits = self.sample_rate < 65536 or self.sample_rate % 10 == 0
        if self._format == "FLAC" and not (rate_fits and self.sample_rate <= 655_350):
            raise _error(self.path, f"cannot hold {self.sample_rate} Hz in flac; write .wav")
        if self.path.is_dir():
            raise _error(self.path, "cannot be written: it is a folder")
        if not self.path.parent.is_dir():
            raise _error(self.path, "cannot be written: its folder does not exist")
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
            raise _error(self.path, "would exceed the 4 GiB that a wav can hold; write .flac")
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
            raise _error(self.path, f"cannot be written ({_reason(exc)})") from exc

    def __enter__(self) -> AudioWriter:
        import soundfile

        try:
            self._file = soundfile.SoundFile(
                self._temporary,
                "w",
                self.sample_rate,
                self.channels,
                self.subtype,
                format=self._format,
            )
        except RuntimeError as exc:
            self._temporary.unlink(missing_ok=True)
            raise _error(self.path, f"cannot be written ({_reason(exc)})") from exc
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
                raise _error(self.path, "would be empty, as no samples were written")
            if kind is None:
                os.replace(self._temporary, self.path)
        except (RuntimeError, OSError) as exc:
            if kind is None:  # else the exception that brought us here says more
                raise _error(self.path, f"cannot be written ({_reason(exc)})") from exc
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


_PLACEHOLDER = 0x7FFF0000
_OGG_PAGE = 27 + 255 + 255 * 255
# Nothing in this list follows references to other files or addresses.
_DEMUXERS = "ogg,mov,mp4,m4a,3gp,3g2,mj2,aac,mp3"
# Vorbis puts the centre second and the low frequencies last; everything else here follows wav.
_VORBIS_ORDER = {
    3: [0, 2, 1],
    5: [0, 2, 1, 3, 4],
    6: [0, 2, 1, 5, 3, 4],
    7: [0, 2, 1, 6, 5, 3, 4],
    8: [0, 2, 1, 7, 5, 6, 3, 4],
}


class _Source(Protocol):
    sample_rate: int
    channels: int
    samples: int | None
    at_least: float  # fewer samples than this mean that the file was cut

    def blocks(self, size: int) -> Iterator[FloatArray]: ...

    def close(self) -> None: ...


class _SndfileSource:
    def __init__(self, path: Path, file: Any) -> None:
        self._path = path
        self._file = file
        # Else soundfile seeks after each read, which fails where the length is not known.
        file.seekable = lambda: False
        self.sample_rate: int = file.samplerate
        self.channels: int = file.channels
        known = file.frames < 2**62 and (file.format != "MP3" or _mp3_says_its_length(path))
        self.samples: int | None = file.frames if known else None
        slack = {"OGG": np.inf, "MP3": 2 * 1152}.get(file.format, 0.0)
        self.at_least = (self.samples or 0) - slack
        self._order = _VORBIS_ORDER.get(self.channels) if file.format == "OGG" else None

    def blocks(self, size: int) -> Iterator[FloatArray]:
        done = 0
        while True:
            try:
                frames = self._file.read(size, dtype="float32", always_2d=True)
            except RuntimeError as exc:
                raise _damaged(self._path, done / self.sample_rate, exc) from exc
            if not len(frames):
                return
            done += len(frames)
            wave = frames.T if self._order is None else frames.T[self._order]
            yield np.ascontiguousarray(wave)

    def close(self) -> None:
        self._file.close()


class _AvSource:
    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        import av

        self._path = path
        self._container = container
        self._stream = stream
        self._decoder: Any = stream.codec_context
        self.sample_rate: int = self._decoder.sample_rate
        self.channels: int = self._decoder.channels
        self.samples: int | None = None
        self.at_least: float = 0
        tick = stream.time_base * self.sample_rate
        names = set(container.format.name.split(","))
        # Only ticks of whole samples can tell how much of the last packet is padding.
        self._tick = int(tick) if "mov" in names and tick.denominator == 1 else 0
        if self._tick and stream.duration:
            self.samples = stream.duration * self._tick
            # Some writers count the encoder's warm-up as sound; FFmpeg rightly drops it.
            self.at_least = self.samples - 8192
        if self._decoder.name == "opus":
            header = self._decoder.extradata
            if "ogg" in names and stream.duration:
                (pre_skip,) = struct.unpack_from("<H", header, 10)
                self.samples = stream.duration - (stream.start_time or 0) - pre_skip
            if "libopus" in av.codecs_available:
                self._decoder = av.CodecContext.create("libopus", "r")
                self._decoder.extradata = header
                self._decoder.options = {"request_sample_fmt": "flt"}

    def blocks(self, size: int) -> Iterator[FloatArray]:
        block = np.empty((self.channels, size), dtype=np.float32)
        fill = 0
        for piece in self._pieces():
            start = 0
            while start < piece.shape[1]:
                count = min(size - fill, piece.shape[1] - start)
                block[:, fill : fill + count] = piece[:, start : start + count]
                start, fill = start + count, fill + count
                if fill == size:
                    yield block
                    block, fill = np.empty_like(block), 0
        if fill:
            yield block[:, :fill].copy()

    def _pieces(self) -> Iterator[FloatArray]:
        import av

        # Interleaved: PyAV 18 reads past the end of planar frames of eight channels, and crashes.
        interleave = av.AudioResampler(format="flt")
        held: FloatArray = np.empty((self.channels, 0), dtype=np.float32)
        shape = (self.sample_rate, self.channels)
        end = done = 0
        try:
            for packet in self._container.demux(self._stream):
                for frame in self._decoder.decode(packet):
                    if (frame.sample_rate, frame.layout.nb_channels) != shape:
                        raise ValueError("its sample rate or channels change")
                    end = (frame.duration or 0) * self._tick
                    for part in interleave.resample(frame):
                        yield held
                        held = part.to_ndarray().astype(np.float32).reshape(-1, self.channels).T
                        done += held.shape[1]
        except (av.FFmpegError, ValueError) as exc:
            raise _damaged(self._path, done / self.sample_rate, exc) from exc
        yield held[:, : end or None]

    def close(self) -> None:
        self._container.close()


def _open(path: Path) -> _Source:
    """The decoder for a file, chosen by its content, after the checks that need no decoder."""
    if path.is_dir():
        raise _error(path, "is a folder, not an audio file")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise _error(path, "is an empty file")
            _refuse_cut_chunks(path, file)
            beyond_sndfile = _refuse_cut_ogg(path, file)
    except OSError as exc:
        raise _error(path, f"cannot be read ({exc.strerror})") from exc
    if not beyond_sndfile:
        import soundfile

        try:
            return _SndfileSource(path, soundfile.SoundFile(path))
        except (RuntimeError, TypeError):
            pass  # not for libsndfile (TypeError: soundfile takes .raw for headerless sound)
    try:
        import av
    except ImportError as exc:
        why = "cannot be read without PyAV, which m4a, aac and opus need: pip install av"
        raise _error(path, why) from exc
    try:
        container = av.open(
            f"file:{path}",
            metadata_errors="replace",
            options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"},
        )
    except (av.FFmpegError, ValueError) as exc:
        raise _error(path, f"is not audio that melcap can read ({_reason(exc)})") from exc
    for stream in container.streams.audio:
        if stream.codec_context is not None:  # None: a codec that FFmpeg does not know
            return _AvSource(path, container, stream)
    container.close()
    raise _error(path, "has no audio in it that can be decoded")


def _refuse_cut_chunks(path: Path, file: BinaryIO) -> None:
    """Refuses a wav or aiff whose sound chunk promises more bytes than follow."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    order = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">", b"FORM": ">"}.get(file.read(12)[:4])
    wide = 0
    for _ in range(1000 if order else 0):
        head = file.read(8)
        if len(head) < 8:
            return
        name, length = struct.unpack(f"{order}4sI", head)
        if name == b"ds64":
            (wide,) = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))
            length = max(0, length - 16)
        if name in (b"data", b"SSND"):
            if length == 0xFFFFFFFF and wide:
                length = wide
            elif length >= _PLACEHOLDER:
                return
            missing = file.tell() + length - size
            if missing > 0:
                raise _error(path, f"is cut short: {missing} of {length} bytes are missing")
            return
        file.seek(length + length % 2, os.SEEK_CUR)


def _refuse_cut_ogg(path: Path, file: BinaryIO) -> bool:
    """Refuses an Ogg with an incomplete last page; True where libsndfile would read one wrongly."""
    file.seek(0)
    head = file.read(_OGG_PAGE)
    if head[:4] != b"OggS":
        return False
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _OGG_PAGE))
    tail = file.read()
    tail = tail[max(0, tail.rfind(b"OggS\0")) :]
    table = tail[27 : 27 + tail[26]] if len(tail) > 26 else b""
    rest = len(tail) - 27 - len(table) - sum(table)
    # One to four bytes left over are the start of a page too short for its name to be found.
    if len(tail) < 28 or rest < 0 or 0 < rest < 5 or tail[:4] != b"OggS":
        raise _error(path, "is cut short: its last Ogg page is incomplete")
    return b"OpusHead" in head[:300] or head[14:18] != tail[14:18]


def _mp3_says_its_length(path: Path) -> bool:
    """Whether the first frame of an mp3 carries a count of frames; libsndfile guesses otherwise."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":
            a, b, c, d = head[6:10]
            file.seek(10 + (a << 21 | b << 14 | c << 7 | d))
        frame = file.read(4096)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    return at >= 0 and frame[at + 7] & 1 == 1


def _damaged(path: Path, seconds: float, exc: Exception) -> AudioFileError:
    return _error(path, f"is damaged or cut short after {seconds:.2f} s ({_reason(exc)})")


def _error(path: Path, what: str) -> AudioFileError:
    return AudioFileError(f"{path} {what}.")


def _reason(exc: Exception) -> str:
    """The short text of a soundfile, PyAV or operating system error, without paths and numbers."""
    text = getattr(exc, "error_string", None) or getattr(exc, "strerror", None) or str(exc)
    return str(text).strip().rstrip(".") or type(exc).__name__
