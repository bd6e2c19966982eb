"""ASF (wma), whose header declares the size of the file and of its packets."""

from __future__ import annotations

import struct

from melcap.io.audio.errors import audio_error
from melcap.io.audio.formats.tags import is_padding
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.recording import Recording

MAGIC = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_MOST = 1 << 20
"""The most bytes of the header that are read."""
_DATA_HEAD = 50
"""Bytes of the data object before its packets."""
_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_VIDEO = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def scan(file: AudioInput, at: int) -> list[Recording]:
    """Return the recording of a file in which an ASF header begins at byte `at`.

    Raises:
        AudioFileError: For an object or a packet that is cut, and for several files in one.
    """
    start, has_data = at, False
    seconds, packet = None, 0
    while at + 24 <= file.size:
        name, size = struct.unpack("<16sQ", file.read_at(at, 24))
        if name == MAGIC and has_data:
            raise audio_error(file.name, f"is several asf files in one; split it at byte {at}")
        if name == MAGIC:
            seconds, packet = _properties(file.read_at(at, min(size, _MOST)))
        # A recorder that cannot go back leaves the size of the packets open.
        is_open = name == _DATA and size <= _DATA_HEAD
        has_data |= name == _DATA
        size = file.size - at if is_open else size
        if is_open and packet and (size - _DATA_HEAD) % packet:
            raise audio_error(file.name, "is cut short: its last packet is incomplete")
        if at + size > file.size and not (has_data and is_padding(file, at)):
            missing = at + size - file.size
            raise audio_error(file.name, f"is cut short: {missing} of {size} bytes are missing")
        if size < 24 and not is_padding(file, at):
            raise audio_error(file.name, f"is damaged: there is no ASF object at byte {at}")
        if size < 24 or at + size > file.size:
            break
        at += size
    if not has_data:
        raise audio_error(file.name, "is cut short: it ends before its samples")
    return [Recording(start, file.size, "asf", seconds=seconds)]


def _properties(header: bytes) -> tuple[float | None, int]:
    """Return the seconds, or None, and the bytes in a packet, or 0, that a header declares.

    A live recording declares no length. With video the declared length is not that of the audio.
    """
    at = header.find(_PROPERTIES)
    ticks, preroll, flags, packet, most = struct.unpack_from("<Q8xQ3I", header, at + 64)
    packet = packet if packet == most else 0
    if flags & 1 or _VIDEO in header:
        return None, packet
    return max(0.0, ticks / 1e7 - preroll / 1e3), packet
