"""Rows of a manifest, as the readers of all its forms give them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_LINE = 1 << 20
"""Bytes of a line, or characters of a kept value. Longer ones are refused."""

Row = dict[str, Any]
"""The values of a row by the names of their columns."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault of a row, and the row's id if that could be read."""

    what: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A place in a Parquet file that holds audio, and the path that the audio once had."""

    column: str
    row: int
    row_group: int
    path: str


Rows = Iterator[tuple[int, Row | Problem]]
"""The number of each row, with the row or its fault."""
