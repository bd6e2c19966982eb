"""The files of a token set: those that the journal knows, as they were written, and no others."""

from __future__ import annotations

import os
import re
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from melcap.bulk.entry import text
from melcap.errors import InputError

TOKEN_SUFFIXES = (".parquet", ".tar", ".melcap")
_TEMPORARY = re.compile(r"\.melcap-[0-9a-f]{12}\.[a-z]+")
"""The name of a file of `files.replacing` and the like until it is whole."""
_SHARD = re.compile(r"tokens-(\d{6,})\.(parquet|tar)")


class Inventory:
    """Tables of a journal about the files beside it.

    A file is taken to be as it was while its size and time are; if they differ, its content says.
    """

    def __init__(self, folder: Path, db: sqlite3.Connection, own_files: bool) -> None:
        self._folder = folder
        self._db = db
        self._own_files = own_files

    def check(self) -> int:
        """Find what was lost or altered, have its clips done again, and return how many files.

        Temporary files of runs that were killed are removed.

        Raises:
            InputError: for tokens that the journal does not know.
        """
        for name in self._names():
            if not self._knows(text(name)):
                raise InputError(
                    f"{self._folder} holds {text(name)}, which its journal does not know: it is of "
                    "another run, or the journal was lost; move it away, or give another --out"
                )
        lost: list[tuple[str, int]] = []
        same: list[tuple[int, str]] = []
        for name, shard, *before in self._db.execute("SELECT * FROM files"):
            time = self._time_if_as_it_was(self._folder / name, *before)
            if time is None:
                lost.append((name, shard))
            elif time != before[1]:
                same.append((time, name))
        self._db.executemany("UPDATE files SET time = ? WHERE name = ?", same)
        for name, shard in lost:
            self._forget(name, shard)
        return len(lost)

    def record(self, shard: int, files: Iterable[Path]) -> None:
        """Put down the files of a shard as they are."""
        for path in files:
            name = path.relative_to(self._folder).as_posix()
            about = path.stat()
            self._db.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
                (name, shard, about.st_size, about.st_mtime_ns, _checksum(path)),
            )

    def _names(self) -> Iterator[str]:
        """Give the files of tokens below the folder, and remove those that were never finished."""
        for place, folders, names in os.walk(self._folder):
            folders.sort()
            for name in sorted(names):
                path = Path(place, name)
                if _TEMPORARY.fullmatch(name):
                    path.unlink(missing_ok=True)
                elif name.endswith(TOKEN_SUFFIXES) and not name.startswith("."):
                    yield path.relative_to(self._folder).as_posix()

    def _knows(self, name: str) -> bool:
        """Tell whether a file is recorded, or of a shard that was being written."""
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

    def _time_if_as_it_was(self, path: Path, size: int, time: int, checksum: int) -> int | None:
        """Return the time of a file that has the content that was recorded; None for another."""
        try:
            about = path.stat()
        except FileNotFoundError:
            return None
        if about.st_size != size or (about.st_mtime_ns != time and _checksum(path) != checksum):
            return None
        return about.st_mtime_ns

    def _forget(self, name: str, shard: int) -> None:
        """Have the clips of a file done again: all of its shard, or the one whose file it is."""
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
