"""Parquet files from elsewhere, bounded before anything is allocated for their columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FREE_TEXT = 1 << 22
FREE_TOKENS = 1 << 25
FREE_AUDIO = 1 << 28
"""Bytes that a column of a row group may take in memory however small it is in the file."""
_RATIO = 100


def check_group(metadata: Any, group: int, columns: Mapping[str, int]) -> None:
    """Refuse a row group of which a column takes far more memory than room in the file.

    A few kilobytes can promise gigabytes: what repeats is packed, and a list says its own length.

    Args:
        columns: those that are going to be read, and what each may take anyway.

    Raises:
        ValueError: it names the column.
    """
    rows = metadata.row_group(group)
    for at in range(rows.num_columns):
        column = rows.column(at)
        free = columns.get(column.path_in_schema.partition(".")[0])
        if free is None:
            continue
        size = column.total_uncompressed_size
        if metadata.schema.column(at).max_repetition_level:
            size = max(size, 4 * column.num_values)
        if size > max(free, _RATIO * column.total_compressed_size):
            raise ValueError(
                f"{column.path_in_schema} in row group {group} would take {size} bytes in memory, "
                f"of {column.total_compressed_size} in the file, which is refused"
            )
