"""Chunks, as RIFF, RF64, W64, AIFF and CAF files consist of them: a name, a length, a body."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from melcap.io.readers.errors import audio_error
from melcap.io.readers.opening import AudioInput
from melcap.io.readers.tags import is_padding

_MOST = 10_000
# What may be cut at the end of a file without a loss of sound.
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


@dataclass(frozen=True)
class Chunk:
    """A chunk that begins at byte `start`; its body has `length` bytes from `body` on."""

    name: bytes
    start: int
    body: int
    length: int

    @property
    def end(self) -> int:
        return self.body + self.length


def walk(
    file: AudioInput, at: int, head: str, *, inclusive: bool = False, align: int = 2
) -> Iterator[Chunk]:
    """Yield the chunks from byte `at` on; the last one may promise more than the file holds.

    Args:
        file: the file.
        at: where the first chunk begins.
        head: the struct format of name and length.
        inclusive: the length counts the head too.
        align: each chunk begins at a multiple of so many bytes from the one before.
    """
    size = struct.calcsize(head)
    for _ in range(_MOST):
        if at + size > file.size:
            return
        name, length = struct.unpack(head, file.read_at(at, size))
        chunk = Chunk(name[:4], at, at + size, length - (size if inclusive else 0))
        yield chunk
        at = behind(file, chunk.end, -chunk.length % align)
        if at <= chunk.start:
            raise audio_error(file.name, f"is damaged: the chunk at byte {chunk.start} has no end")
    raise audio_error(file.name, f"is damaged: it has more than {_MOST} chunks")


def behind(file: AudioInput, end: int, padding: int) -> int:
    """Return where a chunk begins behind one that ends at a byte, with or without padding.

    Some writers leave the padding out.
    """
    at = end + padding
    left_out = any(file.read_at(end, padding)) and _printable(file, end)
    # one byte may be anything
    return end if left_out and (padding > 1 or not _is_chunk(file, at)) else at


def samples_end(file: AudioInput, chunk: Chunk, length: int) -> int:
    """Return where the samples end in a chunk that should have `length` bytes of them.

    Lengths that recorders leave when they cannot go back, or crash, mean the end of the file.

    Raises:
        AudioFileError: where the file ends before.
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
    """Return whether a whole chunk of metadata follows the samples, and False for padding.

    Raises:
        AudioFileError: for what may be sound that the length of the samples leaves out.
    """
    is_whole = _printable(file, chunk.start) and 0 <= chunk.length <= file.size - chunk.body
    if chunk.name == samples.name:
        raise audio_error(file.name, f"has a second chunk of samples at byte {chunk.start}")
    if is_whole or chunk.name in _METADATA:
        return is_whole
    require_padding(file, chunk.start, chunk.start - samples.body)
    return False


def require_padding(file: AudioInput, at: int, declared: int) -> None:
    """Refuse a file that holds more than padding and tags from byte `at` on."""
    if not is_padding(file, at):
        raise audio_error(
            file.name,
            f"declares {declared} bytes of samples, and {file.size - at} bytes that may be samples "
            "too follow; correct its header",
        )


def _is_open(length: int) -> bool:
    """Return whether recorders that cannot go back write this length: 2 or 4 GiB, or just less."""
    return 0x7FFF0000 <= length <= 0x80001000 or length >= 0xFFFF0000


def _is_chunk(file: AudioInput, at: int) -> bool:
    """Return whether a chunk begins at a byte, as far as its head shows."""
    head = file.read_at(at, 8)
    size = min(int.from_bytes(head[4:], "little"), int.from_bytes(head[4:], "big"))
    return len(head) == 8 and _printable(file, at) and size <= file.size - at - 8


def _printable(file: AudioInput, at: int) -> bool:
    name = file.read_at(at, 4)
    return len(name) == 4 and all(0x20 <= letter < 0x7F for letter in name)
