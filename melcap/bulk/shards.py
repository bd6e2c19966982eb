"""Token sets on disk: Parquet shards, WebDataset tars, or a `.melcap` file for each clip."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from melcap import container
from melcap.bulk.rows import TokenRow, split_model
from melcap.bulk.sources import INSTALL
from melcap.errors import ContainerError, InputError, MelcapError
from melcap.extras import import_extra
from melcap.files import replacing

_GROUP_TOKENS = 1 << 24  # rows are gathered up to 32 MiB of tokens
_FIELDS = ("sample_rate", "channels", "samples", "rows", "columns", "bits")


def write_shard(folder: Path, number: int, format: str, rows: Iterable[TokenRow]) -> None:
    """Make the shard of that number, or its files, appear whole; none where there are no rows.

    Made from the same rows, it has the same bytes.

    Raises:
        MelcapError: where it cannot be written.
    """
    write = FORMATS[format]
    try:
        write(folder, number, rows)
    except OSError as error:
        reason = error.strerror or error
        raise MelcapError(
            f"{folder}: shard {number} cannot be written: {reason}; nothing that was done is lost, "
            "mend that and start it again"
        ) from error


def token_files(path: Path) -> list[Path]:
    """The files of a token set, in order: of a folder, or the one that the path names.

    Raises `InputError` where there are none.
    """
    if path.is_dir():
        files = sorted(
            each
            for each in path.rglob("*")
            if each.suffix in _READERS and each.is_file() and not each.name.startswith(".")
        )
        if not files:
            raise InputError(f"{path} holds no tokens ({', '.join(_READERS)})")
        return files
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if path.suffix not in _READERS:
        raise InputError(f"{path} is none of {', '.join(_READERS)}")
    return [path]


def read_rows(file: Path, folder: Path) -> Iterator[TokenRow]:
    """The rows of one of the `token_files` of a token set in `folder`.

    Raises `ContainerError` for what holds no tokens, or damaged ones.
    """
    yield from _READERS[file.suffix](file, folder)


def _schema() -> Any:
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
            ("checksum", arrow.uint32()),
            ("tokens", arrow.list_(arrow.uint16())),
        ]
    )


def _write_parquet(folder: Path, number: int, rows: Iterable[TokenRow]) -> None:
    arrow = import_extra("pyarrow", INSTALL)
    parquet = import_extra("pyarrow.parquet", INSTALL)
    schema = _schema()
    groups = _groups(rows)
    first = next(groups, None)
    if first is None:
        return
    with replacing(folder / f"tokens-{number:06d}.parquet") as temporary:
        with parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for group in (first, *groups):
                offsets = np.cumsum([0, *(row.tokens.size for row in group)])
                values = np.concatenate([row.tokens for row in group])
                columns = [_record(row) for row in group]
                tokens = arrow.ListArray.from_arrays(arrow.array(offsets, arrow.int32()), values)
                table = arrow.Table.from_pylist(columns, schema=schema.remove(len(schema) - 1))
                writer.write_table(table.append_column(schema.field("tokens"), tokens))
        _flush(temporary)


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


def _record(row: TokenRow) -> dict[str, Any]:
    fields = {name: getattr(row.header, name) for name in _FIELDS}
    return {
        "id": row.id,
        "source": row.source,
        **fields,
        "model": row.model,
        "checksum": row.checksum,
    }


def _row(record: dict[str, Any], tokens: Any, where: str) -> TokenRow:
    """The row that a record and its tokens say they are, checked."""
    try:
        name, weights = split_model(record["model"])
        header = container.Header(name, weights, *(record[field] for field in _FIELDS))
        row = TokenRow(str(record["id"]), str(record["source"]), header, np.asarray(tokens))
        checksum = record["checksum"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ContainerError(f"{where} is not a token set of melcap: {error!r}") from error
    except ContainerError as error:
        raise ContainerError(f"{where}, {record.get('id')}: {error}") from error
    if row.tokens.dtype != np.uint16 or row.checksum != checksum:
        raise ContainerError(f"{where}, {row.id}: the tokens are damaged (wrong checksum)")
    return row


def _read_parquet(path: Path, folder: Path) -> Iterator[TokenRow]:
    arrow = import_extra("pyarrow", INSTALL)
    parquet = import_extra("pyarrow.parquet", INSTALL)
    try:
        file = parquet.ParquetFile(path)
        names = [field.name for field in _schema()]
        if missing := [name for name in names if name not in file.schema_arrow.names]:
            raise ContainerError(f"{path} is not a token set of melcap: no column {missing[0]}")
        for batch in file.iter_batches(batch_size=64, columns=names):
            tokens = batch.column("tokens")
            for at, record in enumerate(batch.drop_columns(["tokens"]).to_pylist()):
                values = tokens[at].values
                yield _row(record, values and values.to_numpy(zero_copy_only=False), str(path))
    except (arrow.ArrowException, OSError) as error:
        raise ContainerError(f"{path} cannot be read as Parquet: {error}") from error


def _write_webdataset(folder: Path, number: int, rows: Iterable[TokenRow]) -> None:
    iterator = iter(rows)
    first = next(iterator, None)
    if first is None:
        return
    with replacing(folder / f"tokens-{number:06d}.tar") as temporary:
        with tarfile.open(temporary, "w") as shard:
            for at, row in enumerate((first, *iterator)):
                tokens = io.BytesIO()
                np.save(tokens, row.tokens)
                record = json.dumps(_record(row)).encode()
                for suffix, data in (("json", record), ("tokens.npy", tokens.getvalue())):
                    member = tarfile.TarInfo(f"{number:06d}{at:06d}.{suffix}")
                    member.size = len(data)
                    shard.addfile(member, io.BytesIO(data))
        _flush(temporary)


def _read_webdataset(path: Path, folder: Path) -> Iterator[TokenRow]:
    try:
        with tarfile.open(path, "r:") as shard:
            record: dict[str, Any] = {}
            for member in shard:
                file = shard.extractfile(member)
                if file is None:
                    continue
                if member.name.endswith(".json"):
                    record = json.load(file)
                elif member.name.endswith(".tokens.npy"):
                    tokens = np.load(io.BytesIO(file.read()), allow_pickle=False)
                    yield _row(record, tokens, f"{path}/{member.name}")
    except (OSError, ValueError, tarfile.TarError) as error:
        raise ContainerError(f"{path} cannot be read as a tar of tokens: {error}") from error


def _write_melcap(folder: Path, number: int, rows: Iterable[TokenRow]) -> None:
    for row in rows:
        target = folder / f"{row.id}.melcap"
        target.parent.mkdir(parents=True, exist_ok=True)
        container.write(target, row.header, row.grid)


def _read_melcap(path: Path, folder: Path) -> Iterator[TokenRow]:
    header, grid = container.read(path)
    tokens = grid.transpose(0, 2, 1).reshape(-1).astype(np.uint16)
    id = path.relative_to(folder).with_suffix("").as_posix()
    yield TokenRow(id, str(path), header, tokens)


def _flush(path: Path) -> None:
    """To the disk itself, before the file gets its name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


FORMATS: dict[str, Callable[[Path, int, Iterable[TokenRow]], None]] = {
    "parquet": _write_parquet,
    "webdataset": _write_webdataset,
    "melcap": _write_melcap,
}
_READERS: dict[str, Callable[[Path, Path], Iterator[TokenRow]]] = {
    ".parquet": _read_parquet,
    ".tar": _read_webdataset,
    ".melcap": _read_melcap,
}
