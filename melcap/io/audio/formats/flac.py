"""FLAC, whose frames are numbered, so that the last one shows whether some are missing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from melcap.io.audio.errors import audio_error, require_channels
from melcap.io.audio.formats.tags import before_tags, before_zeros
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.recording import Recording

_STREAMINFO = b"fLaC\0\0\0\x22"
_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_TAIL = 1 << 17
_AT_ONCE = 1 << 20
_PADDING = 16
"""More zeros than a frame ends with."""
_SIZES = {
    1: 192,
    2: 576,
    3: 1152,
    4: 2304,
    5: 4608,
    8: 256,
    9: 512,
    10: 1024,
    11: 2048,
    12: 4096,
    13: 8192,
    14: 16384,
    15: 32768,
}
"""Samples in a frame, by their code in its header."""


def scan(file: AudioInput, at: int) -> list[Recording]:
    """Return the recordings of a file in which a FLAC stream begins at byte `at`."""
    recordings: list[Recording] = []
    start = at
    while start < file.size:
        audio = _after_metadata(file, start)
        following = file.find(_STREAMINFO, audio, file.size)
        whole = following if following >= 0 else file.size
        end = before_tags(file, audio, whole)
        sound = before_zeros(file, audio, end)
        # libFLAC reports zeros after the last frame as damage.
        recordings.append(
            _recording(file, start, audio, min(end, sound + 2), sndfile=end - sound < _PADDING)
        )
        start = whole if following >= 0 else file.size
    return recordings


def _recording(file: AudioInput, start: int, audio: int, end: int, sndfile: bool) -> Recording:
    info = file.read_at(start + 8, 34)
    packed = int.from_bytes(info[10:18], "big")
    samples, channels = packed & (1 << 36) - 1, (packed >> 41 & 7) + 1
    require_channels(file.name, channels)
    fixed = int.from_bytes(info[:2], "big")
    if samples:
        found = {ends for _, ends in _frames(file, max(audio, end - _TAIL), end, fixed)}
        if found and samples not in found:
            raise audio_error(
                file.name,
                f"is damaged or cut short: it declares {samples} samples, and its last frame ends "
                f"with sample {max(found)}",
            )
    else:  # the encoder wrote to a pipe
        last = 0
        for first, ends in _frames(file, audio, end, fixed):
            if first == samples:
                samples = ends
            last = first
        if last > samples:
            raise audio_error(
                file.name, f"is damaged: the samples from {samples} to {last} are missing"
            )
    return Recording(start, end, "flac", samples, exact=True, sndfile=sndfile)


def _after_metadata(file: AudioInput, at: int) -> int:
    """Return where the first frame begins."""
    at += 4
    while True:
        head = file.read_at(at, 4)
        at += 4 + int.from_bytes(head[1:], "big")
        if len(head) < 4 or at > file.size:
            raise audio_error(file.name, "is cut short: it ends before its first frame")
        if head[0] & 0x80:
            return at


def _frames(file: AudioInput, at: int, end: int, fixed: int) -> Iterator[tuple[int, int]]:
    """Yield the first sample of each frame between two bytes, and the one after its last."""
    while at < end:
        piece = file.read_at(at, min(_AT_ONCE, end - at))
        for match in _SYNC.finditer(piece):
            frame = _frame(piece[match.start() : match.start() + 16], fixed)
            if frame is not None:
                yield frame
        at += len(piece) if at + len(piece) >= end else len(piece) - 15


def _frame(head: bytes, fixed: int) -> tuple[int, int] | None:
    """Return the first sample of the frame that these bytes begin, and the one after its last.

    Return None where no frame begins. The checksum of the header shows this, except in one case in
    256.
    """
    if len(head) < 6:
        return None
    bits = (head[4] ^ 0xFF).bit_length()  # the number is coded like a character in UTF-8
    after = 5 + (0 if bits == 8 else max(0, 7 - bits))
    number = head[4] & (1 << bits) - 1
    for byte in head[5:after]:
        number = number << 6 | byte & 0x3F
    code = head[2] >> 4
    size = _SIZES.get(code, 0)
    if code in (6, 7):
        size = int.from_bytes(head[after : after + code - 5], "big") + 1
        after += code - 5
    after += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if not size or after >= len(head) or _crc8(head[:after]) != head[after]:
        return None
    first = number if head[1] & 1 else number * fixed
    return first, first + size


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc


def _crc8_of(byte: int) -> int:
    for _ in range(8):
        byte = byte << 1 ^ (0x107 if byte & 0x80 else 0)
    return byte


_CRC8 = bytes(map(_crc8_of, range(256)))
