"""A range coder for tokens, with the row tables of their tokenizer as probabilities.

Coded tokens are about a tenth smaller than packed ones. The coder has 64 bits of state and gives
words of 32 bits, little-endian, without gaps, row after row. In a row of the grid, the probability
of a token is a share of 2**24: 64 times its frequency in the row's table
(`melcap.io.container.row_tables`).

All numbers are whole, so the bytes are the same on every machine. They equal those of the range
coder of `constriction` (Bamler 2022, arXiv 2201.01741) for the same shares; the tests compare the
two. That library is not used here because it has no wheel for Linux on ARM and no source
distribution.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.errors import ContainerError, InputError
from melcap.io.container.row_tables import TOTAL_BITS, RowTables

_SHARE_BITS = 24
_SCALE = 1 << _SHARE_BITS - TOTAL_BITS
_WORD, _STATE = 2**32 - 1, 2**64 - 1


def encode(tokens: npt.NDArray[np.integer[Any]], tables: RowTables) -> bytes:
    """Return tokens [rows, any number] as bytes for `decode`.

    Raises:
        InputError: For another number of rows than the tables have, and for a token that is not in
            them.
    """
    rows, size = tables.frequencies.shape
    if tokens.shape[0] != rows:
        raise InputError(f"the row tables are for {rows} rows of tokens, not {tokens.shape[0]}")
    if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < size:
        raise InputError(f"the row tables are for tokens from 0 to {size - 1}")
    words = array("Q")
    lower, width = 0, _STATE
    for starts, row in zip(tables.starts, tokens.tolist(), strict=True):
        for token in row:
            share = (width >> _SHARE_BITS) * _SCALE
            lower += share * starts[token]
            width = share * (starts[token + 1] - starts[token])
            if lower > _STATE:
                _carry(words)
                lower &= _STATE
            if width <= _WORD:
                words.append(lower >> 32)
                lower, width = lower << 32 & _STATE, width << 32
    # The data ends with the first number from `lower` to `lower + width` whose low word is zero.
    # Only its high word is written. Where `lower + width` has the same high word, zeros follow.
    end = lower + _WORD
    if end > _STATE:
        _carry(words)
    words.append(end >> 32 & _WORD)
    if (lower + width & _STATE) >> 32 == words[-1]:
        words.append(0)
    return np.array(words, "<u4").tobytes()


def decode(data: bytes, tables: RowTables, count: int) -> npt.NDArray[np.int32]:
    """Return the tokens, int32 [rows, count], that `encode` coded.

    Raises:
        ContainerError: For bytes that `encode` does not make of any such tokens.
    """
    if not data or len(data) % 4:
        raise ContainerError(f"the token data has {len(data)} bytes, not a positive multiple of 4")
    # Zeros follow the last word; at most one word of them is needed.
    feed = iter([*np.frombuffer(data, "<u4").tolist(), 0])
    lower, width, point = 0, _STATE, next(feed) << 32 | next(feed)
    rows = []
    for starts in tables.starts:
        row = array("i")
        for _ in range(count):
            share = (width >> _SHARE_BITS) * _SCALE
            token = bisect_right(starts, (point - lower & _STATE) // share) - 1
            if token == len(starts) - 1:
                raise ContainerError("the token data cannot have been coded with these row tables")
            lower = lower + share * starts[token] & _STATE
            width = share * (starts[token + 1] - starts[token])
            if width <= _WORD:
                word = next(feed, None)
                if word is None:
                    raise ContainerError("the token data ends before the last token")
                lower, width = lower << 32 & _STATE, width << 32
                point = (point << 32 & _STATE) | word
            row.append(token)
        rows.append(row)
    _check_end(lower, width, point, list(feed))
    return np.array(rows, np.int32)


def _carry(words: array[int]) -> None:
    """Add one to the number that the words represent."""
    place = len(words) - 1
    while words[place] == _WORD:
        words[place] = 0
        place -= 1
    words[place] += 1


def _check_end(lower: int, width: int, point: int, rest: list[int]) -> None:
    """Refuse words that do not end in the way that `encode` ends them."""
    last = (lower + _WORD & _STATE) >> 32
    zeros = int((lower + width & _STATE) >> 32 == last)
    if point != last << 32 or len(rest) != zeros:
        raise ContainerError("the token data does not end with the last token")
