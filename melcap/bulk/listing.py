"""Rows of a manifest made into clips: which column counts, where a path leads, what is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from melcap.bulk.embedded import Embedded
from melcap.bulk.entry import (
    Entry,
    Kept,
    PassedOver,
    Refused,
    absolute,
    clip_id,
    is_url,
    stretch,
    text,
)
from melcap.bulk.lines import MAX_LINE, Problem, Row
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
"""Names of the column of paths, or of embedded audio, in whatever case; the first counts."""
_RANK = {name: rank for rank, name in enumerate(PATH_COLUMNS)}
_LONGEST = 1e9  # seconds


class Manifest:
    """Makes clips of the rows of one manifest."""

    def __init__(self, path: str, keep: Sequence[str]) -> None:
        self.path = path
        self.keep = dict.fromkeys(keep)
        self.unit = "line"
        self.seen: dict[str, None] = {}
        """The names of fields that rows had, in order."""
        self._folder = os.path.dirname(path)
        self._both: dict[str, str] = {}

    def check(self, columns: Sequence[str]) -> None:
        """Refuse a table that lacks a column of paths, or one that is to be kept."""
        if not any(name.lower() in PATH_COLUMNS for name in columns):
            raise InputError(
                f"{text(self.path)} has no column of paths ({', '.join(PATH_COLUMNS)}); it has "
                f"{_listed(columns)}"
            )
        used = {*PATH_COLUMNS, "id", "offset", "duration", *map(str.lower, self.keep)}
        for name in columns:
            if columns.count(name) > 1 and name.lower() in used:
                raise InputError(
                    f"{text(self.path)} has several columns {name}; rename all but one"
                )
        self.check_kept(columns)

    def check_kept(self, columns: Iterable[str]) -> None:
        for name in self.keep:
            if name not in columns:
                raise InputError(
                    f"{text(self.path)} has no {name} to keep; what it has is {_listed(columns)}"
                )

    def notes(self) -> Iterator[PassedOver]:
        """Say which columns could have been the paths and were not."""
        for name, taken in self._both.items():
            yield PassedOver(f"column {name} of {text(self.path)} (taken was {taken})")

    def clip(self, number: int, row: Row | Problem) -> Entry | Refused:
        """Make a clip of a row, or say what is wrong with it."""
        name = text(f"{os.path.basename(self.path)}:{number}")
        if isinstance(row, Problem):
            return self._refuse(text(row.id) or name, number, row.what)
        names = row if len(self.seen) < 1000 else self.keep.keys() & row.keys()
        self.seen.update(dict.fromkeys(names))
        fields = {key.lower(): value for key, value in row.items()}
        own = fields.get("id")
        try:
            if own not in (None, ""):
                name = _id_of(own)
            given = self._place(row)
            start, seconds = _stretch(fields)
            kept = tuple(_kept(key, row.get(key)) for key in self.keep)
            if isinstance(given, Embedded):
                return self._embedded(given, own, start, seconds, kept)
            if own in (None, ""):
                name = _id_of(f"{given}{stretch(start, seconds)}")
            path = self._path(given)
            return Entry(name, path, start=start, seconds=seconds, kept=kept)
        except ValueError as error:
            return self._refuse(name, number, str(error))

    def _place(self, row: Row) -> str | Embedded:
        """Choose the path or the embedded audio of a row."""
        found = [each for each in row.items() if each[0].lower() in _RANK]
        found = [each for each in found if each[1] not in (None, "")]
        found.sort(key=lambda each: _RANK[each[0].lower()])
        if not found:
            raise ValueError(f"it names no file; its fields are {_listed(row)}")
        # Where audio is embedded, a path beside it is where it once was.
        key, given = next((each for each in found if isinstance(each[1], Embedded)), found[0])
        if len(found) > 1:
            self._both.update({other: key for other, _ in found if other != key})
        if isinstance(given, Embedded):
            return given
        if not isinstance(given, str):
            raise ValueError(f"its {key} is {_short(given)}, which is no path")
        if not _is_text(given) or "\0" in given:
            raise ValueError(f"its {key} {given[:80]!a} is no name that a file can have")
        return given

    def _path(self, given: str) -> str:
        if is_url(given):
            return given
        path = os.path.join(self._folder, given)
        if not is_url(path) and not os.path.exists(path):
            # Common Voice has its files in a folder, Kaldi's paths count from the working folder.
            others = (os.path.join(self._folder, "clips", given), given)
            path = next(filter(os.path.exists, others), path)
        return absolute(path)

    def _embedded(
        self, given: Embedded, own: Any, start: float, seconds: float, kept: Kept
    ) -> Entry:
        stem = os.path.splitext(os.path.basename(given.path))[0]
        name = f"{stem}-{given.row:06d}" if stem else f"{given.row:06d}"
        name = f"{self.path.removesuffix('.parquet')}/{name}{stretch(start, seconds)}"
        return Entry(
            _id_of(name if own in (None, "") else own),
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


def _id_of(given: object) -> str:
    name = str(given)
    if not _is_text(name):
        raise ValueError(f"its id {name[:80]!a} is not UTF-8")
    name = clip_id(name)
    if not name:
        raise ValueError(f"its id {given!r} names nothing")
    return name


def _stretch(fields: Row) -> tuple[float, float]:
    """Return (start, seconds) of a row: its `duration` counts where it has an `offset`.

    Without one, a duration says how long the whole file is, and often not to the sample.
    """
    offset, duration = fields.get("offset"), fields.get("duration")
    if offset in (None, ""):
        return 0.0, -1.0
    try:
        start = float(offset)
        seconds = None if duration in (None, "") else float(duration)
        if 0 <= start < _LONGEST and (seconds is None or 0 < seconds < _LONGEST):
            return start, -1.0 if seconds is None else seconds
    except (TypeError, ValueError, OverflowError):
        pass
    what = f"offset {_short(offset)} and duration {_short(duration)}"
    raise ValueError(f"{what} must be seconds, from 0 and above 0")


def _kept(name: str, value: object) -> str | None:
    """Return a value as text: numbers, true and false as JSON writes them."""
    if value is None:
        return None
    if not isinstance(value, str | int | float):
        raise ValueError(
            f"its {name} is {_short(value)}; only text, numbers, true and false are kept"
        )
    kept = value if isinstance(value, str) else json.dumps(value)
    if len(kept) > MAX_LINE or not _is_text(kept):
        raise ValueError(f"its {name} is not UTF-8, or longer than {MAX_LINE} letters")
    return kept


def _is_text(given: str) -> bool:
    """Tell whether UTF-8 can hold it: lone surrogates are what decoding made of other bytes."""
    return given.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in given)


def _short(value: object) -> str:
    said = f"{value!r:.40}" if isinstance(value, str | int | float) else type(value).__name__
    return "missing" if value is None else said


def _listed(columns: Iterable[str]) -> str:
    names = [name if _is_text(name) else ascii(name) for name in columns]
    return ", ".join(names[:50]) or "none"
