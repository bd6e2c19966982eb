"""Recordings decoded by FFmpeg (PyAV): the formats that libsndfile cannot read, or not whole."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from melcap.io.audio.errors import audio_error, damaged, reason
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.recording import Recording
from melcap.io.audio.source import SLACK_SECONDS, reblocked
from melcap.io.resample import FloatArray

_WARM_UP = 2112
"""Samples of encoder delay that some m4a writers count as sound and FFmpeg drops."""


class FfmpegSource:
    """A recording decoded by FFmpeg; see `melcap.io.audio.source.Source`.

    Of several audio tracks, the one that is marked as the default is read, else the first.

    Raises:
        AudioFileError: Where FFmpeg finds no audio that it can decode, and where PyAV is missing.
    """

    def __init__(self, file: AudioInput, recording: Recording) -> None:
        self._name = file.name
        self._container = _open(file, recording)
        try:
            self._stream = _track(file.name, self._container)
        except Exception:
            self.close()
            raise
        self._decoder = self._stream.codec_context
        self.sample_rate: int = self._decoder.sample_rate
        self.channels: int = self._decoder.channels
        self.limit = recording.samples if recording.exact else None
        self.spare = max(1, recording.slack)
        # In other formats FFmpeg also calls a last packet corrupt that is only shorter.
        self._framed = recording.demuxer in ("mov", "matroska", "asf")
        tick = self._stream.time_base * self.sample_rate
        # Only ticks of whole samples show how much of the last packet is padding.
        self._tick = int(tick) if recording.demuxer == "mov" and tick.denominator == 1 else 0
        self.samples: int | None = self._declared(recording)
        slack = recording.slack
        if self._tick and self._decoder.name == "aac":
            slack += _WARM_UP
        if not recording.exact:
            slack += int(SLACK_SECONDS * self.sample_rate)
        self.at_least: float = (self.samples or 0) - slack
        if self._decoder.name in ("alac", "flac"):
            # FLAC frames have checksums. FFmpeg 8 removes the padding in caf twice.
            skipping = {"flags2": "+skip_manual"} if recording.demuxer == "caf" else {}
            self._decoder.options = {"err_detect": "crccheck+explode", **skipping}
        elif self._decoder.name == "opus":
            self._use_libopus()

    def skip(self, samples: int) -> int:
        """Skip nothing and return 0: only decoding from the start is sure to be exact."""
        return 0

    def blocks(self, size: int) -> Iterator[FloatArray]:
        """Yield float32 [channels, size], the last one shorter.

        Raises:
            AudioFileError: Where FFmpeg fails, or the sample rate or channels change.
        """
        return reblocked(self._pieces(), self.channels, size)

    def close(self) -> None:
        """Close FFmpeg's container; the file itself stays open."""
        self._container.close()

    def _declared(self, recording: Recording) -> int | None:
        """Return the number of samples that the file declares, or None."""
        duration = self._stream.duration
        if recording.samples is not None:
            return recording.samples
        if recording.seconds is not None:
            # A recording that was cut out of another may keep the original times.
            first = float((self._stream.start_time or 0) * self._stream.time_base)
            return round(max(0.0, recording.seconds - max(0.0, first)) * self.sample_rate)
        if self._tick and duration:
            return int(duration * self._tick)
        if (
            recording.demuxer == "ogg"
            and duration
            and self._stream.time_base * self.sample_rate == 1
        ):
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

        # Interleaved: PyAV 18 reads past the end of planar frames of eight channels and crashes.
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


def _open(file: AudioInput, recording: Recording) -> Any:
    try:
        import av
    except ImportError as exc:
        raise audio_error(file.name, "needs PyAV, which is not installed: pip install av") from exc
    try:
        return av.open(
            file.view(recording.start, recording.end, recording.head),
            format=recording.demuxer,
            metadata_errors="replace",
            # a file must not make FFmpeg open another one
            options={"protocol_whitelist": "none"},
        )
    except (av.FFmpegError, OSError, ValueError) as exc:
        raise audio_error(file.name, f"is not audio that melcap can read ({reason(exc)})") from exc


def _track(name: str, container: Any) -> Any:
    import av

    # Without a codec context FFmpeg does not know the codec.
    tracks = [track for track in container.streams.audio if track.codec_context is not None]
    if not tracks:
        raise audio_error(name, "contains no audio that can be decoded")
    default = av.stream.Disposition.default
    return next((track for track in tracks if track.disposition & default), tracks[0])
