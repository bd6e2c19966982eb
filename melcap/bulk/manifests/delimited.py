"""Rows of tables in text files: columns separated by commas or tabs, and lists of fairseq.

A row that cannot be read is replaced by its fault; the other rows are unaffected.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence

from melcap.bulk.files.streams import Stream
from melcap.bulk.manifests.lines import Lines, too_long
from melcap.bulk.manifests.rows import MAX_LINE, Problem, Rows

_FAIRSEQ = re.compile(r"[^\t]+\t\d+\s*")


def delimited(file: Stream, tabs: bool, check: Callable[[Sequence[str]], None]) -> Rows:
    """Read the rows of a table whose first line names its columns.

    In a table with tabs, quotes are ordinary characters; in one with commas they quote. A list of
    fairseq has no names of columns and needs none: its first line is the folder, and each other
    line a path and a number of samples.

    Args:
        file: the content of the table.
        tabs: whether tabs separate the columns, and not commas.
        check: a function that is called with the names of the columns and may refuse them.

    Raises:
        ValueError: if the first line is too long.
    """
    lines = Lines(file)
    text = iter(lines)
    header = next(text, "")
    second = next(text, "") if tabs and "\t" not in header else ""
    if _FAIRSEQ.fullmatch(second):
        check(["path"])
        yield from _fairseq(header.strip(), lines, _put_back(second, text))
        return
    reader = csv.reader(
        _put_back(header, _put_back(second, text)),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    names = [name.strip() for name in next(reader, [])]
    if lines.was_cut():
        raise ValueError(f"its first line is longer than {MAX_LINE} bytes")
    check(names)
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            lines.was_cut()
            yield first, Problem(f"it is not a row of a table ({error})")
            continue
        if cells is None:
            return
        if lines.was_cut():
            yield first, too_long()
        elif len(cells) == len(names):
            yield first, dict(zip(names, cells, strict=True))
        elif cells:
            problem = f"it has {len(cells)} cells, not the {len(names)} of the first line"
            yield first, Problem(problem)


def _fairseq(folder: str, lines: Lines, rest: Iterator[str]) -> Rows:
    for number, line in enumerate(rest, start=2):
        path, *others = line.rstrip("\r\n").split("\t")
        if lines.was_cut() or len(others) != 1:
            yield number, Problem("it is not a path and a number of samples")
        else:
            yield number, {"id": path, "path": f"{folder}/{path}"}


def _put_back(line: str, rest: Iterator[str]) -> Iterator[str]:
    if line:
        yield line
    yield from rest
