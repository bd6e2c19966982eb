"""The inventory of a token set: its files as they were written, and no others."""

from __future__ import annotations

import os
import re
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from melcap.bulk.files.names import text
from melcap.errors import InputError
from melcap.io.files import TEMPORARY
from melcap.io.suffixes import TOKEN_SUFFIXES

_SHARD = re.compile(r"tokens-(\d{6,})\.(parquet|tar)")


class Inventory:
    """The table of a journal that records the files beside it.

    A file counts as unchanged if its size and time are the same. If the time differs, a checksum of
    its content decides.

    Args:
        folder: the folder of the token set.
        db: the database of the journal.
        own_files: whether each clip has a file of its own.
    """

    def __init__(self, folder: Path, db: sqlite3.Connection, own_files: bool) -> None:
        self._folder = folder
        self._db = db
        self._own_files = own_files

    def check(self) -> int:
        """Let the clips of files that were lost or altered wait again, and return how many files.

        Temporary files of runs that were killed are removed.

        Raises:
            InputError: for files of tokens that are not in the journal.
        """
        for name in self._names():
            if not self._is_recorded(text(name)):
                raise InputError(
                    f"{self._folder} holds {text(name)}, which is not in its journal: it is of "
                    "another run, or the journal was lost. Move it away, or give another --out"
                )
        lost: list[tuple[str, int]] = []
        same: list[tuple[int, str]] = []
        for name, shard, *before in self._db.execute("SELECT * FROM files"):
            time = self._time_if_unchanged(self._folder / name, *before)
            if time is None:
                lost.append((name, shard))
            elif time != before[1]:
                same.append((time, name))
        self._db.executemany("UPDATE files SET time = ? WHERE name = ?", same)
        for name, shard in lost:
            self._forget(name, shard)
        return len(lost)

    def record(self, shard: int, files: Iterable[Path]) -> None:
        """Record the files of a shard as they are."""
        for path in files:
            name = path.relative_to(self._folder).as_posix()
            about = path.stat()
            self._db.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
                (name, shard, about.st_size, about.st_mtime_ns, _checksum(path)),
            )

    def _names(self) -> Iterator[str]:
        """Yield the files of tokens below the folder, and remove those that were never finished."""
        for place, folders, names in os.walk(self._folder):
            folders.sort()
            for name in sorted(names):
                path = Path(place, name)
                if TEMPORARY.fullmatch(name):
                    path.unlink(missing_ok=True)
                elif name.endswith(TOKEN_SUFFIXES) and not name.startswith("."):
                    yield path.relative_to(self._folder).as_posix()

    def _is_recorded(self, name: str) -> bool:
        """Return whether a file is recorded, or belongs to a shard that was being written."""
        if self._db.execute("SELECT 1 FROM files WHERE name = ?", (name,)).fetchone():
            return True
        shard = _SHARD.fullmatch(name)
        if shard and not self._own_files:
            query, key = "SELECT 1 FROM shards WHERE NOT written AND number = ?", shard[1]
        else:
            query = (
                "SELECT 1 FROM clips, shards WHERE id = ? AND shards.number = shard AND NOT written"
            )
            key = name.removesuffix(".melcap") if self._own_files else ""
        return self._db.execute(query, (key,)).fetchone() is not None

    def _time_if_unchanged(self, path: Path, size: int, time: int, checksum: int) -> int | None:
        """Return the time of a file if its content is as recorded, else None."""
        try:
            about = path.stat()
        except FileNotFoundError:
            return None
        if about.st_size != size or (about.st_mtime_ns != time and _checksum(path) != checksum):
            return None
        return about.st_mtime_ns

    def _forget(self, name: str, shard: int) -> None:
        """Let the clips of a file wait again: all of its shard, or the one that owns the file."""
        if self._own_files:
            (self._folder / name).unlink(missing_ok=True)
        which = (
            ("id = ?", name.removesuffix(".melcap")) if self._own_files else ("shard = ?", shard)
        )
        self._db.execute(
            f"UPDATE clips SET state = 0, tokens = NULL WHERE state = 1 AND {which[0]}", which[1:]
        )
        self._db.execute("UPDATE shards SET written = 0 WHERE number = ?", (shard,))
        self._db.execute("DELETE FROM files WHERE name = ?", (name,))


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            checksum = zlib.crc32(piece, checksum)
    return checksum
