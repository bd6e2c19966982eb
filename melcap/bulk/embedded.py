"""Rows of Parquet files, and audio embedded in them: `{bytes, path}`, or a column of bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from melcap.bulk.bounds import FREE_AUDIO, FREE_TEXT, check_group
from melcap.bulk.entry import INSTALL, Entry, absolute, is_url
from melcap.bulk.opening import opened
from melcap.errors import InputError
from melcap.extras import import_extra

if TYPE_CHECKING:
    from melcap.bulk.lines import Rows
    from melcap.bulk.listing import Manifest

_ROWS_AT_ONCE = 64
_BUFFER = 1 << 20  # else all of a column in a row group is held


@dataclass(frozen=True, slots=True)
class Embedded:
    """A place in a Parquet file where audio lies, and the path that it once had."""

    column: str
    row: int
    row_group: int
    path: str


def parquet_rows(path: str, wanted: Sequence[str], manifest: Manifest) -> Rows:
    """Give the columns `wanted` (in any case) or kept of each row, counted from 0.

    A column with audio in it becomes `Embedded`; the audio itself is not read.
    """
    parquet = import_extra("pyarrow.parquet", INSTALL)
    with opened(path) as file:
        table = parquet.ParquetFile(file, buffer_size=_BUFFER)
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
        names = table.schema_arrow.names  # with those that are there twice
        manifest.check([f"{n} ({columns[n]})" if n in useless else n for n in names])
        leaves = [*plain, *(leaf for leaf in audio.values() if leaf)]
        # Of a struct with audio only the path is read; the reader checks the rest.
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
    """Tell whether a column holds text, numbers, or true and false."""
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


def embedded_audio(entries: Sequence[Entry]) -> Iterator[bytes | str]:
    """Give the audio of rows of one row group, in order: its bytes, or else its path.

    Raises OSError or ValueError where the file cannot be read.
    """
    parquet = import_extra("pyarrow.parquet", INSTALL)
    first = entries[0]
    with opened(first.path) as file:
        table = parquet.ParquetFile(file, buffer_size=_BUFFER)
        check_group(table.metadata, first.row_group, {first.member: FREE_AUDIO})
        before = sum(table.metadata.row_group(at).num_rows for at in range(first.row_group))
        wanted = iter(entries)
        entry = next(wanted, None)
        batches = table.iter_batches(1, row_groups=[first.row_group], columns=[first.member])
        for row, batch in enumerate(batches, start=before):
            if entry is not None and row == entry.offset:
                yield _audio(batch.column(0)[0].as_py(), first.path)
                entry = next(wanted, None)
            if entry is None:
                return
        raise ValueError(f"it has no row {entries[-1].offset} any more")


def _audio(value: Any, path: str) -> bytes | str:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value:
        return value if is_url(value) else absolute(os.path.join(os.path.dirname(path), value))
    return value or b""
