"""The journal of a token set: an SQLite file of the clips that wait, are done, or are bad.

It makes a run safe. The plan is written first. Every finished clip stays in the file until the
shard that holds it has its final name. SQLite repairs the file that a killed run leaves. A run
locks the file for itself.
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

from melcap.bulk.manifests.entries import Entry, Found
from melcap.bulk.token_sets.inventory import Inventory
from melcap.bulk.token_sets.plan import Plan
from melcap.bulk.token_sets.schema import BAD, DONE, PLACE, TABLES, VERSION, entry_of
from melcap.errors import InputError, MelcapError

NAME = ".melcap-journal.sqlite"
_AT_ONCE = 1000
_ANY_CLIP = "SELECT 1 FROM clips LIMIT 1"


@dataclass(frozen=True, eq=False)
class Finished:
    """A clip of the plan that is done, and its tokens, uint16, in the order of `TokenRow`."""

    number: int
    entry: Entry
    sample_rate: int
    channels: int
    samples: int
    tokens: npt.NDArray[np.uint16]


@dataclass(frozen=True)
class ClipCounts:
    """Counts of clips and of other things in a journal.

    Attributes:
        clips: the clips that were found.
        done: those that are done.
        bad: those that cannot be read or were refused.
        unlisted: folders and tars that cannot be searched, whose clips are not known.
        changed: clips whose source has changed since they were done.
    """

    clips: int
    done: int
    bad: int
    unlisted: int
    changed: int


class Journal:
    """The journal of a folder. It is a context manager, and its methods suit any thread.

    Args:
        folder: the folder of the token set, which is made if it is missing.
        settings: what the rows depend on; the settings of an earlier run must be the same.

    Attributes:
        remade: the number of files of the token set that were lost or altered. Their clips will be
            done again.

    Raises:
        InputError: if the settings differ, or if the folder holds tokens that are not in the
            journal.
        MelcapError: if the folder cannot be written, the disk is full, another run is at work in
            the folder, or the journal's file is something else.
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
                self.remade = self._open({"journal": VERSION, **settings})
            except BaseException:
                self._db.close()
                raise

    def _open(self, settings: dict[str, Any]) -> int:
        # Exclusive, so that there is no second run, and no need of shared memory, which network
        # file systems lack.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("BEGIN IMMEDIATE")
        for statement in TABLES.split(";"):
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
        """Add the clips that are not in the plan yet; they make new shards, at the end.

        An error leaves the plan as it was.

        Args:
            found: the results of a search.
            shard_clips: the most clips of a new shard.

        Returns:
            The counts of what the search passed over, by kind.
        """
        with self._whole_or_not():
            plan = Plan(self._db, self._own_files)
            plan.take_all(found)
            self._assign("shard IS NULL", shard_clips)
            return plan.passed

    def retry(self, shard_clips: int) -> None:
        """Let bad clips wait again, in new shards; shards that are written stay as they are."""
        with self._whole_or_not():
            self._assign("state = 2", shard_clips)

    def _assign(self, which: str, shard_clips: int) -> None:
        """Assign the clips for which an SQL condition holds to new shards."""
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
        """Yield the clips that are still to be done, with their numbers, in the plan's order."""
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
        """Record that a clip is done.

        Args:
            clip: its number.
            sample_rate: the rate of its source in Hz.
            channels: the number of its channels.
            samples: the samples of each channel.
            tokens: its tokens as little-endian uint16, in the order of `TokenRow`.
        """
        with self._explained():
            self._db.execute(
                "UPDATE clips SET state = ?, reason = NULL, sample_rate = ?, channels = ?,"
                " samples = ?, tokens = ? WHERE number = ?",
                (DONE, sample_rate, channels, samples, tokens, clip),
            )

    def fail(self, clip: int, reason: str) -> None:
        """Record that a clip is bad, and why."""
        with self._explained():
            self._db.execute(
                "UPDATE clips SET state = ?, reason = ? WHERE number = ?", (BAD, reason, clip)
            )

    def commit(self) -> None:
        """Write all records so far to the disk, so that none of them can be lost."""
        with self._explained():
            self._db.commit()

    def ready_shards(self) -> list[int]:
        """Return the shards that are not written, and of which every clip is done or bad."""
        with self._explained():
            found = self._db.execute(
                "SELECT number FROM shards WHERE NOT written AND NOT EXISTS"
                " (SELECT * FROM clips WHERE shard = shards.number AND state = 0) ORDER BY number"
            )
            return [number for (number,) in found]

    def finished(self, shard: int) -> Iterator[Finished]:
        """Yield the clips of a shard that are done and not in its files, in the plan's order."""
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
        """Record that the files of a shard are complete, and drop its tokens from the journal."""
        with self._explained():
            self._inventory.record(shard, files)
            self._db.execute("UPDATE clips SET tokens = NULL WHERE shard = ?", (shard,))
            self._db.execute("UPDATE shards SET written = 1 WHERE number = ?", (shard,))
            self._db.commit()

    def bad(self) -> Iterator[dict[str, str]]:
        """Yield the id, source and reason of what could not be read or listed, or has changed."""
        with self._explained():
            for row in self._db.execute("SELECT id, source, reason FROM problems"):
                yield dict(zip(("id", "source", "reason"), row, strict=True))
            found = self._db.execute(
                f"SELECT id, {PLACE}, reason FROM clips WHERE state = 2 ORDER BY number"
            )
            for *entry, reason in found:
                clip = entry_of(*entry)
                yield {"id": clip.id, "source": clip.source, "reason": reason}

    def counts(self) -> ClipCounts:
        """Return the counts of clips by state."""
        with self._explained():
            problems = dict(self._db.execute("SELECT kind, count(*) FROM problems GROUP BY kind"))
            clips, done, bad = self._db.execute(
                "SELECT count(*), coalesce(sum(state = ?), 0), coalesce(sum(state = ?), 0)"
                " FROM clips",
                (DONE, BAD),
            ).fetchone()
            refused = problems.get("refused", 0)
            others = (problems.get(kind, 0) for kind in ("unlisted", "changed"))
            return ClipCounts(clips + refused, done, bad + refused, *others)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with self._explained():
            self._db.commit()
            self._db.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Hold the lock, and explain errors of SQLite and of the file system."""
        try:
            with self._lock:
                yield
        except (sqlite3.Error, OSError) as error:
            advice = {
                "database is locked": "another run is at work there; wait for its end",
                "database or disk is full": "the disk is full; free some space, and start again",
                "file is not a database": f"{NAME} is damaged, or is not a journal",
            }
            said = getattr(error, "strerror", None) or str(error)
            raise MelcapError(
                f"{self._folder} cannot hold the tokens: {advice.get(said, said)}"
            ) from error
