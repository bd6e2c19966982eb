"""The bytes of a `.melcap` file: a header and tokens packed into them, and taken out of them."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from melcap.errors import ContainerError, InputError
from melcap.io.container import range_coder, row_tables
from melcap.io.container.bits import pack_bits, unpack_bits
from melcap.io.container.header import (
    Header,
    Payload,
    header_bytes,
    take,
    take_header,
    with_checksum,
)


def pack(header: Header, tokens: npt.NDArray[np.integer[Any]]) -> bytes:
    """Return the bytes of a `.melcap` file.

    Where the header asks for a compact file and the row tables make it no smaller, the tokens are
    packed.

    Args:
        header: The header.
        tokens: Tokens [channels, rows, columns] of any integer dtype.

    Raises:
        InputError: For tokens of another shape than the header's, or that `pack_bits` or the row
            tables refuse.
        ContainerError: For a compact file where the row tables of the tokenizer are not found.

    Example:
        >>> import numpy as np
        >>> from melcap.io import container
        >>> header = container.Header("tiny", "0123456789abcdef", 44100, 1, 4096, 2, 3, 13)
        >>> data = container.pack(header, np.arange(6).reshape(1, 2, 3))
        >>> len(data)
        61
        >>> container.unpack(data)[1].tolist()
        [[[0, 1, 2], [3, 4, 5]]]
    """
    shape = (header.channels, header.rows, header.columns)
    if tokens.shape != shape:
        raise InputError(f"the header asks for tokens of shape {shape}, not {tokens.shape}")
    data, tables = pack_bits(tokens.transpose(0, 2, 1).reshape(-1), header.bits), 0
    if header.compact:
        found = row_tables.find(header.tokenizer_id)
        coded = range_coder.encode(tokens.transpose(1, 0, 2).reshape(header.rows, -1), found)
        if len(coded) < len(data):
            data, tables = coded, found.checksum
        else:
            header = replace(header, compact=False)
    return header_bytes(header, Payload(len(data), tables)) + with_checksum(data)


def unpack(data: bytes) -> tuple[Header, npt.NDArray[np.int32]]:
    """Return the header and the tokens, int32 [channels, rows, columns], of a `.melcap` file.

    Raises:
        ContainerError: For bytes that are no `.melcap` file, or were altered, or are compact with
            row tables that are not found.
    """
    return unpack_file(io.BytesIO(data), len(data))


def unpack_file(file: BinaryIO, size: int) -> tuple[Header, npt.NDArray[np.int32]]:
    """Return the header and the tokens of an open file of `size` bytes, as `unpack` does."""
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
    tokens = range_coder.decode(data, tables, header.channels * header.columns)
    if (largest := int(tokens.max())) >> header.bits:
        raise ContainerError(f"its token {largest} does not fit {header.bits} bits")
    grid = tokens.reshape(header.rows, header.channels, header.columns)
    return np.ascontiguousarray(grid.transpose(1, 0, 2))
