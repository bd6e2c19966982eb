"""Manifests, which list clips: tables, JSON, Kaldi's wav.scp and Parquet, in the forms in use.

Paths count from the manifest's folder; where a file is not there but is in the folder `clips`
beside the manifest, as in Common Voice, that one is meant. A row that is wrong costs that row.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from melcap.bulk import kaldi, lines
from melcap.bulk.embedded import parquet_rows
from melcap.bulk.entry import Found, Refused, absolute, text
from melcap.bulk.listing import PATH_COLUMNS, Manifest
from melcap.bulk.opening import READ_ERRORS, unpacked
from melcap.errors import InputError

_TEXT_FORMS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".scp")
MANIFEST_SUFFIXES = (".parquet", *_TEXT_FORMS, *(f"{form}.gz" for form in _TEXT_FORMS))
_PATIENCE = 1000
"""Rows that may be wrong at the beginning before the whole manifest is taken to be none."""


def in_manifest(path: str, keep: Sequence[str]) -> Iterator[Found]:
    """Give the clips of a manifest, with the values of the columns `keep`.

    Raises:
        InputError: where it cannot be read, has no column of paths or lacks one of `keep`, or
            lists no clip at all.
    """
    manifest = Manifest(path, keep)
    prefix = f"{text(absolute(path))}, "
    good = bad = 0
    problem = "it is empty"
    try:
        for number, row in _rows(path, manifest):
            found = manifest.clip(number, row)
            if isinstance(found, Refused):
                bad, problem = bad + 1, problem if bad else found.reason.removeprefix(prefix)
            else:
                good += 1
            yield found
            if bad == _PATIENCE and not good:
                break
    except READ_ERRORS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{text(path)} cannot be read as a manifest: {error}") from error
    if not good:
        raise InputError(f"{text(path)} lists no clip: {problem}")
    manifest.check_kept(manifest.seen)
    yield from manifest.notes()


def _rows(path: str, manifest: Manifest) -> lines.Rows:
    """Give the rows of a manifest in whatever form its name says."""
    form = os.path.splitext(path.lower().removesuffix(".gz"))[1]
    if form == ".parquet":
        manifest.unit = "row"
        yield from parquet_rows(path, (*PATH_COLUMNS, "id", "offset", "duration"), manifest)
        return
    if form == ".json":
        with unpacked(path) as file:
            form = ".array" if lines.begins_array(file) else ".jsonl"
    with unpacked(path) as file:
        if form in (".csv", ".tsv"):
            yield from lines.delimited(file, form == ".tsv", manifest.check)
        elif form == ".scp":
            manifest.check(("id", "path"))
            yield from kaldi.rows(file, os.path.join(os.path.dirname(path), "segments"))
        elif form == ".array":
            manifest.unit = "item"
            yield from lines.json_array(file)
        else:
            yield from lines.json_lines(file)
