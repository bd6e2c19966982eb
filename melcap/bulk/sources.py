"""Which clips there are: files, folders, globs, manifests, tars, and all of them behind URLs."""

from __future__ import annotations

import csv
import glob
import json
import math
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from melcap.decoders import AUDIO_SUFFIXES
from melcap.errors import InputError
from melcap.extras import import_extra

_MANIFESTS = (".csv", ".jsonl", ".parquet")
_PATH_COLUMNS = ("path", "audio_filepath", "audio", "file", "filename", "wav")
INSTALL = 'pip install "melcap[bulk]"'


@dataclass(frozen=True, slots=True)
class Entry:
    """A clip to be: `id` names it in the token set, `path` is a file or URL.

    A member of a tar lies in the `size` bytes from `offset` of `path`, and is called `member`.
    A stretch of a file begins `start` seconds into it and is `seconds` long (-1: to its end).
    """

    id: str
    path: str
    offset: int = 0
    size: int = -1
    member: str = ""
    start: float = 0.0
    seconds: float = -1.0

    @property
    def source(self) -> str:
        """Where the clip comes from, as text that any file can hold."""
        place = f"{self.path}/{self.member}" if self.member else self.path
        return text(f"{place}{stretch(self.start, self.seconds)}")

    def samples(self, rate: int) -> tuple[int, int | None]:
        """The first sample of the clip in its file, and the one behind its last (None: the end)."""
        until = None if self.seconds < 0 else round((self.start + self.seconds) * rate)
        return round(self.start * rate), until


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A folder or tar, or the rest of one, that cannot be searched, and why."""

    source: str
    reason: str


def find(sources: Sequence[str], skip: str = "") -> Iterator[Entry | Unlisted]:
    """Every clip of the sources, in an order that does not change.

    A source is an audio file, a folder (searched with all below it for audio files and tars; links
    are followed, a folder is entered once), a glob (`**` for folders), a tar, a manifest (.csv,
    .jsonl or .parquet with a column path, and maybe id, offset and duration), or a URL of any of
    them that fsspec opens. Names that begin with a dot are passed over, and so is the folder
    `skip`.

    Raises:
        InputError: for a source that is not there, or a manifest that cannot be read.
    """
    for source in sources:
        if is_url(source):
            yield from _behind_url(source)
        elif os.path.isdir(source):
            yield from _in_folder(source, skip)
        elif os.path.exists(source):
            yield from _in_file(source, source, named=True)
        elif glob.has_magic(source):
            matches = sorted(glob.glob(source, recursive=True))
            if not matches:
                raise InputError(f"{source} matches no file")
            for match in matches:
                folder = os.path.isdir(match)
                yield from _in_folder(match, skip) if folder else _in_file(match, match)
        else:
            raise InputError(f"{source} does not exist")


def _in_folder(folder: str, skip: str) -> Iterator[Entry | Unlisted]:
    top = os.path.basename(os.path.realpath(folder))
    left_out = os.path.realpath(skip) if skip else None
    unlisted: list[Unlisted] = []

    def note(error: OSError) -> None:
        place = text(str(error.filename))
        unlisted.append(Unlisted(place, f"{place} cannot be searched ({error.strerror})"))

    entered: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=note, followlinks=True):
        real = os.path.realpath(place)
        if real in entered or real == left_out:  # entered: by a link
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(place, name)
            if not name.startswith(".") and _is_wanted(name):
                yield from _in_file(path, os.path.join(top, os.path.relpath(path, folder)))
    yield from unlisted


def _in_file(path: str, name: str, *, named: bool = False) -> Iterator[Entry | Unlisted]:
    """What a file holds: itself, the members of a tar, or, if it was `named`, a manifest's list."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".tar":
        yield from _in_tar(path, name)
    elif named and suffix in _MANIFESTS:
        yield from _listed(path, suffix)
    else:
        yield Entry(_id(name), _absolute(path))


def _in_tar(path: str, name: str) -> Iterator[Entry | Unlisted]:
    """The audio files in a tar without compression: only there a member can be read by itself."""
    try:
        with opened(path) as file, tarfile.open(fileobj=file, mode="r:") as shard:
            for member in shard:
                if member.isfile() and _is_wanted(member.name, (".tar",)):
                    place = (member.offset_data, member.size, member.name)
                    yield Entry(_id(f"{name}/{member.name}"), _absolute(path), *place)
                shard.members = []  # type: ignore[attr-defined]  # else it remembers them all
            # It takes a header that was cut for the end.
            if 0 < file.seek(0, os.SEEK_END) - shard.offset < tarfile.BLOCKSIZE:
                raise tarfile.ReadError("unexpected end of data")
    except (OSError, tarfile.TarError) as error:
        said = str(error).partition("\n")[0]
        reason = f"is not a tar, or a damaged one ({said}); one that is compressed must be unpacked"
        yield Unlisted(text(_absolute(path)), f"{text(path)} {reason}")


