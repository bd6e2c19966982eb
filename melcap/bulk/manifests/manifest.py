"""Manifests, which list clips: tables, JSON, Kaldi's wav.scp and Parquet, in the usual forms.

Paths are relative to the manifest's folder. A file that is not there but in the folder `clips`
beside the manifest, as in Common Voice, is taken from there. A wrong row costs that row alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from melcap.bulk.files.names import absolute, text
from melcap.bulk.files.streams import READ_ERRORS, unpacked
from melcap.bulk.manifests.columns import PATH_COLUMNS, Manifest
from melcap.bulk.manifests.delimited import delimited
from melcap.bulk.manifests.entries import Found, Refused
from melcap.bulk.manifests.json_rows import begins_array, json_array, json_lines
from melcap.bulk.manifests.kaldi import kaldi_rows
from melcap.bulk.manifests.parquet import parquet_rows
from melcap.bulk.manifests.rows import Rows
from melcap.errors import InputError

_PATIENCE = 1000
"""Wrong rows at the beginning after which the file is taken for no manifest."""


def in_manifest(path: str, keep: Sequence[str]) -> Iterator[Found]:
    """Yield the clips of a manifest.

    Args:
        path: the file or URL.
        keep: the columns whose values are kept with each clip.

    Raises:
        InputError: if the manifest cannot be read, has no column of paths or lacks one to keep, or
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


def _rows(path: str, manifest: Manifest) -> Rows:
    """Read the rows of a manifest in the form that its suffix names."""
    form = os.path.splitext(path.lower().removesuffix(".gz"))[1]
    if form == ".parquet":
        manifest.unit = "row"
        yield from parquet_rows(path, (*PATH_COLUMNS, "id", "offset", "duration"), manifest)
        return
    if form == ".json":
        with unpacked(path) as file:
            form = ".array" if begins_array(file) else ".jsonl"
    with unpacked(path) as file:
        if form in (".csv", ".tsv"):
            yield from delimited(file, form == ".tsv", manifest.check)
        elif form == ".scp":
            manifest.check(("id", "path"))
            yield from kaldi_rows(file, os.path.join(os.path.dirname(path), "segments"))
        elif form == ".array":
            manifest.unit = "item"
            yield from json_array(file)
        else:
            yield from json_lines(file)
