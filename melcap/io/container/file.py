"""`.melcap` files on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from melcap.errors import ContainerError
from melcap.io.container.header import Header, take, take_header
from melcap.io.container.packing import pack, unpack_file
from melcap.io.files import replacing, require_regular


def write(
    path: str | os.PathLike[str], header: Header, tokens: npt.NDArray[np.integer[Any]]
) -> int:
    """Write a `.melcap` file and return its size in bytes.

    The whole file appears at once and replaces one of the same name; after an error nothing has
    changed.

    Args:
        path: The file.
        header: The header.
        tokens: Tokens [channels, rows, columns] of any integer dtype.

    Raises:
        InputError: For tokens that `pack` refuses.
        ContainerError: For a compact file whose row tables are not found, and for a file that
            cannot be written.
    """
    data = pack(header, tokens)
    write_bytes(path, data)
    return len(data)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file of tokens, whole or not at all.

    Raises:
        ContainerError: For a file that cannot be written.
    """
    with _explained(path, "written"):
        with replacing(Path(path)) as temporary, open(temporary, "xb") as file:
            file.write(data)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file of tokens.

    Raises:
        ContainerError: For a file that cannot be read.
    """
    with _explained(path, "read"):
        return Path(path).read_bytes()


def read(path: str | os.PathLike[str]) -> tuple[Header, npt.NDArray[np.int32]]:
    """Return the header and the tokens, int32 [channels, rows, columns], of a `.melcap` file.

    The memory used is proportional to the size of the file, whatever its header says.

    Raises:
        ContainerError: For a file that cannot be read, is no `.melcap` file, differs from what was
            written by even one byte, or is compact with row tables that are not found.
    """
    with _opened(path) as (file, size):
        return unpack_file(file, size)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Return the header alone, checked as in `read`; of the tokens only the size is checked.

    Raises:
        ContainerError: As in `read`.
    """
    with _opened(path) as (file, size):
        return take_header(file, size)[0]


def verify(path: str | os.PathLike[str]) -> Header:
    """Check a whole file for damage and return its header; no row tables are needed.

    Raises:
        ContainerError: For a file that cannot be read, is no `.melcap` file, or is damaged.
    """
    with _opened(path) as (file, size):
        header, payload = take_header(file, size)
        take(file, payload.size, "token data")
        return header


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file to read, and yield it with its size."""
    with _explained(path, "read"), open(path, "rb") as file:
        yield file, os.fstat(file.fileno()).st_size


@contextmanager
def _explained(path: str | os.PathLike[str], verb: str) -> Iterator[None]:
    """Turn every error of the block into a ContainerError that names the file."""
    try:
        require_regular(path)  # before writing too: a pipe or device must not be replaced
        yield
    except (ContainerError, OSError, ValueError) as error:  # ValueError: an impossible file name
        reason = getattr(error, "strerror", None) or error
        raise ContainerError(f"'{os.fspath(path)}' cannot be {verb}: {reason}") from error