def _listed(manifest: str, suffix: str) -> Iterator[Entry]:
    """The clips of a manifest; their paths count from its folder."""
    folder = os.path.dirname(manifest)
    count = 0
    for line, row in _rows(manifest, suffix):
        column = next((name for name in _PATH_COLUMNS if row.get(name)), None)
        if column is None:
            raise InputError(
                f"{manifest}, row {line}: no path; it needs a column {', '.join(_PATH_COLUMNS)}"
            )
        given = str(row[column])
        if any("\ud800" <= letter <= "\udfff" for letter in given):
            raise InputError(f"{manifest}, row {line}: {given!a} is no name that a file can have")
        path = given if is_url(given) else os.path.join(folder, given)
        start, seconds = _stretch(row, f"{manifest}, row {line}")
        name = _id(str(row.get("id") or f"{given}{stretch(start, seconds)}"))
        yield Entry(name, _absolute(path), start=start, seconds=seconds)
        count += 1
    if not count:
        raise InputError(f"{manifest} lists no clip")


def _stretch(row: dict[str, Any], where: str) -> tuple[float, float]:
    """(start, seconds) of a manifest's row: its `duration` counts where it has an `offset`.

    Without one, a duration says how long the whole file is, and often not to the sample.
    """
    if row.get("offset") in (None, ""):
        return 0.0, -1.0
    try:
        start = float(row["offset"])
        seconds = -1.0 if row.get("duration") in (None, "") else float(row["duration"])
        if not (0 <= start < math.inf and (seconds == -1 or 0 < seconds < math.inf)):
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(
            f"{where}: offset {row['offset']!r} and duration {row.get('duration')!r} must be "
            "seconds, from 0 and above 0"
        ) from None
    return start, seconds


def stretch(start: float, seconds: float) -> str:
    """A stretch of a file as W3C's media fragments write it: #t=12.5,17.25; "" for all of it."""
    if start == 0 and seconds < 0:
        return ""
    ends = [start] if seconds < 0 else [start, start + seconds]
    return "#t=" + ",".join(f"{end:.6f}".rstrip("0").rstrip(".") for end in ends)


def _rows(manifest: str, suffix: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row of a table with its number, from 1."""
    try:
        if suffix == ".parquet":
            parquet = import_extra("pyarrow.parquet", INSTALL)
            with opened(manifest) as file:
                table = parquet.ParquetFile(file)
                wanted = ("id", "offset", "duration", *_PATH_COLUMNS)
                names = [name for name in wanted if name in table.schema.names]
                line = 0
                for batch in table.iter_batches(columns=names):
                    for row in batch.to_pylist():
                        line += 1
                        yield line, row
            return
        with opened(manifest) as file:
            lines = (
                line.decode("utf-8-sig" if not at else "utf-8") for at, line in enumerate(file)
            )
            if suffix == ".csv":
                yield from enumerate(csv.DictReader(lines, strict=True), start=1)
                return
            for number, written in enumerate(lines, start=1):
                row = json.loads(written) if written.strip() else None
                if row is not None and not isinstance(row, dict):
                    raise ValueError(f"line {number} is not an object")
                if row:
                    yield number, row
    except InputError:
        raise
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors
        raise InputError(f"{manifest} cannot be read as a manifest: {error}") from error


def _behind_url(source: str) -> Iterator[Entry | Unlisted]:
    fsspec = import_extra("fsspec", INSTALL)
    try:
        files, root = fsspec.core.url_to_fs(source)
        if glob.has_magic(root):
            found = files.glob(root)
        else:
            found = files.find(root) if files.isdir(root) else [root]
        exists = bool(found) and (found != [root] or files.exists(root))
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{source} cannot be opened: {error}") from error
    if not exists:
        raise InputError(f"{source} does not exist, or is an empty folder")
    for path in sorted(found):
        url = files.unstrip_protocol(path)
        if path == root:
            yield from _in_file(url, path, named=True)
        elif _is_wanted(path) and not os.path.basename(path).startswith("."):
            top = os.path.dirname(root.partition("*")[0].rstrip("/"))
            yield from _in_file(url, os.path.relpath(path, top))


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """A file or URL, to be read; OSError where that cannot be done."""
    if is_url(path):
        with import_extra("fsspec", INSTALL).open(path, "rb") as file:
            yield file
    else:
        with open(path, "rb") as file:
            yield file


def is_url(path: str) -> bool:
    return "://" in path


def text(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 are spelled out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_wanted(name: str, but: tuple[str, ...] = ()) -> bool:
    return name.lower().endswith(tuple({*AUDIO_SUFFIXES, ".tar"} - set(but)))


def _absolute(path: str) -> str:
    """The same from any working folder."""
    return path if is_url(path) else os.path.abspath(path)


def _id(name: str) -> str:
    """The name with forward slashes, and none that lead out of a folder."""
    parts = text(name.partition("://")[2] or name).replace(os.sep, "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))
