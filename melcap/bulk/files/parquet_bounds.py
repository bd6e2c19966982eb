"""Bounds on the memory that the columns of a Parquet file from elsewhere may take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FREE_TEXT = 1 << 22
"""Bytes of memory that a column of text in a row group may take in any case."""
FREE_TOKENS = 1 << 25
"""The same bound for a column of tokens."""
FREE_AUDIO = 1 << 28
"""The same bound for a column of embedded audio."""
BUFFER = 1 << 20
"""Bytes that pyarrow reads at once. Without it, pyarrow holds a whole column of a row group."""
_RATIO = 100


def check_group(metadata: Any, group: int, columns: Mapping[str, int]) -> None:
    """Refuse a row group if one of its columns takes far more memory than space in the file.

    A file of kilobytes can declare gigabytes: repeated values are packed, and a list states its own
    length. So the check comes before anything is allocated.

    Args:
        metadata: the metadata of the file, as pyarrow gives it.
        group: the number of the row group.
        columns: the columns that will be read, and the bytes that each may take in any case.

    Raises:
        ValueError: for a column that is too large. The message names it.
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
                f"but has {column.total_compressed_size} in the file; it is refused"
            )
