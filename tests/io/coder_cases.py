"""Row tables and tokens on which the range coder is tried, in Python and in JavaScript."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from melcap.bulk.row_frequencies import frequencies
from melcap.io.container.row_tables import TOTAL_BITS, RowTables

ID = "00ff01234a0b0c0d"
SIZE = 16


def drawn(seed: int, rows: int = 3, size: int = SIZE) -> RowTables:
    """Row tables of another skew in each row, from nearly flat to one entry that has it all."""
    generator = np.random.default_rng(seed)
    skew = 10.0 ** np.arange(rows)[:, None]
    counts = (1000 * generator.random((rows, size)) ** skew).astype(np.int64)
    return RowTables(ID, np.stack([frequencies(each) for each in counts]))


def overflowing(
    seed: int, count: int, often: float
) -> tuple[RowTables, list[tuple[list[int], bytes]]]:
    """Return row tables, and sequences of tokens with the bytes that the definition gives them.

    Tokens are drawn towards the place where a carry through several words is decided last: all of
    them, but for at most a half, which is smaller the larger `often` is. The last word overflows at
    the end of every sequence but the longest.
    """
    generator = np.random.default_rng(seed)
    tables = drawn(seed, 1, 8)
    (starts,) = tables.starts
    tokens: list[int] = []
    interval, cases = Interval(), []
    for _ in range(count):
        near = interval.boundary(starts)
        if near is None or generator.random() > 0.5 + often / 2:
            near = int(generator.integers(8))
        tokens.append(near)
        interval.narrow(starts, near)
        if interval.low % 2**64 > 2**64 - 2**32:
            cases.append((list(tokens), interval.data()))
    return tables, [*cases, (tokens, interval.data())]


class Interval:
    """The range coder by its definition, in integers of any size: nothing overflows or carries."""

    def __init__(self) -> None:
        self.low, self.width, self.words = 0, 2**64 - 1, 1

    def narrow(self, starts: list[int], token: int) -> None:
        share = (self.width >> 24) * 64
        self.low += share * starts[token]
        self.width = share * (starts[token + 1] - starts[token])
        if self.width < 2**32:
            self.low, self.width, self.words = self.low << 32, self.width << 32, self.words + 1

    def boundary(self, starts: list[int]) -> int | None:
        """The token whose share holds the next multiple of 2**64, where a word would overflow."""
        ahead = -self.low % 2**64
        share = (self.width >> 24) * 64
        return bisect_right(starts, ahead // share) - 1 if ahead < share << TOTAL_BITS else None

    def data(self) -> bytes:
        end = -(-self.low >> 32)
        words = [end >> 32 * place & 2**32 - 1 for place in reversed(range(self.words))]
        if self.low + self.width >> 32 == end:
            words.append(0)
        return np.array(words, "<u4").tobytes()
