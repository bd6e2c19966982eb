"""Reading with FFmpeg (PyAV): what libsndfile does not know, or would stop short on."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from melcap.io.readers.errors import audio_error, damaged, reason
from melcap.io.readers.opening import AudioInput
from melcap.io.readers.source import CLEARLY, Part, reblocked
from melcap.io.resample import FloatArray

_WARM_UP = 2112
"""Samples of an encoder's delay that some writers of m4a count as sound, and FFmpeg drops."""


class FfmpegSource:
    """A part of a file, decoded by FFmpeg.

    Of several audio tracks it reads the one that is marked as the default, else the first.

    Raises AudioFileError where that is not possible.
    """

    def __init__(self, file: AudioInput, part: Part) -> None:
        self._name = file.name
        self._container = _open(file, part)
        try:
            self._stream = _track(file.name, self._container)
        except Exception:
            self.close()
            raise
        self._decoder = self._stream.codec_context
        self.sample_rate: int = self._decoder.sample_rate
        self.channels: int = self._decoder.channels
        self.limit = part.samples if part.exact else None
        self.spare = max(1, part.slack)
        # Elsewhere FFmpeg means that the last packet is shorter than the rest.
        self._framed = part.demuxer in ("mov", "matroska", "asf")
        tick = self._stream.time_base * self.sample_rate
        # Only ticks of whole samples can tell how much of the last packet is padding.
        self._tick = int(tick) if part.demuxer == "mov" and tick.denominator == 1 else 0
        self.samples: int | None = self._declared(part)
        slack = part.slack
        if self._tick and self._decoder.name == "aac":
            slack += _WARM_UP
        if not part.exact:
            slack += int(CLEARLY * self.sample_rate)
        self.at_least: float = (self.samples or 0) - slack
        if self._decoder.name in ("alac", "flac"):
            # The frames of flac have checksums. FFmpeg 8 cuts padding in caf off twice.
            skipping = {"flags2": "+skip_manual"} if part.demuxer == "caf" else {}
            self._decoder.options = {"err_detect": "crccheck+explode", **skipping}
        elif self._decoder.name == "opus":
            self._use_libopus()

    def skip(self, samples: int) -> int:
        return 0

    def blocks(self, size: int) -> Iterator[FloatArray]:
        return reblocked(self._pieces(), self.channels, size)

    def close(self) -> None:
        self._container.close()

    def _declared(self, part: Part) -> int | None:
        """Return the samples that the file declares."""
        duration = self._stream.duration
        if part.samples is not None:
            return part.samples
        if part.seconds is not None:
            # A recording that was cut out of another may keep its times.
            first = float((self._stream.start_time or 0) * self._stream.time_base)
            return round(max(0.0, part.seconds - max(0.0, first)) * self.sample_rate)
        if self._tick and duration:
            return int(duration * self._tick)
        if part.demuxer == "ogg" and duration and self._stream.time_base * self.sample_rate == 1:
            pre_skip = 0
            if self._decoder.name == "opus":
                (pre_skip,) = struct.unpack_from("<H", self._decoder.extradata, 10)
            return int(duration - (self._stream.start_time or 0) - pre_skip)
        return None

    def _use_libopus(self) -> None:
        import av

        if "libopus" in av.codecs_available:
            header = self._decoder.extradata
            self._decoder = av.CodecContext.create("libopus", "r")
            self._decoder.extradata = header
            self._decoder.options = {"request_sample_fmt": "flt"}

    def _pieces(self) -> Iterator[FloatArray]:
        import av

        # Interleaved: PyAV 18 reads past the end of planar frames of eight channels, and crashes.
        interleave = av.AudioResampler(format="flt")
        held: FloatArray = np.empty((self.channels, 0), dtype=np.float32)
        shape = (self.sample_rate, self.channels)
        end = done = 0
        try:
            for packet in self._container.demux(self._stream):
                if packet.is_corrupt and self._framed:
                    raise ValueError("a packet is incomplete")
                for frame in self._decoder.decode(packet):
                    if (frame.sample_rate, frame.layout.nb_channels) != shape:
                        raise ValueError("its sample rate or channels change")
                    end = (frame.duration or 0) * self._tick
                    for piece in interleave.resample(frame):
                        yield held
                        held = piece.to_ndarray().astype(np.float32).reshape(-1, self.channels).T
                        done += held.shape[1]
        except (av.FFmpegError, OSError, ValueError) as exc:
            raise damaged(self._name, done / self.sample_rate, exc) from exc
        yield held[:, : end or None]


def _open(file: AudioInput, part: Part) -> Any:
    try:
        import av
    except ImportError as exc:
        raise audio_error(
            file.name, "cannot be read without PyAV, which it needs: pip install av"
        ) from exc
    try:
        return av.open(
            file.view(part.start, part.end, part.head),
            format=part.demuxer,
            metadata_errors="replace",
            # nothing in a file may lead to another one
            options={"protocol_whitelist": "none"},
        )
    except (av.FFmpegError, OSError, ValueError) as exc:
        raise audio_error(file.name, f"is not audio that melcap can read ({reason(exc)})") from exc


def _track(name: str, container: Any) -> Any:
    import av

    # None: a codec that FFmpeg does not know
    tracks = [track for track in container.streams.audio if track.codec_context is not None]
    if not tracks:
        raise audio_error(name, "has no audio in it that can be decoded")
    default = av.stream.Disposition.default
    return next((track for track in tracks if track.disposition & default), tracks[0])
