"""Results of a search for audio: clips, what is refused, and what is passed over."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

INSTALL = 'pip install "melcap[bulk]"'

Kept = tuple[str | None, ...]
"""The values of the columns that `--keep` names, in its order, as text."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A clip to be: `id` names it in the token set, `path` is a file or URL.

    A member of a tar lies in the `size` bytes from `offset` of `path` (of what is in it, where the
    tar is compressed), and is called `member`. Audio embedded in a Parquet file lies in row
    `offset` of the file, in the row group `row_group` and the column `member`. A stretch begins
    `start` seconds into all that, and is `seconds` long (-1: to its end).
    """

    id: str
    path: str
    offset: int = 0
    size: int = -1
    member: str = ""
    start: float = 0.0
    seconds: float = -1.0
    row_group: int = -1
    kept: Kept = ()

    @property
    def source(self) -> str:
        """Return the place that the clip comes from, as text that any file can hold."""
        place = self.path
        if self.row_group >= 0:
            place += f"#row={self.offset}"
        elif self.member:
            place += f"/{self.member}"
        return text(f"{place}{stretch(self.start, self.seconds)}")

    def samples(self, rate: int) -> tuple[int, int | None]:
        """Return the first sample of the clip, and the one behind its last (None: the end)."""
        until = None if self.seconds < 0 else round((self.start + self.seconds) * rate)
        return round(self.start * rate), until


@dataclass(frozen=True, slots=True)
class Refused:
    """A clip that is known to be bad without a look at its audio, and why."""

    id: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A folder or tar, or the rest of one, that cannot be searched, and why."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Things of one kind that a search met and did not take, such as 12 files called ".txt"."""

    kind: str
    count: int = 1


Found = Entry | Refused | Unlisted | PassedOver


def kind_of(name: str) -> str:
    """Say what a file that is passed over is called: ".txt", or "without a suffix"."""
    base = os.path.basename(name)
    if base.startswith("."):
        return "hidden files"
    suffix = os.path.splitext(base)[1].lower()
    return text(suffix) if 1 < len(suffix) <= 16 else "without a suffix"


def in_words(passed: Mapping[str, int]) -> str:
    """Put what was passed over into words, the most frequent first."""
    most = sorted(passed.items(), key=lambda each: -each[1])
    return ", ".join(f"{count} {kind}" for kind, count in most)


def stretch(start: float, seconds: float) -> str:
    """Write a stretch of a file as a W3C media fragment: #t=12.5,17.25; "" for all of it."""
    if start == 0 and seconds < 0:
        return ""
    ends = [start] if seconds < 0 else [start, start + seconds]
    return "#t=" + ",".join(f"{end:.6f}".rstrip("0").rstrip(".") for end in ends)


def is_url(path: str) -> bool:
    return "://" in path


def absolute(path: str) -> str:
    """Return a path that is the same from any working folder."""
    return path if is_url(path) else os.path.abspath(path)


def text(name: str) -> str:
    """Return a file name as text: bytes that are no UTF-8 are spelled out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def clip_id(name: str) -> str:
    """Return the name with forward slashes, and none that lead out of a folder."""
    parts = text(name.partition("://")[2] or name).replace(os.sep, "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def file_key(name: str) -> str:
    """Return one name for all that some file system takes for the same file.

    Neither case counts, nor how an accent is written.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
