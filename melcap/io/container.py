"""The `.melcap` file: tokens packed to the bit or coded compactly, behind a header that says what
they are.

    offset    bytes  field (little-endian)
    0         6, 1   magic b"MELCAP", format version 2
    7         1      n, bytes in the model's name
    8         8      tokenizer id (see `melcap.model.tokenizer_id`)
    16        4, 2   sample rate of the original (Hz), channels
    22        8      samples per channel, at that rate
    30        2, 4   rows, columns
    36        1, 1   b, bits per token; coding of the tokens: 0 packed, 1 compact
    38        1      1 where the tokens have an axis of channels, 0 for one channel without it
    39        n      name of the model that made the tokens, printable ASCII
    39+n      4, 4   compact files alone (e = 8, else 0): CRC-32 of the row tables; p
    39+n+e    4      CRC-32 of everything above
    43+n+e    p      packed: tokens of b bits, most significant bit first, no gaps: channel after
                     channel, column by column, each column's rows in order; zero bits fill the
                     last byte
                     compact: words of `melcap.io.row_coding`, row after row, in each of them channel
                     after channel; in fewer bytes than packed tokens take
    43+n+e+p  4      CRC-32 of the p bytes; the file ends here

A reader trusts none of it: every field has bounds, and the size that the header implies must be the
size of the file before anything is allocated. How many samples a column stands for is the model's
business and not checked here. The tokenizer's id decides who can decode the tokens; the model's
name is there for people.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from melcap.errors import ContainerError, InputError
from melcap.io import row_coding, row_tables
from melcap.io.bits import pack_bits, unpack_bits
from melcap.io.files import replacing, require_regular
from melcap.io.header import (
    BOUNDS,
    MAGIC,
    MAX_TOKENS,
    VERSION,
    Header,
    Payload,
    check_tokenizer_id,
    header_bytes,
    take,
    take_header,
    with_checksum,
)

__all__ = [
    "BOUNDS",
    "MAGIC",
    "MAX_TOKENS",
    "VERSION",
    "Header",
    "check_tokenizer_id",
    "pack",
    "read",
    "read_bytes",
    "read_header",
    "unpack",
    "verify",
    "write",
    "write_bytes",
]


def pack(header: Header, tokens: npt.NDArray[np.integer[Any]]) -> bytes:
    """Return the bytes of a `.melcap` file with tokens [channels, rows, columns] of any integers.

    Where the header asks for a compact file and the row tables make it no smaller, it is packed.

    Raises:
        InputError: for tokens of another shape than the header's, or that `pack_bits` or the row
            tables refuse.
        ContainerError: for a compact file of a tokenizer whose row tables are not at hand.
    """
    shape = (header.channels, header.rows, header.columns)
    if tokens.shape != shape:
        raise InputError(f"the header asks for tokens of shape {shape}, not {tokens.shape}")
    data, tables = pack_bits(tokens.transpose(0, 2, 1).reshape(-1), header.bits), 0
    if header.compact:
        found = row_tables.find(header.tokenizer_id)
        coded = row_coding.encode(tokens.transpose(1, 0, 2).reshape(header.rows, -1), found)
        if len(coded) < len(data):
            data, tables = coded, found.checksum
        else:
            header = replace(header, compact=False)
    return header_bytes(header, Payload(len(data), tables)) + with_checksum(data)


def unpack(data: bytes) -> tuple[Header, npt.NDArray[np.int32]]:
    """Return the header and the tokens, int32 [channels, rows, columns], of a `.melcap` file.

    Raises:
        ContainerError: for bytes that are no `.melcap` file, or were altered, or are compact by row
            tables that are not at hand.
    """
    return _unpacked(io.BytesIO(data), len(data))


def write(
    path: str | os.PathLike[str], header: Header, tokens: npt.NDArray[np.integer[Any]]
) -> int:
    """Write what `pack` gives to a file; returns its size.

    The file appears whole, in the place of one of that name, or not at all.

    Raises:
        InputError, ContainerError: as `pack` does.
        ContainerError: where the file cannot be written.
    """
    data = pack(header, tokens)
    write_bytes(path, data)
    return len(data)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file of tokens, whole or not at all; ContainerError where it cannot be written."""
    with _explained(path, "written"):
        with replacing(Path(path)) as temporary, open(temporary, "xb") as file:
            file.write(data)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file of tokens; ContainerError where it cannot be read."""
    with _explained(path, "read"):
        return Path(path).read_bytes()


def read(path: str | os.PathLike[str]) -> tuple[Header, npt.NDArray[np.int32]]:
    """Return the header and the tokens, int32 [channels, rows, columns], of a `.melcap` file.

    Memory is in proportion to the size of the file, whatever its header says.

    Raises:
        ContainerError: for a file that cannot be read, is no `.melcap` file, was altered by so much
            as a byte, or is compact by row tables that are not at hand.
    """
    with _opened(path) as (file, size):
        return _unpacked(file, size)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Return the header alone, checked as `read` does; of the tokens, their size is checked.

    Raises:
        ContainerError: as `read` does.
    """
    with _opened(path) as (file, size):
        return take_header(file, size)[0]


def verify(path: str | os.PathLike[str]) -> Header:
    """Return the header of a file that nothing has damaged; no row tables are needed.

    Raises:
        ContainerError: for a file that cannot be read, is no `.melcap` file, or is damaged.
    """
    with _opened(path) as (file, size):
        header, payload = take_header(file, size)
        take(file, payload.size, "token data")
        return header


def _unpacked(file: BinaryIO, size: int) -> tuple[Header, npt.NDArray[np.int32]]:
    header, payload = take_header(file, size)
    data = take(file, payload.size, "token data")
    if header.compact:
        return header, _decoded(header, data, payload.tables)
    tokens = unpack_bits(data, header.bits, header.token_count)
    grid = tokens.reshape(header.channels, header.columns, header.rows)
    return header, np.ascontiguousarray(grid.transpose(0, 2, 1))


def _decoded(header: Header, data: bytes, checksum: int) -> npt.NDArray[np.int32]:
    """Return the tokens [channels, rows, columns] of a compact file."""
    tables = row_tables.find(header.tokenizer_id, checksum)
    if len(tables.frequencies) != header.rows:
        raise ContainerError(
            f"its row tables are for {len(tables.frequencies)} rows of tokens, not {header.rows}"
        )
    tokens = row_coding.decode(data, tables, header.channels * header.columns)
    if (largest := int(tokens.max())) >> header.bits:
        raise ContainerError(f"its token {largest} does not fit {header.bits} bits")
    grid = tokens.reshape(header.rows, header.channels, header.columns)
    return np.ascontiguousarray(grid.transpose(1, 0, 2))


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file to read; gives its size too."""
    with _explained(path, "read"), open(path, "rb") as file:
        yield file, os.fstat(file.fileno()).st_size


@contextmanager
def _explained(path: str | os.PathLike[str], verb: str) -> Iterator[None]:
    """Turn what goes wrong with the file into a ContainerError that names it."""
    try:
        require_regular(path)  # for writing as well: to replace a pipe is worse than to wait for it
        yield
    except (ContainerError, OSError, ValueError) as error:  # ValueError: an impossible file name
        reason = getattr(error, "strerror", None) or error
        raise ContainerError(f"'{os.fspath(path)}' cannot be {verb}: {reason}") from error
