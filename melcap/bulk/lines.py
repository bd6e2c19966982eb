"""Rows of a manifest that is text: columns divided by commas or tabs, or JSON, each line bounded.

A row that cannot be read costs that row alone: what is wrong stands in its place.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from melcap.bulk.opening import Stream

MAX_LINE = 1 << 20
"""Bytes in a line; a longer one is not read."""
_CHUNK = 1 << 16
_BOM = codecs.BOM_UTF8
_FAIRSEQ = re.compile(r"[^\t]+\t\d+\s*")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault of a row, and the id that it has all the same."""

    what: str
    id: str = ""


Rows = Iterator[tuple[int, Row | Problem]]
"""The number of each row, and the row, or what is wrong with it."""


class Lines:
    """The lines of a file as text; bytes that are no UTF-8 become lone surrogates.

    Of a line that is too long only the beginning is given, and then `was_cut` says so once.
    """

    def __init__(self, file: Stream) -> None:
        self._file = file
        self._cut = False

    def was_cut(self) -> bool:
        cut, self._cut = self._cut, False
        return cut

    def __iter__(self) -> Iterator[str]:
        before = b""
        while line := self._file.readline(MAX_LINE + 1):
            if not before:
                if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise ValueError("it is UTF-16; save it as UTF-8")
                line = line.removeprefix(_BOM)
            before = line
            if len(line) > MAX_LINE:
                self._cut = True
                while len(rest := self._file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                    pass
                line = line[:80] + b"\n"
            yield line.decode("utf-8", "surrogateescape")


def delimited(file: Stream, tabs: bool, check: Callable[[Sequence[str]], None]) -> Rows:
    """Give the rows of a table whose first line names its columns; `check` is told the names.

    Between tabs quotes are letters like others; between commas they quote. A list of fairseq (the
    folder, then a path and a number of samples in each line) has no names, and needs none.
    """
    lines = Lines(file)
    text = iter(lines)
    header = next(text, "")
    second = next(text, "") if tabs and "\t" not in header else ""
    if _FAIRSEQ.fullmatch(second):
        check(["path"])
        folder = header.strip()
        for number, line in enumerate(_put_back(second, text), start=2):
            path, *rest = line.rstrip("\r\n").split("\t")
            if lines.was_cut() or len(rest) != 1:
                yield number, Problem("it is not a path and a number of samples")
            else:
                yield number, {"id": path, "path": f"{folder}/{path}"}
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
            yield first, _too_long()
        elif len(cells) == len(names):
            yield first, dict(zip(names, cells, strict=True))
        elif cells:
            yield (
                first,
                Problem(f"it has {len(cells)} cells, not the {len(names)} of the first line"),
            )


def json_lines(file: Stream) -> Rows:
    """Give the objects of a file with one in each line."""
    lines = Lines(file)
    for number, line in enumerate(lines, start=1):
        if lines.was_cut():
            yield number, _too_long()
        elif line.strip():
            try:
                yield number, _object(json.loads(line))
            except (ValueError, RecursionError) as error:
                yield number, Problem(f"it is not JSON ({error})")


def begins_array(file: Stream) -> bool:
    """Tell whether a file of JSON is one array, and not an object in each line."""
    return file.read(_CHUNK).removeprefix(_BOM).lstrip().startswith(b"[")


def json_array(file: Stream) -> Rows:
    """Give the objects of an array, one after the other.

    Raises ValueError where it is not JSON: nobody knows where the next item begins.
    """
    decoder, parse = (
        json.JSONDecoder(),
        codecs.getincrementaldecoder("utf-8-sig")("surrogateescape"),
    )
    text = parse.decode(file.read(_CHUNK))
    at, number, ended = text.index("[") + 1, 1, False
    while True:
        while at < len(text) and (text[at].isspace() or text[at] == ","):
            at += 1
        if text[at : at + 1] == "]":
            break
        try:
            item, at = decoder.raw_decode(text, at)
        except RecursionError as error:
            raise ValueError(f"item {number} is nested too deep") from error
        except ValueError as error:
            if ended or len(text) - at > MAX_LINE:
                raise ValueError(f"item {number} is not JSON, or too long ({error})") from error
            chunk = file.read(_CHUNK)
            ended = not chunk
            text, at = text[at:] + parse.decode(chunk, ended), 0
            continue
        yield number, _object(item)
        number += 1
    rest = text[at + 1 :].encode("utf-8", "surrogateescape")
    while rest:
        if rest.strip():
            raise ValueError(f"more follows behind item {number - 1}, where the array ends")
        rest = file.read(_CHUNK)


def _object(item: Any) -> Row | Problem:
    return item if isinstance(item, dict) else Problem("it is not an object with fields")


def _too_long() -> Problem:
    return Problem(f"it is longer than {MAX_LINE} bytes")


def _put_back(line: str, rest: Iterator[str]) -> Iterator[str]:
    if line:
        yield line
    yield from rest
