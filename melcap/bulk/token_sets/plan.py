"""The plan of a journal: which of the clips that were found are new, known, changed or refused."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterable
from typing import Any

from melcap.bulk.files.names import file_key, is_url
from melcap.bulk.manifests.entries import Entry, Found, PassedOver, Refused, Unlisted
from melcap.bulk.token_sets.schema import DONE, PLACE, entry_of, kept_of, place_of

_SUFFIX = ".melcap"
_LONGEST_NAME, _LONGEST_PATH = 255, 3800  # bytes; the path within the folder of the tokens


class Plan:
    """Writes the results of a search into the tables of a journal.

    A clip is refused if another one has its id, or if it needs a file of its own and cannot have
    it; the others are unaffected. A bad clip that is no longer found is deleted at the end.

    Args:
        db: the database of the journal.
        own_files: whether each clip gets a file of its own.

    Attributes:
        passed: the counts of what the search passed over, by kind.
    """

    def __init__(self, db: sqlite3.Connection, own_files: bool) -> None:
        self._db = db
        self._own_files = own_files
        self._stat: tuple[str, int | None, int | None] = ("", None, None)
        self.passed: Counter[str] = Counter()
        db.execute("DELETE FROM problems")
        db.execute("CREATE TEMP TABLE IF NOT EXISTS found (number INTEGER PRIMARY KEY)")
        db.execute("DELETE FROM found")

    def take_all(self, found: Iterable[Found]) -> None:
        """Write all results of a search."""
        for each in found:
            if isinstance(each, PassedOver):
                self.passed[each.kind] += each.count
            elif isinstance(each, Unlisted):
                self._note("unlisted", "", each.source, each.reason)
            elif isinstance(each, Refused):
                self._note("refused", each.id, each.source, each.reason)
            else:
                self._take(each)
        self._db.execute(
            "DELETE FROM clips WHERE state = 2 AND number NOT IN (SELECT number FROM found)"
        )
        self._db.execute(
            "DELETE FROM names WHERE kind = 'file' AND id NOT IN (SELECT id FROM clips)"
        )

    def _take(self, entry: Entry) -> None:
        known = self._db.execute(
            f"SELECT number, state, shard, file_size, file_time, id, {PLACE},"
            " number IN (SELECT number FROM found) FROM clips WHERE id = ?",
            (entry.id,),
        ).fetchone()
        if known is None:
            self._insert(entry)
            return
        number, state, shard, size, time, *other, twice = known
        before = entry_of(*other)
        moved = _where(before) != _where(entry)
        kept = before.kept != entry.kept
        file = self._file(entry)
        if moved and (twice or (state == DONE and before.source != entry.source)):
            self._refuse(entry, _clash(entry, before))
        elif twice and kept:
            self._refuse(entry, f"{entry.source} is listed twice, with different values to keep")
        elif state == DONE and not twice and (moved or kept or file != (size, time)):
            what = "its values to keep differ" if kept else "its file has another size or time"
            self._note("changed", entry.id, entry.source, _changed(entry, what, shard))
        elif state != DONE and not twice and (moved or kept or file != (size, time)):
            self._move(number, entry, anew=moved)
        self._db.execute("INSERT OR IGNORE INTO found VALUES (?)", (number,))

    def _insert(self, entry: Entry) -> None:
        problem = self._claim(entry.id) if self._own_files else ""
        if problem:
            self._refuse(entry, problem)
            return
        cursor = self._db.execute(
            f"INSERT INTO clips (id, {PLACE}, file_size, file_time)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (entry.id, *place_of(entry), kept_of(entry), *self._file(entry)),
        )
        self._db.execute("INSERT INTO found VALUES (?)", (cursor.lastrowid,))

    def _move(self, number: int, entry: Entry, anew: bool) -> None:
        """Record the new place of a clip without tokens; with `anew`, a bad one waits again."""
        columns = ", ".join(
            f"{name} = ?" for name in (*PLACE.split(", "), "file_size", "file_time")
        )
        self._db.execute(
            f"UPDATE clips SET {columns} WHERE number = ?",
            (*place_of(entry), kept_of(entry), *self._file(entry), number),
        )
        if anew:
            self._db.execute(
                "UPDATE clips SET shard = NULL, state = 0, reason = NULL WHERE number = ?"
                " AND state = 2",
                (number,),
            )

    def _file(self, entry: Entry) -> tuple[int | None, int | None]:
        """Return the size and time of the file that holds a clip, or None for each if unknown."""
        if self._stat[0] != entry.path:
            self._stat = (entry.path, *file_of(entry.path))
        return self._stat[1:]

    def _claim(self, id: str) -> str:
        """Claim the file of a clip, and return "", or else the reason why it cannot have it."""
        *folders, last = id.split("/")
        if any(len(os.fsencode(name)) > _LONGEST_NAME for name in (*folders, last + _SUFFIX)):
            return f"{id[:80]}... has a name of more than {_LONGEST_NAME} bytes with {_SUFFIX}"
        if len(os.fsencode(id)) > _LONGEST_PATH:
            return f"{id[:80]}... is more than {_LONGEST_PATH} bytes long"
        if last.startswith(".") or "\0" in id:
            return f"{id!a} would be a hidden file, or cannot be the name of one"
        above = ["/".join(folders[:at]) for at in range(1, len(folders) + 1)]
        keys = [*((file_key(each), "folder") for each in above), (file_key(id + _SUFFIX), "file")]
        for key, kind in keys:
            found = self._db.execute("SELECT kind, id FROM names WHERE key = ?", (key,)).fetchone()
            if found and found[1] != id and "file" in (kind, found[0]):
                return f"{id} and {found[1]} would both become {key}"
        self._db.executemany(
            "INSERT OR IGNORE INTO names VALUES (?, ?, ?)", [(key, kind, id) for key, kind in keys]
        )
        return ""

    def _refuse(self, entry: Entry, reason: str) -> None:
        self._note("refused", entry.id, entry.source, reason)

    def _note(self, kind: str, id: str, source: str, reason: str) -> None:
        self._db.execute("INSERT INTO problems VALUES (?, ?, ?, ?)", (kind, id, source, reason))


def _clash(entry: Entry, other: Entry) -> str:
    if entry.source == other.source:
        return f"{entry.source} occurs more than once; the first one is taken"
    return (
        f"{other.source} and {entry.source} would both have the id {entry.id}; the first one is "
        "taken. Name them in a manifest (columns id and path), or give each folder an --out of its "
        "own"
    )


def _changed(entry: Entry, what: str, shard: int) -> str:
    return (
        f"{entry.source} has changed since its tokens were made: {what}. To make them again, "
        f"delete the files of shard {shard} in the token set, and start again"
    )


def _where(entry: Entry) -> tuple[Any, ...]:
    """Return the part of an entry's place in which two of one id must agree: all but the size."""
    path, offset, _, *rest = place_of(entry)
    return path, offset, *rest


def file_of(path: str) -> tuple[int | None, int | None]:
    """Return the size (bytes) and time (nanoseconds) of a file; None for URLs and missing files."""
    if is_url(path):
        return None, None
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return None, None
    return about.st_size, about.st_mtime_ns
