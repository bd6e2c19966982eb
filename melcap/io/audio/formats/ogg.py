"""Ogg, whose pages have checksums and numbers that show what is damaged or missing.

Decoders skip such pages without an error, and most stop after the first recording of several.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

from melcap.io.audio.errors import audio_error
from melcap.io.audio.formats.tags import is_padding
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.recording import Recording

_HEAD = struct.Struct("<4sBBqIIIB")
_BEGINS, _ENDS = 2, 4
_SNDFILE = (b"\x01vorbis", b"\x7fFLAC")
"""The codecs that libsndfile reads. With Opus it trusts page positions; see `melcap.io.audio`."""
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class _Page(NamedTuple):
    """A page that ends before byte `end`; `first` is the beginning of its body.

    `complete` tells whether its last packet ends with it.
    """

    end: int
    flags: int
    serial: int
    number: int
    first: bytes
    complete: bool


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

    The polynomial is zlib's, with the bits of every byte in the other order and another start.
    """
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED), "big")


def scan(file: AudioInput, at: int) -> list[Recording]:
    """Return the recordings of a file in which an Ogg begins at byte `at`.

    Raises:
        AudioFileError: For a page that is damaged, cut, missing, or after the end of its stream.
    """
    links: list[_Link] = []
    ends: list[int] = []
    while at < file.size:
        page = _page(file, at)
        if page is None:
            break
        begins = page.flags & _BEGINS
        if begins and (not links or links[-1].has_data):
            links.append(_Link(at))
            ends.append(page.end)
        if not links:
            raise audio_error(file.name, "is damaged: its first Ogg page begins no stream")
        link = links[-1]
        if begins:
            link.streams[page.serial] = _Stream(page.first, page.number)
        else:
            link.has_data = True
            _follow(file, at, link, page)
        stream = link.streams[page.serial]
        stream.ended = bool(page.flags & _ENDS)
        stream.complete = page.complete
        at = ends[-1] = page.end
    for link in links:
        if not all(stream.complete for stream in link.streams.values()):
            raise audio_error(file.name, "is cut short: its last Ogg packet is incomplete")
    ends[-1] = file.size if len(links) == 1 else ends[-1]
    return [_recording(link, end) for link, end in zip(links, ends, strict=True)]


def _page(file: AudioInput, at: int) -> _Page | None:
    """Return the page at a byte, or None if only tags and padding follow."""
    head = file.read_at(at, _HEAD.size)
    if not head.startswith(b"OggS"[: len(head)]):
        if is_padding(file, at):
            return None
        raise audio_error(file.name, f"is damaged: there is no Ogg page at byte {at}")
    table = file.read_at(at + _HEAD.size, head[-1]) if len(head) == _HEAD.size else b""
    size = _HEAD.size + len(table) + sum(table)
    page = file.read_at(at, size)
    if len(head) < _HEAD.size or len(table) < head[-1] or len(page) < size:
        raise audio_error(file.name, "is cut short: its last Ogg page is incomplete")
    _, _, flags, _, serial, number, stored, _ = _HEAD.unpack(head)
    if checksum(b"".join((page[:22], bytes(4), page[26:]))) != stored:
        raise audio_error(file.name, f"is damaged: the Ogg page at byte {at} has a wrong checksum")
    first = page[_HEAD.size + len(table) :][:8]
    complete = not table or table[-1] < 255
    return _Page(at + size, flags, serial, number, first, complete)


def _follow(file: AudioInput, at: int, link: _Link, page: _Page) -> None:
    """Check that a page follows the one before it in its stream."""
    stream = link.streams.get(page.serial)
    if stream is None:
        raise audio_error(file.name, f"is damaged: the Ogg page at byte {at} has no stream")
    if stream.ended:
        raise audio_error(
            file.name, f"is damaged: the Ogg page at byte {at} lies after the end of its stream"
        )
    if page.number != (stream.number + 1) % 2**32:
        raise audio_error(
            file.name,
            f"is damaged: Ogg pages are missing before byte {at}: number {page.number} follows "
            f"{stream.number}",
        )
    stream.number = page.number


def _recording(link: _Link, end: int) -> Recording:
    streams = list(link.streams.values())
    alone = len(streams) == 1 and streams[0].first.startswith(_SNDFILE)
    return Recording(link.start, end, "ogg", sndfile=alone)
