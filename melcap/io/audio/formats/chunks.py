"""Chunks of a name, a length and a body, of which RIFF, RF64, W64, AIFF and CAF files consist."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from melcap.io.audio.errors import audio_error
from melcap.io.audio.formats.tags import is_padding
from melcap.io.audio.input_file import AudioInput

_MOST = 10_000
"""The most chunks of a file, so that a hostile file cannot take hours."""
_METADATA = {
    b"LIST",
    b"id3 ",
    b"ID3 ",
    b"bext",
    b"iXML",
    b"cue ",
    b"smpl",
    b"_PMX",
    b"fact",
    b"PEAK",
    b"JUNK",
    b"junk",
    b"PAD ",
    b"afsp",
    b"cart",
    b"inst",
    b"ANNO",
    b"NAME",
}
"""Chunks that may be cut at the end of a file, because no sound is lost."""


@dataclass(frozen=True)
class Chunk:
    """A chunk of a file.

    Attributes:
        name: The first four bytes of its name.
        start: The byte at which it begins.
        body: The byte at which its body begins.
        length: The bytes of its body, as declared.
    """

    name: bytes
    start: int
    body: int
    length: int

    @property
    def end(self) -> int:
        """The byte after its body."""
        return self.body + self.length


def walk(
    file: AudioInput, at: int, head: str, *, inclusive: bool = False, align: int = 2
) -> Iterator[Chunk]:
    """Yield the chunks from byte `at` on; the last one may be longer than the file.

    Args:
        file: The file.
        at: The byte at which the first chunk begins.
        head: The struct format of name and length.
        inclusive: Whether the length includes the head.
        align: Each chunk begins at a multiple of so many bytes from the one before.

    Raises:
        AudioFileError: For a chunk without an end, and for more than 10000 chunks.
    """
    size = struct.calcsize(head)
    for _ in range(_MOST):
        if at + size > file.size:
            return
        name, length = struct.unpack(head, file.read_at(at, size))
        chunk = Chunk(name[:4], at, at + size, length - (size if inclusive else 0))
        yield chunk
        at = next_start(file, chunk.end, -chunk.length % align)
        if at <= chunk.start:
            raise audio_error(file.name, f"is damaged: the chunk at byte {chunk.start} has no end")
    raise audio_error(file.name, f"is damaged: it has more than {_MOST} chunks")


def next_start(file: AudioInput, end: int, padding: int) -> int:
    """Return where the chunk after one that ends at byte `end` begins.

    Some writers leave the padding out.
    """
    at = end + padding
    left_out = any(file.read_at(end, padding)) and _printable(file, end)
    # A single byte of padding may have any value, so the chunk after it must be missing too.
    return end if left_out and (padding > 1 or not _is_chunk(file, at)) else at


def samples_end(file: AudioInput, chunk: Chunk, length: int) -> int:
    """Return the byte at which the samples of a chunk end, which has `length` bytes of them.

    The lengths that a recorder leaves when it cannot seek back, or crashes, stand for the end of
    the file.

    Raises:
        AudioFileError: Where the file ends before that byte.
    """
    room = file.size - chunk.body
    if length == 0 and room and not _is_chunk(file, chunk.body):
        return file.size
    if length < 0 or (length > room and length == chunk.length and _is_open(length)):
        return file.size
    if length > room:
        raise audio_error(file.name, f"is cut short: {length - room} of {length} bytes are missing")
    return chunk.body + length


def require_metadata(file: AudioInput, chunk: Chunk, samples: Chunk) -> bool:
    """Return True if a whole chunk of metadata follows the samples, and False for padding.

    Raises:
        AudioFileError: For bytes that may be sound that the declared length leaves out.
    """
    is_whole = _printable(file, chunk.start) and 0 <= chunk.length <= file.size - chunk.body
    if chunk.name == samples.name:
        raise audio_error(file.name, f"has a second chunk of samples at byte {chunk.start}")
    if is_whole or chunk.name in _METADATA:
        return is_whole
    require_padding(file, chunk.start, chunk.start - samples.body)
    return False


def require_padding(file: AudioInput, at: int, declared: int) -> None:
    """Refuse a file that holds more than padding and tags from byte `at` on.

    Raises:
        AudioFileError: It names both numbers of bytes.
    """
    if not is_padding(file, at):
        raise audio_error(
            file.name,
            f"declares {declared} bytes of samples, but {file.size - at} more bytes follow, which "
            "may be samples too; correct its header",
        )


def _is_open(length: int) -> bool:
    """Return whether recorders that cannot seek back write this length: about 2 or 4 GiB."""
    return 0x7FFF0000 <= length <= 0x80001000 or length >= 0xFFFF0000


def _is_chunk(file: AudioInput, at: int) -> bool:
    """Return whether a chunk seems to begin at a byte, judging by its head."""
    head = file.read_at(at, 8)
    size = min(int.from_bytes(head[4:], "little"), int.from_bytes(head[4:], "big"))
    return len(head) == 8 and _printable(file, at) and size <= file.size - at - 8


def _printable(file: AudioInput, at: int) -> bool:
    name = file.read_at(at, 4)
    return len(name) == 4 and all(0x20 <= letter < 0x7F for letter in name)
