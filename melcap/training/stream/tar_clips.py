"""The clips of a tar that is read forward, with their classes."""

from __future__ import annotations

import errno
import json
import tarfile
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import PurePosixPath
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any, NamedTuple, cast

from melcap.bulk.files.streams import Stream, check_tar_end
from melcap.errors import MelcapError
from melcap.io.suffixes import is_audio
from melcap.training.stream.shards import opened

UNLABELLED = "audio"
"""The class of clips for which nothing names one."""
_LABEL_FIELDS = ("class", "label", "cls")
_MOST_METADATA = 1 << 20


class TarClip(NamedTuple):
    """A clip of a tar.

    Attributes:
        number: the number of the clip among the audio files of the tar, from 0.
        name: the name in the tar.
        label: the class.
        audio: the content, which exists until the next clip is asked for.
        fault: the reason for which the class is unknown, or "".
    """

    number: int
    name: str
    label: str
    audio: IO[bytes]
    fault: str


def clips_in(shard: str, first: int = 0) -> Iterator[TarClip]:
    """Yield the clips of a tar from number `first` on.

    The class of a clip is the name of the folder that holds it. Where the tar has no folders, it is
    the text of KEY.cls or the field "class", "label" or "cls" of KEY.json, which stand beside
    KEY.flac as WebDataset has them; else `UNLABELLED`.

    Args:
        shard: see `shards.Shards`.
        first: the number of clips to pass over.

    Raises:
        Exception: one of `shards.TAR_ERRORS`, for a tar that cannot be opened, is damaged, ends
            early or holds no audio; for the latter two after the last clip.
    """
    with opened(shard) as stream, tarfile.open(fileobj=cast(Any, stream), mode="r:") as tar:
        number = 0
        with closing(_Sample("")) as sample:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # or it would hold them all
                if not member.isfile():
                    continue
                key = _key(member.name)
                if key != sample.key:
                    yield from sample.clips()
                    sample.begin(key)
                if not is_audio(member.name):
                    sample.describe(member, stream)
                    continue
                if number >= first:
                    sample.add(number, member, stream)
                number += 1
                if _folder(member.name):
                    yield from sample.clips()
            yield from sample.clips()
        # tarfile takes a cut between two members, and a damaged header, for the end of the tar.
        end = tar.offset
        stream.seek(end)
        if len(stream.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("the mark at the end of a tar is missing")
        check_tar_end(stream, end)
    if not number:
        raise tarfile.ReadError("it holds no audio files")


class _Sample:
    """The members with one key that have come so far: clips, and what names their class."""

    def __init__(self, key: str) -> None:
        self._waiting: deque[tuple[int, str, IO[bytes]]] = deque()
        self.begin(key)

    def begin(self, key: str) -> None:
        """Begin with the members of another key."""
        self.key = key
        self._label = self._fault = ""

    def add(self, number: int, member: tarfile.TarInfo, stream: Stream) -> None:
        """Add a clip. Its content is copied, because what names its class may come after it."""
        if member.issparse():
            raise tarfile.ReadError(f"{member.name} is a sparse file; unpack and pack the tar")
        # It has no name on disk, so nothing is left behind where a process is killed.
        copy = TemporaryFile(prefix="melcap-")  # noqa: SIM115 - `clips` or `close` closes it
        self._waiting.append((number, member.name, copy))
        stream.seek(member.offset_data)
        try:
            stream.copy(member.size, copy)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                where = f"no room in {gettempdir()} for {member.name} ({error.strerror})"
                raise MelcapError(f"{where}: make room, or set TMPDIR") from error
            raise
        copy.seek(0)

    def describe(self, member: tarfile.TarInfo, stream: Stream) -> None:
        """Take the class of the clips from a member that names it."""
        suffix = PurePosixPath(member.name).name.partition(".")[2].lower()
        if suffix not in ("cls", "json") or _folder(member.name):
            return
        stream.seek(member.offset_data)
        try:
            text = stream.read(min(member.size, _MOST_METADATA)).decode()
            label = text.strip() if suffix == "cls" else _label_of(json.loads(text))
        except (ValueError, RecursionError) as error:
            self._fault = f"{member.name} does not name its class ({error})"
        else:
            self._label = label or self._label

    def clips(self) -> Iterator[TarClip]:
        """Yield the clips that wait, and forget them."""
        while self._waiting:
            number, name, copy = self._waiting.popleft()
            with copy:
                label = _folder(name) or self._label or UNLABELLED
                yield TarClip(number, name, label, copy, self._fault)

    def close(self) -> None:
        """Forget the clips that wait."""
        while self._waiting:
            self._waiting.pop()[2].close()


def _key(name: str) -> str:
    """Return the part of a name that the members of a WebDataset sample share."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _folder(name: str) -> str:
    return PurePosixPath(name).parent.name


def _label_of(metadata: object) -> str:
    if not isinstance(metadata, dict):
        raise ValueError("it is no JSON object")
    values = (metadata[field] for field in _LABEL_FIELDS if field in metadata)
    return str(next(values, "")).strip()
