"""Tar shards by file, URL or command: brace patterns, opening, and the key of a collection."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePath
from tempfile import TemporaryFile
from typing import IO, cast

from melcap.bulk.files.names import is_url
from melcap.bulk.files.streams import READ_ERRORS, Stream, unpacked
from melcap.errors import InputError
from melcap.io.files import irregular

PIPE = "pipe:"
TAR_ERRORS = (*READ_ERRORS, tarfile.TarError)
"""Errors of opening and reading a shard."""
_SECONDS_TO_END = 5.0
"""The time that a command has to end after its output has ended."""
_MOST_SAID = 2000
"""Bytes at the end of what a command wrote to stderr, of which the last line is reported."""
_GROUP = re.compile(r"(?<!\$)\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")

_running: set[int] = set()


def expand_braces(pattern: str) -> list[str]:
    """Return the names that a pattern stands for, in the order in which bash lists them.

    `{a,b}` and ranges of numbers such as `{000..127}` are expanded, also several in one pattern.
    Other braces stay as they are.

    Example:
        >>> from melcap.training.stream.shards import expand_braces
        >>> expand_braces("{music,speech}-{08..10}.tar")[:4]
        ['music-08.tar', 'music-09.tar', 'music-10.tar', 'speech-08.tar']
    """
    for group in _GROUP.finditer(pattern):
        if (bounds := _RANGE.fullmatch(group[1])) is not None:
            first, last = int(bounds[1]), int(bounds[2])
            padded = any(len(end) > 1 and end.startswith("0") for end in bounds.groups())
            width = max(map(len, bounds.groups())) if padded else 0
            step = 1 if last >= first else -1
            parts = [f"{number:0{width}}" for number in range(first, last + step, step)]
        elif "," in group[1]:
            parts = group[1].split(",")
        else:
            continue
        before, rest = pattern[: group.start()], expand_braces(pattern[group.end() :])
        return [before + part + after for part in parts for after in rest]
    return [pattern]


@dataclass(frozen=True)
class Shards:
    """The shards of a collection, without repetitions and in an order of their own.

    Attributes:
        names: paths, URLs, and commands that begin with `pipe:`.
        key: the hash of the names and sizes of files, and of URLs and commands as they are. The
            folder of a file does not matter, so a collection may be moved.
    """

    names: tuple[str, ...]
    key: str

    @classmethod
    def of(cls, patterns: Sequence[str]) -> Shards:
        """Return the shards that patterns stand for.

        Raises:
            InputError: for an empty list, and for a file that is missing, empty, or no file.
        """
        found = {
            (*_identity(name), name) for name in chain.from_iterable(map(expand_braces, patterns))
        }
        if not found:
            raise InputError("no shards to stream: give tars, as in --data 'train-{000..127}.tar'")
        ordered = sorted(found)
        identity = json.dumps([(name, size) for name, size, _ in ordered])
        key = hashlib.sha256(identity.encode()).hexdigest()[:16]
        return cls(tuple(name for *_, name in ordered), key)


def _identity(shard: str) -> tuple[str, int]:
    """Return what identifies a shard: a file's name and size, and any other shard as it is."""
    if not is_local(shard):
        return shard, -1
    if what := irregular(shard):
        raise InputError(f"{shard} is {what}, not a tar: give the shards themselves")
    try:
        size = os.stat(shard).st_size
    except OSError as error:
        raise InputError(f"{shard} cannot be read: {error.strerror}") from error
    if not size:
        raise InputError(f"{shard} is empty: it is no tar; remove it from --data")
    return PurePath(shard).name, size


def is_local(shard: str) -> bool:
    """Return whether a shard is a file on this machine."""
    return not shard.startswith(PIPE) and not is_url(shard)


@contextmanager
def opened(shard: str) -> Iterator[Stream]:
    """Open a shard for reading forward. Files and URLs are decompressed if their suffix says so.

    Raises:
        Exception: one of `TAR_ERRORS`, also at the end of the block where a command failed.
    """
    if shard.startswith(PIPE):
        with _output(shard.removeprefix(PIPE)) as stream:
            yield stream
    else:
        with unpacked(shard) as stream:
            yield stream


@contextmanager
def _output(command: str) -> Iterator[Stream]:
    """Yield what a shell command writes to stdout; refuse the command if it fails."""
    with TemporaryFile(prefix="melcap-") as said:
        # In a session of its own, Ctrl-C in the terminal does not end it.
        process = subprocess.Popen(
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        )
        _running.add(process.pid)
        output = cast("IO[bytes]", process.stdout)
        try:
            try:
                yield Stream(output)
                while output.read(1 << 20):
                    pass
            except TAR_ERRORS as error:
                # An output that is cut is the fault of a command that failed.
                raise OSError(_failure(process, said) or str(error)) from error
            if failure := _failure(process, said):
                raise OSError(failure)
        finally:
            output.close()
            _running.discard(process.pid)
            if process.returncode is None:
                _kill(process.pid)
                process.wait()


def _failure(process: subprocess.Popen[bytes], said: IO[bytes]) -> str:
    """Return how a command failed, with the last line that it wrote to stderr, or ""."""
    try:
        status = process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        return ""
    said.seek(max(0, said.seek(0, os.SEEK_END) - _MOST_SAID))
    lines = said.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it wrote no error")
    return f"its command failed with status {status}: {last}" if status else ""


def kill_commands() -> None:
    """Kill the commands that this process is reading from."""
    for process in list(_running):
        _kill(process)


def _kill(process: int) -> None:
    with suppress(OSError):  # it has ended
        os.killpg(process, signal.SIGKILL)
