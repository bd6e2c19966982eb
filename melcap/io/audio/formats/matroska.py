"""Matroska and WebM, whose elements have sizes that show what is cut off.

Recorders leave some sizes unknown.
"""

from __future__ import annotations

import struct

from melcap.io.audio.errors import audio_error
from melcap.io.audio.formats.tags import is_padding
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.recording import Recording

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_INFO, _TRACKS = 0x1549A966, 0x1654AE6B
_SCALE, _DURATION, _ENTRY, _TYPE = 0x2AD7B1, 0x4489, 0xAE, 0x83
_VOID, _CRC = 0xEC, 0xBF
_AUDIO = 2
_MOST = 1 << 20
"""The most bytes of an element that are read."""
_TOP = (_EBML, _SEGMENT, _VOID, _CRC)
_IN_SEGMENT = (0x114D9B74, _INFO, _TRACKS, _CLUSTER, 0x1C53BB6B, 0x1254C367, 0x1043A770, 0x1941A469)
_IN_CLUSTER = (0xE7, 0xA3, 0xA0, 0xAB, 0xA7, 0x5854, 0xAF)


def scan(file: AudioInput, at: int) -> list[Recording]:
    """Return the recordings of a file in which an EBML header begins at byte `at`.

    Raises:
        AudioFileError: For an element that is cut, and for bytes that are no element.
    """
    recordings: list[Recording] = []
    start, seconds, has_segment, is_audio = at, None, False, True
    while at < file.size:
        name, body, size = _element(file, at)
        if name not in (*_TOP, *_IN_SEGMENT, *_IN_CLUSTER):
            if is_padding(file, at):
                break
            raise audio_error(file.name, f"is damaged: there is no Matroska element at byte {at}")
        if name == _EBML and at > start:
            recordings.append(
                Recording(start, at, "matroska", seconds=seconds if is_audio else None)
            )
            start, seconds, has_segment, is_audio = at, None, False, True
        if name in (_SEGMENT, _CLUSTER):
            _require_room(file, body, size)
            has_segment = True
            at = body
            continue
        if size is None:
            raise audio_error(file.name, f"is damaged: the element at byte {at} has no size")
        _require_room(file, body, size)
        if name == _INFO:
            seconds = _duration(file.read_at(body, min(size, _MOST)))
        elif name == _TRACKS:  # of several tracks, the longest gives the declared length
            is_audio = _is_one_of_audio(file.read_at(body, min(size, _MOST)))
        at = body + size
    if not has_segment:
        raise audio_error(file.name, "is cut short: it ends before its first track")
    return [
        *recordings,
        Recording(start, file.size, "matroska", seconds=seconds if is_audio else None),
    ]


def _require_room(file: AudioInput, body: int, size: int | None) -> None:
    if size is not None and body + size > file.size:
        missing = body + size - file.size
        raise audio_error(file.name, f"is cut short: {missing} of {size} bytes are missing")


def _element(file: AudioInput, at: int) -> tuple[int, int, int | None]:
    """Return the name of an element, the byte of its body, and its size, or None if unknown."""
    return _parsed(file.read_at(at, 12), at)


def _parsed(head: bytes, at: int) -> tuple[int, int, int | None]:
    width = 9 - head[0].bit_length() if head and head[0] else 0
    if not 1 <= width <= 4 or len(head) <= width or not head[width]:
        return 0, at, None
    long = 9 - head[width].bit_length()
    data = int.from_bytes(head[width : width + long], "big") & (1 << 7 * long) - 1
    size = None if data == (1 << 7 * long) - 1 else data
    return int.from_bytes(head[:width], "big"), at + width + long, size


def _children(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(data):
        name, body, size = _parsed(data[at : at + 12], at)
        if size is None:
            break
        found.append((name, data[body : body + size]))
        at = body + size
    return found


def _duration(info: bytes) -> float | None:
    """Return the seconds that the information of a segment declares, or None."""
    fields = dict(_children(info))
    raw = fields.get(_DURATION, b"")
    if len(raw) not in (4, 8):
        return None
    (ticks,) = struct.unpack(">f" if len(raw) == 4 else ">d", raw)
    scale = int.from_bytes(fields.get(_SCALE, (1_000_000).to_bytes(4, "big")), "big")
    return ticks * scale / 1e9 if 0 < ticks * scale < 1e18 else None


def _is_one_of_audio(tracks: bytes) -> bool:
    """Return whether there is exactly one track, of audio."""
    entries = [dict(_children(body)) for name, body in _children(tracks) if name == _ENTRY]
    return [int.from_bytes(entry.get(_TYPE, b""), "big") for entry in entries] == [_AUDIO]
