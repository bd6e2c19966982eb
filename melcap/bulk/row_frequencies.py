"""Make row tables of token sets: `python -m melcap.bulk.row_frequencies TOKENS... --out FOLDER`.

The file is called by the tokenizer's id, and compact `.melcap` files of its tokens are coded by it
(`melcap.io.row_tables`). Frequencies are in proportion to the counts, with half a count more for each
codebook entry, so that none is impossible.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from melcap.bulk.stats import Counts, Summary, summarise
from melcap.cli.batch import sentences
from melcap.errors import InputError
from melcap.io.row_tables import TOTAL_BITS, RowTables

_LARGEST = 2**16 - 1


def main(
    tokens: Annotated[list[Path], typer.Argument(help="token sets of one tokenizer")],
    out: Annotated[Path, typer.Option(help="the folder for the row tables")],
    valid: Annotated[
        list[Path] | None, typer.Option(help="token sets to say the bits per token of, too")
    ] = None,
) -> None:
    """Count how often each codebook entry occurs in each row of the grid, and write row tables."""
    with sentences():
        summary = summarise(tokens)
        tables = row_tables_of(summary)
        target = tables.save(out)
        typer.echo(f"{target}: {bits_per_token(tables, summary):.3f} bits per token")
        if valid:
            held_out = summarise(valid)
            if held_out.tokenizer_id != tables.tokenizer_id:
                raise InputError(f"--valid has tokens of tokenizer {held_out.tokenizer_id}")
            typer.echo(f"held out: {bits_per_token(tables, held_out):.3f} bits per token")


def row_tables_of(summary: Summary) -> RowTables:
    """Return the row tables of counted tokens.

    Raises:
        InputError: for tokens of a codebook of fewer than 8 entries.
    """
    rows = [frequencies(counts) for counts in summary.counts]
    return RowTables(summary.tokenizer_id, np.stack(rows))


def frequencies(counts: Counts) -> npt.NDArray[np.uint16]:
    """Return one row of a row table, uint16 [codebook size], for counts of the same shape.

    Each is (count + 1/2) over a common divisor, rounded, and kept from 1 to 2**16 - 1. The divisor
    is the one that makes them add up; where many entries of equal counts would pass over the sum
    together, the first of them alone get one more.
    """
    if counts.size < 8:
        raise InputError(f"row tables need a codebook of at least 8 entries, not {counts.size}")
    weights, total = counts + 0.5, 1 << TOTAL_BITS

    def divided(divisor: float) -> Counts:
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
    """Return what the counted tokens cost by these tables, in bits each."""
    costs = TOTAL_BITS - np.log2(tables.frequencies)
    return float((costs * summary.counts).sum() / summary.counts.sum())


if __name__ == "__main__":
    typer.run(main)
