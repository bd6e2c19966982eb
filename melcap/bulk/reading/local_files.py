"""Clips as local files that a decoder can open: audio in tars, Parquet or at URLs is copied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from melcap.bulk.files.names import is_url
from melcap.bulk.files.streams import opened, unpacked
from melcap.bulk.reading.parquet_audio import embedded_audio
from melcap.bulk.reading.tasks import Task
from melcap.errors import AudioFileError
from melcap.io.files import irregular

_COPIED_AT_ONCE = 1 << 20


def local_files(task: Task) -> Iterator[tuple[Task, Path]]:
    """Yield the clips of a task with the file that holds them; it exists until the next one.

    Raises:
        Exception: whatever reading the source raises. None of the remaining clips can then be read.
    """
    first = task[0][1]
    if first.row_group >= 0:
        audio = embedded_audio([entry for _, entry in task])
        for clip, found in zip(task, audio, strict=True):
            with _path(found) if isinstance(found, str) else _copy(found) as path:
                yield [clip], path
    elif first.member:
        with unpacked(first.path) as tar:
            for number, entry in task:
                with NamedTemporaryFile(prefix="melcap-") as copy:
                    tar.seek(entry.offset)
                    tar.copy(entry.size, copy)
                    yield [(number, entry)], _flushed(copy)
    else:
        with _path(first.path) as path:
            yield task, path


@contextmanager
def _path(place: str) -> Iterator[Path]:
    """Yield a local path as it is, and a copy of what a URL holds."""
    if not is_url(place):
        if what := irregular(place):  # opening a pipe would wait for its other end
            raise AudioFileError(f"{place} is {what}, not a regular file.")
        yield Path(place)
        return
    with opened(place) as source, NamedTemporaryFile(prefix="melcap-") as copy:
        shutil.copyfileobj(source, copy, _COPIED_AT_ONCE)
        yield _flushed(copy)


@contextmanager
def _copy(audio: bytes) -> Iterator[Path]:
    with NamedTemporaryFile(prefix="melcap-") as copy:
        copy.write(audio)
        yield _flushed(copy)


def _flushed(copy: IO[bytes]) -> Path:
    copy.flush()
    return Path(copy.name)
