"""Files and URLs opened for reading, compressed or not, and never more read than was asked for."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from melcap.bulk.entry import INSTALL, is_url
from melcap.extras import import_extra

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_AT_ONCE = 1 << 20
_COMPRESSED: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}

READ_ERRORS = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error)
"""Errors of the standard library and pyarrow for a file that is damaged or not there."""


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open a file or URL; OSError where that cannot be done, or where it is no regular file."""
    if is_url(path):
        with import_extra("fsspec", INSTALL).open(path, "rb") as file:
            yield file
        return
    what = irregular(path)
    if what:  # to open a pipe is to wait for its other end
        raise OSError(f"it is {what}, not a regular file")
    with open(path, "rb") as file:
        yield file


def irregular(path: str) -> str:
    """Say what a path is that is neither a regular file nor missing; "" for all others."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return ""  # to open it says why
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return "" if stat.S_ISREG(mode) else kinds.get(stat.S_IFMT(mode), "a device")


@contextmanager
def unpacked(path: str) -> Iterator[Stream]:
    """Open what is in a file, which is compressed where its suffix says so."""
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
    """A file that is read forward, and never more at once than `_AT_ONCE` bytes.

    It can go back to anywhere in what the last `read` gave.
    A damaged or hostile header that promises gigabytes cannot make `tarfile` hold them.
    """

    def __init__(self, file: Any, *, seekable: bool = False) -> None:
        self._file = file
        self._seekable = seekable
        self._at = 0
        self._last = b""
        self._again = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _AT_ONCE:
            raise OSError(f"a header of {size} bytes is too long")
        data, self._again = self._again[:size], self._again[size:]
        if len(data) < size:
            data += bytes(self._file.read(size - len(data)))
        self._at += len(data)
        self._last = data
        return data

    def readline(self, size: int) -> bytes:
        return bytes(self._file.readline(size))

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> int:
        """Go forward to a position; in a compressed file all up to there is unpacked."""
        if self._seekable:
            self._at = self._file.seek(to)
            return self._at
        if to < self._at - len(self._last):
            raise OSError("a compressed file is only read forward")
        if to < self._at:
            self._again = self._last[to - self._at :] + self._again
            self._at = to
        while self._at < to and self.read(min(to - self._at, _AT_ONCE)):
            pass
        return self._at

    def copy(self, size: int, target: IO[bytes]) -> None:
        """Append the next `size` bytes to another file; OSError where there are not as many."""
        missing = size
        while missing:
            piece = self.read(min(missing, _AT_ONCE))
            if not piece:
                raise OSError(f"the tar ends {missing} bytes too early")
            target.write(piece)
            missing -= len(piece)
