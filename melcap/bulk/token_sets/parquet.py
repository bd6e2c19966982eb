"""Token sets as Parquet files, with a row for each clip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from melcap.bulk import INSTALL
from melcap.bulk.files.parquet_bounds import FREE_TEXT, FREE_TOKENS, check_group
from melcap.bulk.token_sets.rows import COLUMNS, TokenRow, record_of, row_of
from melcap.errors import ContainerError
from melcap.extras import import_extra
from melcap.io.files import replacing

_GROUP_TOKENS = FREE_TOKENS // 8  # in a row group
_BATCH_TOKENS = 1 << 20


def write(path: Path, rows: Iterable[TokenRow]) -> None:
    """Write rows: at least one, and all with the same kept columns."""
    parquet = import_extra("pyarrow.parquet", INSTALL)
    groups = _groups(rows)
    group = next(groups)
    schema = _schema(group[0].kept)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        writer.write_table(_table(group, schema))
        for group in groups:
            writer.write_table(_table(group, schema))
    try:
        _check(parquet.read_metadata(path))
    except ValueError:  # hours of silence, compressed so much that `read` would refuse them
        _unpack(path, schema)


def read(path: Path) -> Iterator[TokenRow]:
    """Read the rows of a file.

    Raises:
        ContainerError: if it holds no tokens, or damaged ones.
    """
    arrow = import_extra("pyarrow", INSTALL)
    parquet = import_extra("pyarrow.parquet", INSTALL)
    try:
        file = parquet.ParquetFile(path)
        schema = file.schema_arrow
        if missing := [name for name in COLUMNS if name not in schema.names]:
            raise ContainerError(f"{path} is not a token set of melcap: no column {missing[0]}")
        texts = [each.name for each in schema if arrow.types.is_string(each.type)]
        columns = list(dict.fromkeys((*COLUMNS, *texts)))
        _check(file.metadata)
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(_rows(file.metadata, group), [group], columns):
                tokens = batch.column("tokens")
                for at, record in enumerate(batch.drop_columns(["tokens"]).to_pylist()):
                    values = tokens[at].values
                    values = values and values.to_numpy(zero_copy_only=False)
                    yield row_of(record, values, str(path))
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise ContainerError(f"{path} cannot be read as Parquet: {error}") from error


def _check(metadata: Any) -> None:
    """Refuse a file that would take far more memory than its size."""
    free = {
        metadata.schema.column(at).path.partition(".")[0]: FREE_TEXT
        for at in range(metadata.num_columns)
    }
    for group in range(metadata.num_row_groups):
        check_group(metadata, group, {**free, "tokens": FREE_TOKENS})


def _rows(metadata: Any, group: int) -> int:
    """Return the number of rows of a group to read at once, by the number of its tokens."""
    rows = metadata.row_group(group)
    most = max(rows.column(at).num_values for at in range(rows.num_columns))
    return max(1, min(64, _BATCH_TOKENS * rows.num_rows // max(most, 1)))


def _schema(kept: Iterable[str]) -> Any:
    arrow = import_extra("pyarrow", INSTALL)
    return arrow.schema(
        [
            ("id", arrow.string()),
            ("source", arrow.string()),
            ("sample_rate", arrow.int32()),
            ("channels", arrow.int32()),
            ("samples", arrow.int64()),
            ("rows", arrow.int32()),
            ("columns", arrow.int32()),
            ("bits", arrow.int32()),
            ("model", arrow.string()),
            ("tokenizer_id", arrow.string()),
            ("checksum", arrow.uint32()),
            *((name, arrow.string()) for name in kept),
            ("tokens", arrow.list_(arrow.uint16())),
        ]
    )


def _table(group: list[TokenRow], schema: Any) -> Any:
    arrow = import_extra("pyarrow", INSTALL)
    offsets = np.cumsum([0, *(row.tokens.size for row in group)])
    values = np.concatenate([row.tokens for row in group])
    tokens = arrow.ListArray.from_arrays(arrow.array(offsets, arrow.int32()), values)
    records = [record_of(row) for row in group]
    table = arrow.Table.from_pylist(records, schema=schema.remove(len(schema) - 1))
    return table.append_column(schema.field("tokens"), tokens)


def _groups(rows: Iterable[TokenRow]) -> Iterator[list[TokenRow]]:
    group: list[TokenRow] = []
    tokens = 0
    for row in rows:
        group.append(row)
        tokens += row.tokens.size
        if tokens >= _GROUP_TOKENS:
            yield group
            group, tokens = [], 0
    if group:
        yield group


def _unpack(path: Path, schema: Any) -> None:
    """Write a file again without compression, with as many bytes as it takes in memory."""
    parquet = import_extra("pyarrow.parquet", INSTALL)
    file = parquet.ParquetFile(path)
    with replacing(path) as other:
        plain = {"compression": "none", "use_dictionary": False}
        with parquet.ParquetWriter(other, schema, **plain) as writer:
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group))
