"""The tables of a journal, and entries as they are stored in them."""

from __future__ import annotations

import json
import os
from typing import Any

from melcap.bulk.manifests.entries import Entry

VERSION = 3
TABLES = """
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
DONE, BAD = 1, 2
"""States of a clip; 0 is waiting. SQL that an index depends on has them as literals."""
PLACE = "path, offset, size, member, start, seconds, row_group, kept"
"""The columns that hold an entry, except for its id."""


def place_of(entry: Entry) -> tuple[Any, ...]:
    """Return the values of the columns of `PLACE` but the last; paths are bytes of any encoding."""
    return (
        os.fsencode(entry.path),
        entry.offset,
        entry.size,
        os.fsencode(entry.member),
        entry.start,
        entry.seconds,
        entry.row_group,
    )


def kept_of(entry: Entry) -> str | None:
    """Return the value of the last column of `PLACE`."""
    return json.dumps(entry.kept) if entry.kept else None


def entry_of(
    id: str,
    path: bytes,
    offset: int,
    size: int,
    member: bytes,
    start: float,
    seconds: float,
    row_group: int,
    kept: str | None,
) -> Entry:
    """Return the entry of an id and the values of the columns of `PLACE`."""
    return Entry(
        id,
        os.fsdecode(path),
        offset,
        size,
        os.fsdecode(member),
        start,
        seconds,
        row_group,
        tuple(json.loads(kept)) if kept else (),
    )
