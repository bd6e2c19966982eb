"""The journal of a token set: an SQLite file that says what is to be done, done and bad.

It makes a run safe: the plan is written down first, every finished clip is in the file until the
shard that holds it has its name, and a killed run leaves a file that SQLite knows how to mend.
While a run is at work it has the file for itself.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.bulk.entry import Entry, Found
from melcap.bulk.inventory import Inventory
from melcap.bulk.planning import BAD, DONE, PLACE, Plan, entry_of
from melcap.errors import InputError, MelcapError

NAME = ".melcap-journal.sqlite"
_VERSION = 3
_AT_ONCE = 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (text TEXT);
CREATE TABLE IF NOT EXISTS shards (number INTEGER PRIMARY KEY, written INTEGER);
CREATE TABLE IF NOT EXISTS clips (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE,
    path BLOB, offset INTEGER, size INTEGER, member BLOB, start REAL, seconds REAL,
    row_group INTEGER, kept TEXT, file_size INTEGER, file_time INTEGER,
    shard INTEGER, state INTEGER DEFAULT 0, reason TEXT,
    sample_rate INTEGER, channels INTEGER, samples INTEGER, tokens BLOB);
CREATE INDEX IF NOT EXISTS by_shard ON clips (shard, number);
CREATE INDEX IF NOT EXISTS waiting ON clips (shard) WHERE state = 0;
CREATE INDEX IF NOT EXISTS bad ON clips (number) WHERE state = 2;
CREATE TABLE IF NOT EXISTS names (key TEXT PRIMARY KEY, kind TEXT, id TEXT);
CREATE TABLE IF NOT EXISTS files (
    name TEXT PRIMARY KEY, shard INTEGER, size INTEGER, time INTEGER, checksum INTEGER);
CREATE TABLE IF NOT EXISTS problems (kind TEXT, id TEXT, source TEXT, reason TEXT);
"""
_ANY_CLIP = "SELECT 1 FROM clips LIMIT 1"


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
    """Clips that were found, how many are done and how many bad; folders and tars that cannot be
    searched, of whose clips nobody knows; and clips whose source changed after they were done."""

    clips: int
    done: int
    bad: int
    unlisted: int
    changed: int


