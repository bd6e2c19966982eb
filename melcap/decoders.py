"""What reads which audio file: libsndfile, and FFmpeg where it falls short.

soundfile (libsndfile) reads what it can read whole, PyAV (FFmpeg) the rest:
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
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from melcap.errors import AudioFileError
from melcap.resample import FloatArray

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".aif")
"""What files of audio are called, where a folder is searched for them."""
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


class Source(Protocol):
    sample_rate: int
    channels: int
    samples: int | None
    at_least: float  # fewer samples than this mean that the file was cut

    def skip(self, samples: int) -> int:
        """Passes over up to so many samples, and says how many; before `blocks`."""
        ...

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
        self._skipped = 0
        self._order = _VORBIS_ORDER.get(self.channels) if file.format == "OGG" else None

    def skip(self, samples: int) -> int:
        # in formats that predict from what went before, only decoding is sure to be exact
        if self._file.format not in ("WAV", "WAVEX", "FLAC", "AIFF") or self.samples is None:
            return 0
        self._skipped = int(self._file.seek(min(samples, self.samples)))
        return self._skipped

    def blocks(self, size: int) -> Iterator[FloatArray]:
        done = self._skipped
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

    def skip(self, samples: int) -> int:
        return 0

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


def open_source(path: Path) -> Source:
    """The decoder for a file, chosen by its content, after the checks that need no decoder."""
    if path.is_dir():
        raise audio_error(path, "is a folder, not an audio file")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise audio_error(path, "is an empty file")
            _refuse_cut_chunks(path, file)
            beyond_sndfile = _refuse_cut_ogg(path, file)
    except OSError as exc:
        raise audio_error(path, f"cannot be read ({exc.strerror})") from exc
    if not beyond_sndfile:
        import soundfile

        try:
            return _SndfileSource(path, soundfile.SoundFile(os.fsencode(path)))
        except (RuntimeError, TypeError):
            pass  # not for libsndfile (TypeError: soundfile takes .raw for headerless sound)
    try:
        import av
    except ImportError as exc:
        why = "cannot be read without PyAV, which m4a, aac and opus need: pip install av"
        raise audio_error(path, why) from exc
    try:
        container = av.open(
            f"file:{path}",
            metadata_errors="replace",
            options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"},
        )
    except (av.FFmpegError, ValueError) as exc:
        raise audio_error(path, f"is not audio that melcap can read ({reason(exc)})") from exc
    for stream in container.streams.audio:
        if stream.codec_context is not None:  # None: a codec that FFmpeg does not know
            return _AvSource(path, container, stream)
    container.close()
    raise audio_error(path, "has no audio in it that can be decoded")


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
                raise audio_error(path, f"is cut short: {missing} of {length} bytes are missing")
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
        raise audio_error(path, "is cut short: its last Ogg page is incomplete")
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
    return audio_error(path, f"is damaged or cut short after {seconds:.2f} s ({reason(exc)})")


def audio_error(path: Path, what: str) -> AudioFileError:
    return AudioFileError(f"{path} {what}.")


def reason(exc: Exception) -> str:
    """The short text of a soundfile, PyAV or operating system error, without paths and numbers."""
    text = getattr(exc, "error_string", None) or getattr(exc, "strerror", None) or str(exc)
    return str(text).strip().rstrip(".") or type(exc).__name__
