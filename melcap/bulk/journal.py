"""What is to be done, what is done, and what is bad: an SQLite file in the folder of a token set.

It makes a run safe: the plan is written down first, every finished clip is in the file until the
shard that holds it has its name, and a killed run leaves a file that SQLite knows how to mend.
While a run is at work it has the file for itself.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.bulk.sources import Entry, Unlisted
from melcap.errors import InputError, MelcapError

NAME = ".melcap-journal.sqlite"
_FORMAT = 2
_WAITING, _DONE, _BAD = 0, 1, 2  # written out in SQL where an index depends on it
_AT_ONCE = 1000
_PLACE = "path, offset, size, member, start, seconds"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (text TEXT);
CREATE TABLE IF NOT EXISTS shards (number INTEGER PRIMARY KEY, written INTEGER);
CREATE TABLE IF NOT EXISTS clips (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE,
    path BLOB, offset INTEGER, size INTEGER, member BLOB, start REAL, seconds REAL,
    shard INTEGER, state INTEGER DEFAULT 0, reason TEXT,
    sample_rate INTEGER, channels INTEGER, samples INTEGER, tokens BLOB);
CREATE INDEX IF NOT EXISTS by_shard ON clips (shard, number);
CREATE INDEX IF NOT EXISTS waiting ON clips (shard) WHERE state = 0;
CREATE INDEX IF NOT EXISTS bad ON clips (number) WHERE state = 2;
CREATE TABLE IF NOT EXISTS unlisted (source TEXT, reason TEXT);
"""


@dataclass(frozen=True, eq=False)
class Finished:
    """A clip of the plan and its tokens, uint16, in the order of `TokenRow`."""

    number: int
    entry: Entry
    sample_rate: int
    channels: int
    samples: int
    tokens: npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Counts:
    """Clips of the plan, how many are done and how many bad; and folders and tars that cannot be
    searched, of whose clips nobody knows."""

    clips: int
    done: int
    bad: int
    unlisted: int


