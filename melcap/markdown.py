"""Tables in Markdown, for reports and model cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(
    titles: Sequence[str], rows: Iterable[Sequence[object]], numbers_from: int | None = None
) -> str:
    """Return a Markdown table, with a newline after each line.

    Args:
        titles: the first line.
        rows: the lines below, each with a cell for every title. Bars in cells are escaped.
        numbers_from: the first of the columns that are aligned right, counted from 0; None for no
            such column.

    Returns:
        The table as text.

    Example:
        >>> print(table(["codec", "kbps"], [["melcap", 3.36]], numbers_from=1), end="")
        | codec | kbps |
        | --- | ---: |
        | melcap | 3.36 |
    """
    right = len(titles) if numbers_from is None else numbers_from
    rule = ["---"] * right + ["---:"] * (len(titles) - right)
    lines = [_cells(titles), rule, *map(_cells, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(values: Iterable[object]) -> list[str]:
    return [str(value).replace("|", "\\|") for value in values]
