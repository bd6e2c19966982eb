"""Tables in Markdown, for reports and model cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(
    titles: Sequence[object], rows: Iterable[Sequence[object]], numbers_from: int | None = None
) -> str:
    """Return a Markdown table, with a newline after each line.

    Args:
        titles: The cells of the first line.
        rows: The lines below, each with a cell for every title. Bars in cells are escaped, and line
            breaks become spaces.
        numbers_from: The first of the columns that are aligned right, counted from 0; None for no
            such column.

    Returns:
        The table as text.

    Raises:
        ValueError: For a row with more or fewer cells than there are titles.

    Example:
        >>> from melcap.markdown import table
        >>> print(table(["codec", "kbps"], [["melcap", 3.36]], numbers_from=1), end="")
        | codec | kbps |
        | --- | ---: |
        | melcap | 3.36 |
    """
    right = len(titles) if numbers_from is None else numbers_from
    rule = ["---"] * right + ["---:"] * (len(titles) - right)
    lines = [_cells(titles), rule, *map(_cells, rows)]
    for cells in lines:
        if len(cells) != len(titles):
            counts = f"{len(cells)} cells, but there are {len(titles)} titles"
            raise ValueError(f"a row has {counts}: {cells}")
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(values: Iterable[object]) -> list[str]:
    return [" ".join(str(value).replace("|", "\\|").splitlines()) for value in values]