class Journal:
    """The journal of the folder; a context manager.

    `settings` decide what the rows are; those of an earlier run must be the same.

    Raises:
        InputError: where they are not.
        MelcapError: where the folder cannot be written, is full, is at work already, or holds
            something else under the journal's name.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / NAME, timeout=1, check_same_thread=False)
            try:
                self._open({"format": _FORMAT, **settings})
            except BaseException:
                self._db.close()
                raise

    def _open(self, settings: dict[str, Any]) -> None:
        # Exclusive: no second run, and no shared memory, which network file systems lack.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            self._db.execute(statement)
        self._settle(settings)
        self._db.commit()

    def _settle(self, settings: dict[str, Any]) -> None:
        before = self._db.execute("SELECT text FROM settings").fetchone()
        if before is None:
            self._db.execute("INSERT INTO settings VALUES (?)", (json.dumps(settings),))
            return
        earlier = json.loads(before[0])
        differ = [name for name in settings if earlier.get(name) != settings[name]]
        if differ:
            theirs = ", ".join(f"{name} {earlier.get(name)}" for name in differ)
            ours = ", ".join(f"{name} {settings[name]}" for name in differ)
            raise InputError(
                f"{self._folder} holds tokens made with {theirs}, and this run has {ours}: give "
                "another --out, or the same settings"
            )

    def plan(self, found: Iterable[Entry | Unlisted], shard_clips: int) -> None:
        """Put down what is not in the plan yet: new clips make new shards, at the end.

        A bad clip that is not found any more is struck out.

        Raises `InputError` where two clips have one id; then the plan is as it was.
        """
        with self._whole_or_not():
            self._db.execute("DELETE FROM unlisted")
            gone = {id for (id,) in self._db.execute("SELECT id FROM clips WHERE state = 2")}
            for each in found:
                gone.discard(each.id if isinstance(each, Entry) else "")
                if isinstance(each, Unlisted):
                    self._db.execute(
                        "INSERT INTO unlisted VALUES (?, ?)", (each.source, each.reason)
                    )
                elif not self._knows(each):
                    self._db.execute(
                        f"INSERT INTO clips (id, {_PLACE}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (each.id, *_place(each)),
                    )
            self._db.executemany("DELETE FROM clips WHERE id = ?", [(id,) for id in gone])
            self._assign("shard IS NULL", shard_clips)

    def retry(self, shard_clips: int) -> None:
        """What is bad is to be done once more, in new shards: those that are written stay."""
        with self._whole_or_not():
            self._assign("state = 2", shard_clips)

    def _assign(self, which: str, shard_clips: int) -> None:
        """Spread clips over new shards."""
        (first,) = self._db.execute("SELECT coalesce(max(number) + 1, 0) FROM shards").fetchone()
        (clips,) = self._db.execute(f"SELECT count(*) FROM clips WHERE {which}").fetchone()
        self._db.execute(
            "UPDATE clips SET state = 0, reason = NULL, shard = ? + at / ? FROM"
            f" (SELECT number AS which, row_number() OVER (ORDER BY number) - 1 AS at FROM clips"
            f"  WHERE {which}) WHERE number = which",
            (first, shard_clips),
        )
        shards = range(first, first + -(-clips // shard_clips))
        self._db.executemany("INSERT INTO shards VALUES (?, 0)", [(shard,) for shard in shards])

    @contextmanager
    def _whole_or_not(self) -> Iterator[None]:
        with self._explained():
            try:
                yield
            except BaseException:
                self._db.rollback()
                raise
            self._db.commit()

    def _knows(self, entry: Entry) -> bool:
        same = self._db.execute(
            f"SELECT id, {_PLACE} FROM clips WHERE id = ?", (entry.id,)
        ).fetchone()
        if same is None:
            return False
        other = _entry(*same)
        if replace(other, size=entry.size) != entry:
            raise InputError(
                f"{other.source} and {entry.source} would both be called {entry.id}: name them in "
                "a manifest (columns id and path), or give each folder an --out of its own"
            )
        return True

    def waiting(self) -> Iterator[tuple[int, Entry]]:
        """The clips that are still to be done, in the plan's order; for any thread."""
        last = -1
        while True:
            with self._explained():
                found = self._db.execute(
                    f"SELECT number, id, {_PLACE} FROM clips"
                    " WHERE state = ? AND number > ? ORDER BY number LIMIT ?",
                    (_WAITING, last, _AT_ONCE),
                ).fetchall()
            if not found:
                return
            for number, *entry in found:
                yield number, _entry(*entry)
            last = found[-1][0]

    def finish(
        self, clip: int, sample_rate: int, channels: int, samples: int, tokens: bytes
    ) -> None:
        """A clip is done: its tokens as little-endian uint16, in the order of `TokenRow`."""
        with self._explained():
            self._db.execute(
                "UPDATE clips SET state = ?, reason = NULL, sample_rate = ?, channels = ?,"
                " samples = ?, tokens = ? WHERE number = ?",
                (_DONE, sample_rate, channels, samples, tokens, clip),
            )

    def fail(self, clip: int, reason: str) -> None:
        with self._explained():
            self._db.execute(
                "UPDATE clips SET state = ?, reason = ? WHERE number = ?", (_BAD, reason, clip)
            )

    def commit(self) -> None:
        """From here on, nothing that was said before can be lost."""
        with self._explained():
            self._db.commit()

    def ready_shards(self) -> list[int]:
        """The shards that are not written, and of which every clip is done or bad."""
        with self._explained():
            found = self._db.execute(
                "SELECT number FROM shards WHERE NOT written AND NOT EXISTS"
                " (SELECT * FROM clips WHERE shard = shards.number AND state = 0) ORDER BY number"
            )
            return [number for (number,) in found]

    def finished(self, shard: int) -> Iterator[Finished]:
        """The clips of a shard that are done, in the plan's order, with their tokens."""
        with self._explained():
            found = self._db.execute(
                f"SELECT number, id, {_PLACE}, sample_rate, channels, samples,"
                " tokens FROM clips WHERE shard = ? AND state = ? ORDER BY number",
                (shard, _DONE),
            )
            for number, *entry, sample_rate, channels, samples, tokens in found:
                array = np.frombuffer(tokens, "<u2").astype(np.uint16)
                yield Finished(number, _entry(*entry), sample_rate, channels, samples, array)

    def written(self, shard: int) -> None:
        """A shard has its name on disk: its tokens need not be kept here any longer."""
        with self._explained():
            self._db.execute("UPDATE clips SET tokens = NULL WHERE shard = ?", (shard,))
            self._db.execute("UPDATE shards SET written = 1 WHERE number = ?", (shard,))
            self._db.commit()

    def bad(self) -> Iterator[dict[str, str]]:
        """What could not be read or listed, and why."""
        with self._explained():
            for source, reason in self._db.execute("SELECT source, reason FROM unlisted"):
                yield {"id": "", "source": source, "reason": reason}
            found = self._db.execute(
                f"SELECT id, {_PLACE}, reason FROM clips WHERE state = 2 ORDER BY number"
            )
            for *entry, reason in found:
                clip = _entry(*entry)
                yield {"id": clip.id, "source": clip.source, "reason": reason}

    def counts(self) -> Counts:
        with self._explained():
            (unlisted,) = self._db.execute("SELECT count(*) FROM unlisted").fetchone()
            clips, done, bad = self._db.execute(
                "SELECT count(*), coalesce(sum(state = ?), 0), coalesce(sum(state = ?), 0)"
                " FROM clips",
                (_DONE, _BAD),
            ).fetchone()
            return Counts(clips, done, bad, unlisted)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with self._explained():
            self._db.commit()
            self._db.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """One thread at a time; what SQLite and the file system say, in the words of a run."""
        try:
            with self._lock:
                yield
        except (sqlite3.Error, OSError) as error:
            advice = {
                "database is locked": "another run is at work there; wait for its end",
                "database or disk is full": "the disk is full; make room, and start it again",
                "file is not a database": f"{NAME} is damaged, or not a journal at all",
            }
            said = getattr(error, "strerror", None) or str(error)
            raise MelcapError(
                f"{self._folder} cannot hold the tokens: {advice.get(said, said)}"
            ) from error


def _place(entry: Entry) -> tuple[Any, ...]:
    """Where an entry lies, as the journal holds it: names are bytes, which need not be UTF-8."""
    path, member = os.fsencode(entry.path), os.fsencode(entry.member)
    return path, entry.offset, entry.size, member, entry.start, entry.seconds


def _entry(id: str, path: bytes, offset: int, size: int, member: bytes, *stretch: float) -> Entry:
    return Entry(id, os.fsdecode(path), offset, size, os.fsdecode(member), *stretch)
