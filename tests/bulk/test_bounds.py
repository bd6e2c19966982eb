"""Files from elsewhere are bounded before memory is allocated for their content."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melcap.bulk.manifests.entries import Entry
from melcap.bulk.manifests.sources import find
from melcap.bulk.reading import parquet_audio
from melcap.bulk.reading.local_files import local_files
from melcap.bulk.stats import summarise
from melcap.bulk.token_sets import parquet
from melcap.bulk.token_sets.rows import TokenRow, record_of
from melcap.bulk.token_sets.shards import read_rows, write_shard
from melcap.errors import ContainerError, InputError
from melcap.io import container
from tests.helpers import ID

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def row(columns: int = 3) -> TokenRow:
    header = container.Header("small", ID, 44100, 1, 1000, 2, columns, 9)
    return TokenRow("x", "/x.wav", header, np.zeros(header.token_count, np.uint16))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 64])
def test_packed_tokens_are_counted_before_they_are_read(
    tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Parquet file of kilobytes that promises gigabytes is refused from its footer."""
    count = 1 << 24
    values = pa.array(np.zeros(count, np.uint16))
    offsets = pa.array(np.linspace(0, count, rows + 1).astype(np.int32))
    plain = pa.Table.from_pylist([record_of(row(count // 2))] * rows)
    table = plain.append_column("tokens", pa.ListArray.from_arrays(offsets, values))
    pq.write_table(table, tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < 10_000
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", None)
    with pytest.raises(ContainerError, match=r"tokens.* would take \d+ bytes in memory"):
        summarise([tmp_path / "bomb.parquet"])


def test_silence_can_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written without compression if it would be refused with it."""
    monkeypatch.setattr(parquet, "FREE_TOKENS", 1000)
    write_shard(tmp_path, 0, "parquet", [row(50_000), row(3)])
    file = tmp_path / "tokens-000000.parquet"
    first, second = read_rows(file, tmp_path)
    assert (first.tokens.size, second.tokens.size) == (100_000, 6)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def tar_of(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w") as shard:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    return path


def npy(array: np.ndarray, shape: str = "", dtype: str = "", version: bytes = b"\1\0") -> bytes:
    """Return an .npy file whose header may state another shape and type than its array has."""
    header = f"{{'descr': '{dtype or '<u2'}', 'fortran_order': False, 'shape': {shape}, }}"
    header = f"{header:<{128 - 11}}\n"
    return (
        b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header.encode() + bytes(array)
    )


@pytest.mark.parametrize(
    "data",
    [
        npy(np.zeros(6, np.uint16), "(1099511627776,)"),
        npy(np.zeros(6, np.uint16), "(2, 3)"),
        npy(np.zeros(6, np.uint16), "(5,)"),
        npy(np.zeros(6, np.uint16), "(3,)", "<f4"),
        npy(np.zeros(6, np.uint16), "(6,)", "|O"),
        npy(np.zeros(6, np.uint16), "(6,)", version=b"\2\0"),
        npy(np.zeros(6, np.uint16), "(" * 60),
        b"no array",
    ],
)
def test_an_array_is_as_long_as_its_header_says(tmp_path: Path, data: bytes) -> None:
    record = json.dumps(record_of(row())).encode()
    good = npy(np.zeros(6, np.uint16), "(6,)")
    path = tar_of(tmp_path / "x.tar", a_json=record, a_tokens_npy=good)
    assert [each.id for each in read_rows(path, tmp_path)] == ["x"]
    path = tar_of(tmp_path / "x.tar", a_json=record, a_tokens_npy=data)
    with pytest.raises(ContainerError, match=r"x\.tar"):
        list(read_rows(path, tmp_path))


@pytest.mark.parametrize(
    "record", [b'{"a": "%s"}' % bytes(b"x" * (1 << 24)), b"[" * 100_000, b"9" * 5000]
)
def test_records_are_bounded(tmp_path: Path, record: bytes) -> None:
    path = tar_of(tmp_path / "x.tar", a_json=record)
    with pytest.raises(ContainerError, match=r"x\.tar"):
        list(read_rows(path, tmp_path))


def test_text_of_a_manifest_is_bounded(tmp_path: Path) -> None:
    table = pa.table({"path": ["a" * (1 << 23), "b.wav"]})
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd")
    with pytest.raises(
        InputError, match=r"cannot be read as a manifest: path in row group 0 would"
    ):
        list(find([str(tmp_path / "x.parquet")]))


def test_embedded_audio_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_audio, "FREE_AUDIO", 1000)
    table: Any = pa.table({"audio": [bytes(1 << 20)]})
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd")
    (entry,) = find([str(tmp_path / "x.parquet")])
    assert isinstance(entry, Entry)
    with pytest.raises(ValueError, match="audio in row group 0 would take"):
        list(local_files([(0, entry)]))
    (row_gone,) = [replace(entry, offset=5)]
    monkeypatch.undo()
    with pytest.raises(ValueError, match="it has no row 5 any more"):
        list(local_files([(0, row_gone)]))
