"""Columns of a manifest: which one is the path, what a row becomes, and which values are kept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from melcap.bulk.files.names import absolute, is_url, media_fragment, text
from melcap.bulk.manifests.entries import Entry, Kept, PassedOver, Refused
from melcap.bulk.manifests.rows import Embedded, Problem, Row
from melcap.bulk.manifests.values import id_of, is_text, kept_value, listed, short, stretch_of
from melcap.errors import InputError

PATH_COLUMNS = (
    "path",
    "audio_filepath",
    "audio_path",
    "wav_path",
    "file_path",
    "filepath",
    "file_name",
    "filename",
    "wav_filename",
    "audio_file",
    "file",
    "audio",
    "wav",
    "flac",
    "mp3",
    "bytes",
)
"""Names of the column of paths or of embedded audio, in any case. The first one present is used."""
_RANK = {name: rank for rank, name in enumerate(PATH_COLUMNS)}


class Manifest:
    """One manifest, whose rows become entries.

    Attributes:
        path: the file or URL.
        keep: the columns whose values are kept, in order.
        unit: the name of what is counted in messages: "line", "row" or "item".
        seen: the names of the fields that rows had, in order.
    """

    def __init__(self, path: str, keep: Sequence[str]) -> None:
        self.path = path
        self.keep = dict.fromkeys(keep)
        self.unit = "line"
        self.seen: dict[str, None] = {}
        self._folder = os.path.dirname(path)
        self._both: dict[str, str] = {}

    def check(self, columns: Sequence[str]) -> None:
        """Refuse a table that lacks a column of paths or one to keep, or has one of them twice.

        Args:
            columns: the names of the table's columns.

        Raises:
            InputError: it names the columns that there are.
        """
        if not any(name.lower() in PATH_COLUMNS for name in columns):
            raise InputError(
                f"{text(self.path)} has no column of paths ({', '.join(PATH_COLUMNS)}); it has "
                f"{listed(columns)}"
            )
        used = {*PATH_COLUMNS, "id", "offset", "duration", *map(str.lower, self.keep)}
        for name in columns:
            if columns.count(name) > 1 and name.lower() in used:
                raise InputError(
                    f"{text(self.path)} has several columns {name}; rename all but one"
                )
        self.check_kept(columns)

    def check_kept(self, columns: Iterable[str]) -> None:
        """Raise `InputError` if a column to keep is not among `columns`."""
        for name in self.keep:
            if name not in columns:
                raise InputError(
                    f"{text(self.path)} has no {name} to keep; it has {listed(columns)}"
                )

    def notes(self) -> Iterator[PassedOver]:
        """Yield the columns that could have been the paths but were not used."""
        for name, taken in self._both.items():
            yield PassedOver(f"column {name} of {text(self.path)} ({taken} was used)")

    def clip(self, number: int, row: Row | Problem) -> Entry | Refused:
        """Return the entry of a row, or its refusal with the reason.

        Args:
            number: the number of the row, for messages.
            row: the row or its fault.
        """
        name = text(f"{os.path.basename(self.path)}:{number}")
        if isinstance(row, Problem):
            return self._refuse(text(row.id) or name, number, row.what)
        names = row if len(self.seen) < 1000 else self.keep.keys() & row.keys()
        self.seen.update(dict.fromkeys(names))
        fields = {key.lower(): value for key, value in row.items()}
        own = fields.get("id")
        try:
            if own not in (None, ""):
                name = id_of(own)
            given = self._place(row)
            start, seconds = stretch_of(fields)
            kept = tuple(kept_value(key, row.get(key)) for key in self.keep)
            if isinstance(given, Embedded):
                return self._embedded(given, own, start, seconds, kept)
            if own in (None, ""):
                name = id_of(f"{given}{media_fragment(start, seconds)}")
            path = self._path(given)
            return Entry(name, path, start=start, seconds=seconds, kept=kept)
        except ValueError as error:
            return self._refuse(name, number, str(error))

    def _place(self, row: Row) -> str | Embedded:
        """Return the path or the embedded audio of a row."""
        found = [each for each in row.items() if each[0].lower() in _RANK]
        found = [each for each in found if each[1] not in (None, "")]
        found.sort(key=lambda each: _RANK[each[0].lower()])
        if not found:
            raise ValueError(f"it names no file; its fields are {listed(row)}")
        # A path beside embedded audio is the place that the audio once had.
        key, given = next((each for each in found if isinstance(each[1], Embedded)), found[0])
        if len(found) > 1:
            self._both.update({other: key for other, _ in found if other != key})
        if isinstance(given, Embedded):
            return given
        if not isinstance(given, str):
            raise ValueError(f"its {key} is {short(given)}, which is not a path")
        if not is_text(given) or "\0" in given:
            raise ValueError(f"its {key} {given[:80]!a} cannot be the name of a file")
        return given

    def _path(self, given: str) -> str:
        if is_url(given):
            return given
        path = os.path.join(self._folder, given)
        if not is_url(path) and not os.path.exists(path):
            # Common Voice has its files in a folder of their own. Kaldi's paths are relative to the
            # working folder.
            others = (os.path.join(self._folder, "clips", given), given)
            path = next(filter(os.path.exists, others), path)
        return absolute(path)

    def _embedded(
        self, given: Embedded, own: Any, start: float, seconds: float, kept: Kept
    ) -> Entry:
        stem = os.path.splitext(os.path.basename(given.path))[0]
        name = f"{stem}-{given.row:06d}" if stem else f"{given.row:06d}"
        name = f"{self.path.removesuffix('.parquet')}/{name}{media_fragment(start, seconds)}"
        return Entry(
            id_of(name if own in (None, "") else own),
            absolute(self.path),
            offset=given.row,
            member=given.column,
            row_group=given.row_group,
            start=start,
            seconds=seconds,
            kept=kept,
        )

    def _refuse(self, name: str, number: int, problem: str) -> Refused:
        place = f"{text(absolute(self.path))}, {self.unit} {number}"
        return Refused(name, place, f"{place}: {problem}")
