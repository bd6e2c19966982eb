"""Rows of Kaldi's wav.scp, an utterance and its file in each line, and of `segments` beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from melcap.bulk.files.names import is_url
from melcap.bulk.files.streams import Stream, unpacked
from melcap.bulk.manifests.lines import Lines
from melcap.bulk.manifests.rows import Problem, Rows


def kaldi_rows(file: Stream, segments: str) -> Rows:
    """Read the utterances of a wav.scp, or their segments if there is a file `segments`.

    An entry that is a command (it begins or ends with "|") is refused and never run.

    Args:
        file: the content of the wav.scp.
        segments: the path of the file of segments, which need not exist.
    """
    if is_url(segments) or not os.path.isfile(segments):
        yield from _recordings(file)
        return
    files: dict[str, str] = {}
    for number, row in _recordings(file):
        if isinstance(row, Problem):
            yield number, row
        else:
            files[row["id"]] = row["path"]
    with unpacked(segments) as cut:
        for number, line in _lines(cut):
            name, recording, start, end, *rest = *line.split(), "", "", "", ""
            path = files.get(recording)
            if not end or any(rest):
                what = "its line in segments is not an utterance, a recording, start and end"
                yield number, Problem(what, name)
            elif path is None:
                what = f"it is a segment of {recording}, which wav.scp does not have"
                yield number, Problem(what, name)
            else:
                yield number, {"id": name, "path": path, **_times(start, end)}


def _times(start: str, end: str) -> dict[str, object]:
    """Return the offset and duration of a segment; an end of -1 is that of the recording."""
    try:
        first, last = float(start), float(end)
    except ValueError:
        return {"offset": start, "duration": end}  # refused later, in a message with both values
    return {"offset": first, "duration": None if last == -1 else round(last - first, 6)}


def _recordings(file: Stream) -> Rows:
    for number, line in _lines(file):
        name, _, path = line.partition(" ")
        path = path.strip()
        if path.endswith("|") or path.startswith("|"):
            what = f"it is a command, and commands are not run: {path[:200]}"
            yield number, Problem(what, name)
        elif path:
            yield number, {"id": name, "path": path}
        else:
            yield number, Problem("it is not an utterance and a path", name)


def _lines(file: Stream) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, with their numbers; "" for one that is too long."""
    lines = Lines(file)
    for number, line in enumerate(lines, start=1):
        line = line.replace("\t", " ").strip()
        if lines.was_cut():
            yield number, ""
        elif line:
            yield number, line
