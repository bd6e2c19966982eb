"""Audio embedded in a Parquet file: a column of `{bytes, path}`, or of bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from melcap.bulk import INSTALL
from melcap.bulk.files.names import absolute, is_url
from melcap.bulk.files.parquet_bounds import BUFFER, FREE_AUDIO, check_group
from melcap.bulk.files.streams import opened
from melcap.bulk.manifests.entries import Entry
from melcap.extras import import_extra


def embedded_audio(entries: Sequence[Entry]) -> Iterator[bytes | str]:
    """Yield the audio of rows of one row group, in order: its bytes, or else its path.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is damaged, too large in memory, or has fewer rows than before.
    """
    parquet = import_extra("pyarrow.parquet", INSTALL)
    first = entries[0]
    with opened(first.path) as file:
        table = parquet.ParquetFile(file, buffer_size=BUFFER)
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
