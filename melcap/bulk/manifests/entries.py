"""Results of a search for audio: entries, and what is refused or passed over."""

from __future__ import annotations

from dataclasses import dataclass

from melcap.bulk.files.names import media_fragment, text

Kept = tuple[str | None, ...]
"""The values of the columns that `--keep` names, in its order, as text."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A clip of the collection, and the place where its audio lies.

    Attributes:
        id: the name of the clip in the token set.
        path: the file or URL.
        offset: the first byte of a member of a tar (in the decompressed content), or the row of
            embedded audio in a Parquet file.
        size: the bytes of a member of a tar; -1 for others.
        member: the name of a member of a tar, or the column of embedded audio.
        start: the start of a stretch of that audio, in seconds.
        seconds: the length of the stretch; -1 for a stretch up to the end.
        row_group: the row group of embedded audio; -1 for others.
        kept: the values of the kept columns.
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
        """The place of the audio, as text that any file can hold."""
        place = self.path
        if self.row_group >= 0:
            place += f"#row={self.offset}"
        elif self.member:
            place += f"/{self.member}"
        return text(f"{place}{media_fragment(self.start, self.seconds)}")

    def samples(self, rate: int) -> tuple[int, int | None]:
        """Return the first sample at `rate` Hz, and the one after the last (None: the end)."""
        until = None if self.seconds < 0 else round((self.start + self.seconds) * rate)
        return round(self.start * rate), until


@dataclass(frozen=True, slots=True)
class Refused:
    """A clip that is known to be bad before its audio is opened, and the reason."""

    id: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A folder or tar, or the rest of one, that cannot be searched, and the reason."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Files of one kind that a search did not take, such as 12 files with the suffix ".txt"."""

    kind: str
    count: int = 1


Found = Entry | Refused | Unlisted | PassedOver
