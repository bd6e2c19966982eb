"""Files and URLs opened for reading, compressed or not, and read in bounded pieces."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from melcap.bulk import INSTALL
from melcap.bulk.files.names import is_url
from melcap.extras import import_extra
from melcap.io.files import irregular

_AT_ONCE = 1 << 20
_TAR_PADDING = 1 << 20
"""Bytes after the end of a tar that are checked to be zero. tar itself writes up to 10 KiB."""
_COMPRESSED: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}

READ_ERRORS = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error)
"""Errors of the standard library and pyarrow for a file that is damaged or missing."""


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open a regular file or a URL for reading.

    Raises:
        OSError: if it cannot be opened, or is a folder, pipe, socket or device.
    """
    if is_url(path):
        with import_extra("fsspec", INSTALL).open(path, "rb") as file:
            yield file
        return
    if what := irregular(path):  # opening a pipe would wait for its other end
        raise OSError(f"it is {what}, not a regular file")
    with open(path, "rb") as file:
        yield file


@contextmanager
def unpacked(path: str) -> Iterator[Stream]:
    """Open the content of a file, which is decompressed if its suffix says so."""
    with opened(path) as file:
        suffix = os.path.splitext(path.lower())[1]
        if suffix in _COMPRESSED:
            with _COMPRESSED[suffix](file) as inside:
                yield Stream(inside)
        elif suffix == ".zst":
            arrow = import_extra("pyarrow", INSTALL)
            with arrow.CompressedInputStream(arrow.PythonFile(file, "r"), "zstd") as inside:
                yield Stream(inside)
        else:
            yield Stream(file, seekable=True)


class Stream:
    """A file that is read forward, at most `_AT_ONCE` bytes at a time.

    It can go back within the data of the last `read`. The bound keeps `tarfile` from allocating the
    gigabytes that a damaged or hostile header declares.
    """

    def __init__(self, file: Any, *, seekable: bool = False) -> None:
        self._file = file
        self._seekable = seekable
        self._at = 0
        self._last = b""
        self._again = b""

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes.

        Raises:
            OSError: if `size` is negative or above the bound.
        """
        if not 0 <= size <= _AT_ONCE:
            raise OSError(f"a header of {size} bytes is too long")
        data, self._again = self._again[:size], self._again[size:]
        if len(data) < size:
            data += bytes(self._file.read(size - len(data)))
        self._at += len(data)
        self._last = data
        return data

    def readline(self, size: int) -> bytes:
        """Read a line, or its first `size` bytes."""
        return bytes(self._file.readline(size))

    def tell(self) -> int:
        """Return the position in the content, in bytes."""
        return self._at

    def seek(self, to: int) -> int:
        """Go forward to a position; a compressed file is decompressed up to there.

        Raises:
            OSError: for a position in a compressed file that lies before its last `read`.
        """
        if self._seekable:
            self._at = self._file.seek(to)
            return self._at
        if to < self._at - len(self._last):
            raise OSError("a compressed file can only be read forward")
        if to < self._at:
            self._again = self._last[to - self._at :] + self._again
            self._at = to
        while self._at < to and self.read(min(to - self._at, _AT_ONCE)):
            pass
        return self._at

    def copy(self, size: int, target: IO[bytes]) -> None:
        """Append the next `size` bytes to another file.

        Raises:
            OSError: if fewer bytes are left.
        """
        missing = size
        while missing:
            piece = self.read(min(missing, _AT_ONCE))
            if not piece:
                raise OSError(f"the tar ends {missing} bytes too early")
            target.write(piece)
            missing -= len(piece)


def check_tar_end(file: Stream, offset: int) -> None:
    """Refuse a tar that goes on where `tarfile` stopped, which takes a damaged header for the end.

    Args:
        file: the content of the tar.
        offset: the position at which `tarfile` stopped.

    Raises:
        tarfile.ReadError: if anything but zeros follows.
    """
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if 0 < len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("unexpected end of data")
    if (block + file.read(_TAR_PADDING)).strip(b"\0"):
        raise tarfile.ReadError("a damaged header, or another tar after its end")
