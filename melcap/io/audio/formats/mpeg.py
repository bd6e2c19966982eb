"""MPEG audio (mp3, mp2, mp1) and AAC in ADTS, which are frames with headers of their own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from melcap.io.audio.errors import audio_error
from melcap.io.audio.formats.frames import Frame, Kind, Run, runs
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.recording import Recording

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_BIT_RATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates in kbit/s by layer, for MPEG 1 (True) and for MPEG 2 and 2.5."""
_ADTS_RATES = (
    96000,
    88200,
    64000,
    48000,
    44100,
    32000,
    24000,
    22050,
    16000,
    12000,
    11025,
    8000,
    7350,
)


_kind = lru_cache(Kind)
"""Equal kinds are one object, so that comparing them costs nothing."""


@dataclass(frozen=True)
class _Declared:
    """The declaration in the first frame of an mp3, which holds no sound.

    Attributes:
        frames: The number of frames after it, or None.
        silence: The number of samples that the encoder added at both ends.
    """

    frames: int | None
    silence: int = 0


_FIRST = 256
"""Bytes of the first frame of an mp3 that may hold a declaration."""


@lru_cache(4096)
def _mpeg_frame(head: bytes) -> Frame | None:
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bit_rate, rate = head[2] >> 4, head[2] >> 2 & 3
    if head[0] != 0xFF or head[1] < 0xE0 or version == 1 or layer == 4:
        return None
    if bit_rate in (0, 15) or rate == 3:
        return None
    hertz, is_mpeg1 = _RATES[version][rate], version == 3
    bits = _BIT_RATES[is_mpeg1, layer][bit_rate - 1] * 1000
    samples = {1: 384, 2: 1152}.get(layer, 1152 if is_mpeg1 else 576)
    slot = 4 if layer == 1 else 1
    length = (samples // 8 // slot * bits // hertz + (head[2] >> 1 & 1)) * slot
    channels = 1 if head[3] >> 6 == 3 else 2
    return length, _kind("mp3", hertz, channels, samples, (version, layer))


def mpeg_frame(head: bytes) -> Frame | None:
    """Return the length and the kind of the MPEG frame that begins with these bytes, or None."""
    return _mpeg_frame(head[:4]) if len(head) >= 4 else None


def adts_frame(head: bytes) -> Frame | None:
    """Return the length and the kind of the ADTS frame that begins with these bytes, or None."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return None
    rate = head[2] >> 2 & 15
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if rate >= len(_ADTS_RATES) or length < 7:
        return None
    channels = (head[2] & 1) << 2 | head[3] >> 6
    samples = 1024 * ((head[6] & 3) + 1)
    return length, _kind("aac", _ADTS_RATES[rate], channels, samples, (head[1], head[2] >> 6))


def _declared(head: bytes) -> _Declared | None:
    """Return what the first frame of an mp3 declares of the others; None for a frame of sound."""
    side = {(True, 1): 17, (True, 2): 32, (False, 1): 9, (False, 2): 17}
    at = 4 + side[head[1] >> 3 & 3 == 3, 1 if head[3] >> 6 == 3 else 2]
    if head[at : at + 4] in (b"Xing", b"Info"):
        flags = head[at + 7]
        # number of frames, of bytes, table for seeking, quality; then the encoder's own fields
        own = at + 8 + 4 * (flags & 1) + 2 * (flags & 2) + 25 * (flags & 4) + (flags >> 1 & 4)
        ends = int.from_bytes(head[own + 21 : own + 24], "big") if head[own : own + 1] else 0
        silence = (ends >> 12) + (ends & 0xFFF)
        frames = int.from_bytes(head[at + 8 : at + 12], "big") if flags & 1 else None
        return _Declared(frames, silence if head[own : own + 4].isalnum() else 0)
    if head[36:40] == b"VBRI":
        return _Declared(int.from_bytes(head[50:54], "big"))
    return None


def scan(file: AudioInput, at: int, end: int | None = None) -> list[Recording]:
    """Return the recordings of MPEG or ADTS frames from byte `at` on.

    Raises:
        AudioFileError: Where there are none, and where frames are missing or damaged.
    """
    end = file.size if end is None else end
    for parse, marks in ((mpeg_frame, _is_declaration), (adts_frame, None)):
        if found := runs(file, at, end, parse, marks):
            return [_recording(file, run) for run in found]
    raise audio_error(file.name, "is not audio that melcap can read")


def _is_declaration(head: bytes) -> bool:
    return _declared(head) is not None


def _recording(file: AudioInput, run: Run) -> Recording:
    kind, frames = run.kind, run.frames
    declared = _declared(file.read_at(run.start, _FIRST)) if kind.demuxer == "mp3" else None
    if declared is None:
        _require_whole(file, run)
        seconds = frames * kind.samples / kind.rate
        return Recording(run.start, run.end, kind.demuxer, seconds=seconds)
    sound = frames - 1
    first_length, _ = mpeg_frame(file.read_at(run.start, 4)) or (0, None)
    after = run.start + first_length
    if declared.frames is None or sound > declared.frames + 1:
        # The number is wrong, and decoders trust it, so they are not shown that frame.
        _require_whole(file, run)
        seconds = sound * kind.samples / kind.rate
        return Recording(after, run.end, kind.demuxer, seconds=seconds)
    # Some writers count the first frame too, and a last frame that is cut may be empty.
    if sound < declared.frames - 1:
        raise audio_error(
            file.name, f"is cut short: it ends after {sound} of {declared.frames} frames"
        )
    samples = max(0, declared.frames * kind.samples - declared.silence)
    slack = 2 * kind.samples
    return Recording(run.start, run.end, kind.demuxer, samples, slack=slack, sndfile=True)


def _require_whole(file: AudioInput, run: Run) -> None:
    if run.missing:
        raise audio_error(file.name, "is cut short: its last frame is incomplete")
