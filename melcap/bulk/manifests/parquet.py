"""Rows of a manifest in Parquet; audio embedded in it is noted and not read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from melcap.bulk import INSTALL
from melcap.bulk.files.parquet_bounds import BUFFER, FREE_TEXT, check_group
from melcap.bulk.files.streams import opened
from melcap.bulk.manifests.columns import Manifest
from melcap.bulk.manifests.rows import Embedded, Rows
from melcap.errors import InputError
from melcap.extras import import_extra

_ROWS_AT_ONCE = 64


def parquet_rows(path: str, wanted: Sequence[str], manifest: Manifest) -> Rows:
    """Read some columns of each row. Rows count from 0.

    A column with audio in it ({bytes, path}, or bytes alone) gives `Embedded` values.

    Args:
        path: the file or URL.
        wanted: the columns to read, in lower case; those of the file match in any case.
        manifest: the manifest, whose kept columns are read as well, and which checks the names.

    Raises:
        InputError: if the file lacks a column, or has one to keep that holds no plain values.
        ValueError: if a column would take far more memory than space in the file.
    """
    parquet = import_extra("pyarrow.parquet", INSTALL)
    with opened(path) as file:
        table = parquet.ParquetFile(file, buffer_size=BUFFER)
        columns = {field.name: field.type for field in table.schema_arrow}
        audio = {
            name: leaf
            for name, kind in columns.items()
            if name.lower() in wanted and (leaf := _audio_leaf(name, kind)) is not None
        }
        plain = [
            name
            for name, kind in columns.items()
            if (name.lower() in wanted or name in manifest.keep) and _is_plain(kind)
        ]
        for name in manifest.keep:
            if name in columns and name not in plain:
                raise InputError(
                    f"{path} has {name} as {columns[name]}; only text, numbers, true and false are "
                    "kept"
                )
        useless = {name for name in columns if name.lower() in wanted} - {*audio, *plain}
        names = table.schema_arrow.names  # with duplicates
        manifest.check([f"{n} ({columns[n]})" if n in useless else n for n in names])
        leaves = [*plain, *(leaf for leaf in audio.values() if leaf)]
        # Only the path of a struct with audio is read here. The size of the audio is checked when
        # it is read.
        free = dict.fromkeys(plain, FREE_TEXT)
        row = 0
        for group in range(table.num_row_groups):
            check_group(table.metadata, group, free)
            for values in _values(table, group, leaves):
                for name in audio:
                    where = (values.get(name) or {}).get("path") or ""
                    values[name] = Embedded(name, row, group, where)
                yield row, values
                row += 1


def _values(table: Any, group: int, leaves: list[str]) -> Iterator[dict[str, Any]]:
    if not leaves:
        yield from ({} for _ in range(table.metadata.row_group(group).num_rows))
        return
    for batch in table.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=leaves):
        yield from batch.to_pylist()


def _is_plain(kind: Any) -> bool:
    """Return whether a column holds text, numbers, or true and false."""
    types = import_extra("pyarrow", INSTALL).types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    )


def _audio_leaf(name: str, kind: Any) -> str | None:
    """Return the leaf with the path of embedded audio ("" for none), or None for other columns."""
    types = import_extra("pyarrow", INSTALL).types
    if types.is_binary(kind) or types.is_large_binary(kind):
        return ""
    if not types.is_struct(kind):
        return None
    fields = {kind.field(at).name for at in range(kind.num_fields)}
    return f"{name}.path" if "path" in fields else "" if "bytes" in fields else None
