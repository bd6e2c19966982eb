"""The input of a reader: a regular file that can be read at any offset, made from any input."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from pathlib import Path
from typing import IO, Any

from melcap.errors import AudioFileError, InputError
from melcap.io.audio.errors import audio_error, reason
from melcap.io.files import MAX_COPIED, irregular_mode

_AT_ONCE = 1 << 20
_HELD = 1 << 16
"""Bytes that are read at once and held, for the small reads of the scanners."""

AudioFile = str | os.PathLike[str] | IO[bytes]


class AudioInput:
    """A regular file that is open for reading.

    Attributes:
        file: The open file.
        name: The name of the file in errors.
        size: The size in bytes when it was opened. `check_size` checks that it has not changed.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.file = file
        self.name = name
        self.size = os.fstat(file.fileno()).st_size
        self._base = 0
        self._held = b""

    def read_at(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` on, or fewer at the end of the file."""
        at = offset - self._base
        if at < 0 or at + count > len(self._held):
            if offset >= self.size:
                return b""
            self.file.seek(offset)
            self._held = self.file.read(min(max(count, _HELD), self.size - offset))
            self._base, at = offset, 0
        return self._held[at : at + count]

    def find(self, needle: bytes, start: int, end: int) -> int:
        """Return the first offset of `needle` between `start` and `end`, or -1."""
        while start < end:
            piece = self.read_at(start, min(_HELD, end - start))
            at = piece.find(needle)
            if at >= 0:
                return start + at
            start += max(1, len(piece) - len(needle) + 1)
        return -1

    def view(self, start: int, end: int, head: bytes = b"") -> View:
        """Return a part of the file as a file object that begins with the bytes `head`."""
        return View(self.file, start, end, head)

    def check_size(self) -> None:
        """Refuse a file that has shrunk or grown since it was opened.

        Raises:
            AudioFileError: It names both sizes.
        """
        now = os.fstat(self.file.fileno()).st_size
        if now != self.size:
            what = "shrank" if now < self.size else "grew"
            raise audio_error(
                self.name,
                f"{what} while it was read: it had {self.size} bytes when it was opened, "
                f"and has {now}; read it when it is complete",
            )

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class View(io.RawIOBase):
    """A file object of a head and the bytes from `start` to `end` of an open file."""

    def __init__(self, file: IO[bytes], start: int, end: int, head: bytes) -> None:
        self._file = file
        self._head = head
        self._start = start - len(head)
        self._length = end - self._start
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset and return it; the offset is at least 0."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as one read goes, and return the number of bytes."""
        count = min(len(buffer), self._length - self._at)
        if count <= 0:
            return 0
        data = self._head[self._at : self._at + count]
        if not data:
            self._file.seek(self._start + self._at)
            data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def open_input(source: AudioFile) -> AudioInput:
    """Open a path, or the content of a binary file object from its position on.

    A file object on a whole regular file is reopened by its name. Any other (memory, a pipe, a
    member of an archive) is copied to an unnamed temporary file first, `MAX_COPIED` bytes at most,
    so that a read error is noticed before anything is decoded.

    Raises:
        AudioFileError: For a file that is missing, is not a regular file, or cannot be read.
        InputError: For an argument that is neither a path nor a binary file object.
    """
    if isinstance(source, (str, os.PathLike)):
        return _open_path(Path(source))
    if not hasattr(source, "read"):
        raise InputError(
            "Audio is read from a path or a binary file object (io.BytesIO for bytes), "
            f"not {type(source).__name__}."
        )
    named = getattr(source, "name", None)
    name = named if isinstance(named, str) else "<stream>"
    return _reopened(source, name) or _spooled(source, name)


def _open_path(path: Path) -> AudioInput:
    # Opening a pipe for reading would wait for its other end, so the kind of file is checked first.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        _require_regular(str(path), os.stat(path).st_mode)
        file = open(os.open(path, flags), "rb", buffering=0)  # noqa: SIM115 - AudioInput closes it
    except (OSError, ValueError) as exc:
        raise audio_error(str(path), f"cannot be read ({reason(exc)})") from exc
    try:
        _require_regular(str(path), os.fstat(file.fileno()).st_mode)
    except AudioFileError:
        file.close()
        raise
    return AudioInput(file, str(path))


def _require_regular(name: str, mode: int) -> None:
    kind = irregular_mode(mode)
    if kind:
        raise audio_error(name, f"is not a regular file, but {kind}")


def _reopened(source: IO[bytes], name: str) -> AudioInput | None:
    """Return the file that `source` has open, opened again, if `source` is at its start."""
    # A member of a tar is a BufferedReader too, but its raw file is not a FileIO.
    if not isinstance(getattr(source, "raw", source), io.FileIO):
        return None
    try:
        opened = os.fstat(source.fileno())
        same = stat.S_ISREG(opened.st_mode) and os.path.samestat(opened, os.stat(name))
        if not same or source.tell():
            return None
        source.seek(0, os.SEEK_END)
    except (OSError, ValueError):
        return None
    return _open_path(Path(name))


def _spooled(source: IO[bytes], name: str) -> AudioInput:
    copy = tempfile.TemporaryFile(prefix="melcap-", buffering=0)  # noqa: SIM115 - AudioInput closes it
    total = 0
    try:
        while piece := source.read(_AT_ONCE):
            if not isinstance(piece, bytes):
                raise InputError(f"{name} must be opened in binary mode, as with open(name, 'rb').")
            total += len(piece)
            if total > MAX_COPIED:
                raise audio_error(name, f"holds more than {MAX_COPIED} bytes; pass it as a file")
            while piece:
                piece = piece[copy.write(piece) :]
        return AudioInput(copy, name)
    except (InputError, AudioFileError):
        copy.close()
        raise
    except Exception as exc:  # a file object of the caller may raise anything
        copy.close()
        raise audio_error(name, f"cannot be read ({reason(exc)})") from exc