class Journal:
    """The journal of the folder; a context manager.

    `settings` decide what the rows are; those of an earlier run must be the same. `remade` counts
    the files of the token set that were lost or altered: their clips are to be done again.

    Raises:
        InputError: where they are not, or where the folder holds tokens that are not the journal's.
        MelcapError: where the folder cannot be written, is full, is at work already, or holds
            something else under the journal's name.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._own_files = settings.get("format") == "melcap"
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / NAME, timeout=1, check_same_thread=False)
            self._inventory = Inventory(folder, self._db, self._own_files)
            try:
                self.remade = self._open({"journal": _VERSION, **settings})
            except BaseException:
                self._db.close()
                raise

    def _open(self, settings: dict[str, Any]) -> int:
        # Exclusive: no second run, and no shared memory, which network file systems lack.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            self._db.execute(statement)
        self._settle(settings)
        remade = self._inventory.check()
        self._db.commit()
        return remade

    def _settle(self, settings: dict[str, Any]) -> None:
        text = json.dumps(settings)
        before = self._db.execute("SELECT text FROM settings").fetchone()
        if before is None:
            self._db.execute("INSERT INTO settings VALUES (?)", (text,))
            return
        earlier, ours = json.loads(before[0]), json.loads(text)  # a tuple comes back as a list
        differ = [name for name in ours if earlier.get(name) != ours[name]]
        if differ and "journal" not in differ and not self._db.execute(_ANY_CLIP).fetchone():
            self._db.execute("UPDATE settings SET text = ?", (text,))
        elif differ:
            made = ", ".join(f"{name} {earlier.get(name)}" for name in differ)
            asked = ", ".join(f"{name} {ours[name]}" for name in differ)
            raise InputError(
                f"{self._folder} holds tokens made with {made}, and this run has {asked}: give "
                "another --out, or the same settings"
            )

    def plan(self, found: Iterable[Found], shard_clips: int) -> Counter[str]:
        """Put down what is not in the plan yet: new clips make new shards, at the end.

        Returns what the search has passed over, by kind. What it raises leaves the plan as it was.
        """
        with self._whole_or_not():
            plan = Plan(self._db, self._own_files)
            plan.take_all(found)
            self._assign("shard IS NULL", shard_clips)
            return plan.passed

    def retry(self, shard_clips: int) -> None:
        """Do what is bad once more, in new shards: those that are written stay."""
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

    def waiting(self) -> Iterator[tuple[int, Entry]]:
        """The clips that are still to be done, in the plan's order; for any thread."""
        last = -1
        while True:
            with self._explained():
                found = self._db.execute(
                    f"SELECT number, id, {PLACE} FROM clips"
                    " WHERE state = 0 AND number > ? ORDER BY number LIMIT ?",
                    (last, _AT_ONCE),
                ).fetchall()
            if not found:
                return
            for number, *entry in found:
                yield number, entry_of(*entry)
            last = found[-1][0]

    def finish(
        self, clip: int, sample_rate: int, channels: int, samples: int, tokens: bytes
    ) -> None:
        """A clip is done: its tokens as little-endian uint16, in the order of `TokenRow`."""
        with self._explained():
            self._db.execute(
                "UPDATE clips SET state = ?, reason = NULL, sample_rate = ?, channels = ?,"
                " samples = ?, tokens = ? WHERE number = ?",
                (DONE, sample_rate, channels, samples, tokens, clip),
            )

    def fail(self, clip: int, reason: str) -> None:
        with self._explained():
            self._db.execute(
                "UPDATE clips SET state = ?, reason = ? WHERE number = ?", (BAD, reason, clip)
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
        """Give the clips of a shard that are done and not in its files, in the plan's order."""
        with self._explained():
            found = self._db.execute(
                f"SELECT number, id, {PLACE}, sample_rate, channels, samples, tokens FROM clips"
                " WHERE shard = ? AND state = ? AND tokens NOT NULL ORDER BY number",
                (shard, DONE),
            )
            for number, *entry, sample_rate, channels, samples, tokens in found:
                array = np.frombuffer(tokens, "<u2").astype(np.uint16)
                yield Finished(number, entry_of(*entry), sample_rate, channels, samples, array)

    def written(self, shard: int, files: Iterable[Path] = ()) -> None:
        """A shard has its names on disk: its tokens need not be kept here any longer."""
        with self._explained():
            self._inventory.record(shard, files)
            self._db.execute("UPDATE clips SET tokens = NULL WHERE shard = ?", (shard,))
            self._db.execute("UPDATE shards SET written = 1 WHERE number = ?", (shard,))
            self._db.commit()

    def bad(self) -> Iterator[dict[str, str]]:
        """Give what could not be read or listed, or has changed, and why."""
        with self._explained():
            for row in self._db.execute("SELECT id, source, reason FROM problems"):
                yield dict(zip(("id", "source", "reason"), row, strict=True))
            found = self._db.execute(
                f"SELECT id, {PLACE}, reason FROM clips WHERE state = 2 ORDER BY number"
            )
            for *entry, reason in found:
                clip = entry_of(*entry)
                yield {"id": clip.id, "source": clip.source, "reason": reason}

    def counts(self) -> Counts:
        with self._explained():
            problems = dict(self._db.execute("SELECT kind, count(*) FROM problems GROUP BY kind"))
            clips, done, bad = self._db.execute(
                "SELECT count(*), coalesce(sum(state = ?), 0), coalesce(sum(state = ?), 0)"
                " FROM clips",
                (DONE, BAD),
            ).fetchone()
            refused = problems.get("refused", 0)
            others = (problems.get(kind, 0) for kind in ("unlisted", "changed"))
            return Counts(clips + refused, done, bad + refused, *others)

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
