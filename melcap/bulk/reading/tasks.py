"""Tasks of the reading processes: clips that one pass over a file can read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from melcap.bulk.manifests.entries import Entry
from melcap.io.suffixes import TAR_SUFFIXES

Task = list[tuple[int, Entry]]
"""Clips, by their numbers in the plan, in the order in which one pass over a file reaches them."""

SEEKABLE = (".wav", ".w64", ".flac", ".aif", ".aiff", ".au", ".caf")
"""Formats in which a stretch can be read without decoding what lies before it."""
_MOST_CLIPS = 4096
_MOST_OF_SEEKABLE = 64  # so that several processes share a file
_OPEN_AT_ONCE = 8  # each open clip holds a window


def tasks(entries: Iterable[tuple[int, Entry]]) -> Iterator[Task]:
    """Yield neighbouring clips in groups that one pass can read.

    Such groups are stretches of one file, rows of one row group, and members of a packed tar.
    """
    task: Task = []
    ends: list[float] = []
    for number, entry in entries:
        ends = [end for end in ends if end > entry.start]
        if task and not (_follows(entry, task) and len(ends) < _OPEN_AT_ONCE):
            yield task
            task, ends = [], []
        task.append((number, entry))
        ends.append(math.inf if entry.seconds < 0 else entry.start + entry.seconds)
    if task:
        yield task


def _follows(entry: Entry, task: Task) -> bool:
    """Return whether a clip comes after the last of a task, so that the same pass reaches it."""
    last = task[-1][1]
    if (entry.path, entry.row_group) != (last.path, last.row_group) or len(task) >= _MOST_CLIPS:
        return False
    if entry.row_group >= 0:
        return entry.offset > last.offset
    lowered = entry.path.lower()
    if entry.member or last.member:
        return entry.offset > last.offset and lowered.endswith(TAR_SUFFIXES[1:])
    room = len(task) < _MOST_OF_SEEKABLE or not lowered.endswith(SEEKABLE)
    return entry.start >= last.start and room
