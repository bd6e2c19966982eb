"""Rows of a manifest in JSON: one object a line, or one array of objects."""

from __future__ import annotations

import codecs
import json
from typing import Any

from melcap.bulk.files.streams import Stream
from melcap.bulk.manifests.lines import Lines, too_long
from melcap.bulk.manifests.rows import MAX_LINE, Problem, Row, Rows

_CHUNK = 1 << 16


def json_lines(file: Stream) -> Rows:
    """Read the objects of a file with one object a line."""
    lines = Lines(file)
    for number, line in enumerate(lines, start=1):
        if lines.was_cut():
            yield number, too_long()
        elif line.strip():
            try:
                yield number, _object(json.loads(line))
            except (ValueError, RecursionError) as error:
                yield number, Problem(f"it is not JSON ({error})")


def begins_array(file: Stream) -> bool:
    """Return whether a file of JSON is one array, and not one object a line."""
    return file.read(_CHUNK).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def json_array(file: Stream) -> Rows:
    """Read the objects of an array one after the other, without holding them all.

    Raises:
        ValueError: for anything that is not JSON, because the start of the next item is then
            unknown.
    """
    decoder = json.JSONDecoder()
    parse = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
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
            raise ValueError(f"more follows after item {number - 1}, where the array ends")
        rest = file.read(_CHUNK)


def _object(item: Any) -> Row | Problem:
    return item if isinstance(item, dict) else Problem("it is not an object with fields")
