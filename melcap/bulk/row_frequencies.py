"""Make row tables from token sets: the function behind `melcap row-tables`.

Compact `.melcap` files are coded by row tables (`melcap.io.container.row_tables`). Frequencies are
proportional to the counts, with half a count added for each codebook entry, so that every entry is
possible.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from melcap.bulk.stats import EntryCounts, Summary
from melcap.errors import InputError
from melcap.io.container.row_tables import TOTAL_BITS, RowTables

_LARGEST = 2**16 - 1


def row_tables_of(summary: Summary) -> RowTables:
    """Return the row tables of counted tokens.

    Args:
        summary: the statistics of token sets, by `melcap.bulk.stats.summarise`.

    Raises:
        InputError: for a codebook of fewer than 8 entries.
    """
    rows = [frequencies(counts) for counts in summary.counts]
    return RowTables(summary.tokenizer_id, np.stack(rows))


def frequencies(counts: EntryCounts) -> npt.NDArray[np.uint16]:
    """Return one row of a row table, uint16 [codebook size].

    Each frequency is (count + 1/2) over a common divisor, rounded, and kept from 1 to 2**16 - 1.
    The divisor is chosen so that they add up. If entries of equal counts would exceed the sum
    together, only the first of them are one higher.

    Args:
        counts: how often each codebook entry occurs in the row, int64 [codebook size].

    Raises:
        InputError: for a codebook of fewer than 8 entries.
    """
    if counts.size < 8:
        raise InputError(f"row tables need a codebook of at least 8 entries, not {counts.size}")
    weights, total = counts + 0.5, 1 << TOTAL_BITS

    def divided(divisor: float) -> EntryCounts:
        return np.clip(np.rint(weights / divisor), 1, _LARGEST).astype(np.int64)

    too_small, divisor = float(weights.min()) / 2**17, float(weights.sum())
    while too_small < (middle := (too_small + divisor) / 2) < divisor:
        if divided(middle).sum() > total:
            too_small = middle
        else:
            divisor = middle
    shares = divided(divisor)
    next_in_line = np.flatnonzero(divided(too_small) > shares)
    shares[next_in_line[: total - int(shares.sum())]] += 1
    return shares.astype(np.uint16)


def bits_per_token(tables: RowTables, summary: Summary) -> float:
    """Return the cost of counted tokens by row tables, in bits per token."""
    costs = TOTAL_BITS - np.log2(tables.frequencies)
    return float((costs * summary.counts).sum() / summary.counts.sum())
