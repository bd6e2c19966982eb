"""Ogg: every page has a checksum and a number, so that what is damaged or missing shows.

Decoders pass over such pages in silence, and most stop behind the first recording of several.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from melcap.io.readers.errors import audio_error
from melcap.io.readers.opening import AudioInput
from melcap.io.readers.source import Part
from melcap.io.readers.tags import is_padding

_HEAD = struct.Struct("<4sBBqIIIB")
_BEGINS, _ENDS = 2, 4
_SNDFILE = (b"\x01vorbis", b"\x7fFLAC")
"""Libsndfile trusts the positions of Opus pages, where FFmpeg counts the samples to skip."""
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class _Stream:
    first: bytes
    number: int = 0
    ended: bool = False
    complete: bool = True


@dataclass
class _Link:
    """A recording: the streams that begin together, by their serial numbers."""

    start: int
    streams: dict[int, _Stream] = field(default_factory=dict)
    has_data: bool = False


def checksum(page: bytes) -> int:
    """Return the checksum of a page whose own field for it is zero.

    It is zlib's polynomial, with the bits of every byte in the other order and another start.
    """
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED), "big")


def scan(file: AudioInput, at: int) -> list[Part]:
    """Return the recordings of a file in which an Ogg begins at byte `at`.

    Raises:
        AudioFileError: for a page that is damaged, cut, missing, or behind the end of its stream.
    """
    links: list[_Link] = []
    ends: list[int] = []
    while at < file.size:
        end, flags, serial, number, body, complete = _page(file, at)
        if not end:
            break
        if flags & _BEGINS and (not links or links[-1].has_data):
            links.append(_Link(at))
            ends.append(end)
        if not links:
            raise audio_error(file.name, "is damaged: its first Ogg page begins no stream")
        link = links[-1]
        if flags & _BEGINS:
            link.streams[serial] = _Stream(body[:8], number)
        else:
            link.has_data = True
            _follow(file, at, link, serial, number)
        stream = link.streams[serial]
        stream.ended = bool(flags & _ENDS)
        stream.complete = complete
        at = ends[-1] = end
    for link in links:
        if not all(stream.complete for stream in link.streams.values()):
            raise audio_error(file.name, "is cut short: its last Ogg packet is incomplete")
    ends[-1] = file.size if len(links) == 1 else ends[-1]
    return [_part(link, end) for link, end in zip(links, ends, strict=True)]


def _page(file: AudioInput, at: int) -> tuple[int, int, int, int, bytes, bool]:
    """Return where the page at a byte ends, its flags, serial and number, its body, and whether
    its last packet is complete; an end of 0 if there are only tags and padding.
    """
    head = file.read_at(at, _HEAD.size)
    if not head.startswith(b"OggS"[: len(head)]):
        if is_padding(file, at):
            return 0, 0, 0, 0, b"", True
        raise audio_error(file.name, f"is damaged: there is no Ogg page at byte {at}")
    table = file.read_at(at + _HEAD.size, head[-1]) if len(head) == _HEAD.size else b""
    size = _HEAD.size + len(table) + sum(table)
    page = file.read_at(at, size)
    if len(head) < _HEAD.size or len(table) < head[-1] or len(page) < size:
        raise audio_error(file.name, "is cut short: its last Ogg page is incomplete")
    _, _, flags, _, serial, number, stored, _ = _HEAD.unpack(head)
    if checksum(b"".join((page[:22], bytes(4), page[26:]))) != stored:
        raise audio_error(file.name, f"is damaged: the Ogg page at byte {at} has a wrong checksum")
    complete = not table or table[-1] < 255
    return at + size, flags, serial, number, page[_HEAD.size + len(table) :], complete


def _follow(file: AudioInput, at: int, link: _Link, serial: int, number: int) -> None:
    """Check that a page follows the one before it in its stream."""
    stream = link.streams.get(serial)
    if stream is None:
        raise audio_error(file.name, f"is damaged: the Ogg page at byte {at} has no stream")
    if stream.ended:
        raise audio_error(
            file.name, f"is damaged: the Ogg page at byte {at} lies behind the end of its stream"
        )
    if number != (stream.number + 1) % 2**32:
        raise audio_error(
            file.name,
            f"is damaged: Ogg pages are missing before byte {at}, number {number} follows "
            f"{stream.number}",
        )
    stream.number = number


def _part(link: _Link, end: int) -> Part:
    streams = list(link.streams.values())
    alone = len(streams) == 1 and streams[0].first.startswith(_SNDFILE)
    return Part(link.start, end, "ogg", sndfile=alone)
