"""Values of a row of a manifest: ids, stretches and kept values, checked and as text."""

from __future__ import annotations

import json
from collections.abc import Iterable

from melcap.bulk.files.names import clip_id
from melcap.bulk.manifests.rows import MAX_LINE, Row

_LONGEST = 1e9  # seconds


def id_of(given: object) -> str:
    """Return the id of a clip.

    Raises:
        ValueError: if the value is not UTF-8, or nothing is left of it.
    """
    name = str(given)
    if not is_text(name):
        raise ValueError(f"its id {name[:80]!a} is not UTF-8")
    name = clip_id(name)
    if not name:
        raise ValueError(f"its id {given!r} cannot be a name")
    return name


def stretch_of(fields: Row) -> tuple[float, float]:
    """Return (start, seconds) of a row; its `duration` is used only if it has an `offset`.

    Without an offset, a duration is the length of the whole file, and often not exact.

    Args:
        fields: the values of the row, by names in lower case.

    Raises:
        ValueError: if they are not a valid stretch.
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
    what = f"offset {short(offset)} and duration {short(duration)}"
    raise ValueError(f"{what} must be seconds: the offset at least 0, the duration above 0")


def kept_value(name: str, value: object) -> str | None:
    """Return a value to keep as text; numbers, true and false are written as in JSON.

    Args:
        name: the column, for messages.
        value: the value; None stays None.

    Raises:
        ValueError: if it is of another type, too long, or not UTF-8.
    """
    if value is None:
        return None
    if not isinstance(value, str | int | float):
        raise ValueError(
            f"its {name} is {short(value)}; only text, numbers, true and false are kept"
        )
    kept = value if isinstance(value, str) else json.dumps(value)
    if len(kept) > MAX_LINE or not is_text(kept):
        raise ValueError(f"its {name} is not UTF-8, or longer than {MAX_LINE} characters")
    return kept


def is_text(given: str) -> bool:
    """Return whether UTF-8 can hold a text; decoding turned other bytes into lone surrogates."""
    return given.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in given)


def short(value: object) -> str:
    """Return a value for a message, cut to 40 characters, or the name of its type."""
    said = f"{value!r:.40}" if isinstance(value, str | int | float) else type(value).__name__
    return "missing" if value is None else said


def listed(columns: Iterable[str]) -> str:
    """Return the first 50 names of columns for a message."""
    names = [name if is_text(name) else ascii(name) for name in columns]
    return ", ".join(names[:50]) or "none"
