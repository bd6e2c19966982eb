"""`-` on the command line: stdin as a file, and a file that goes to stdout when it is complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from melcap.cli.plan import PIPE, Job
from melcap.errors import InputError, MelcapError

MAX_BYTES = 1 << 32
"""Bytes that are taken from stdin at most."""
_AT_ONCE = 1 << 20


@contextmanager
def files_for(job: Job, suffix: str) -> Iterator[Job]:
    """Give a job files in the place of pipes, as every file is read from end to end twice or more.

    What is written goes to stdout when the block ends well: nothing that is half done. Errors in
    the block name <stdin> and <stdout>.

    Args:
        job: with `PIPE` as its source or its target, or with files alone, which stay as they are.
        suffix: of the file that stands for stdout.

    Raises:
        InputError: for a stdin of more than `MAX_BYTES`, or a terminal for stdout.
    """
    if PIPE not in (job.source, job.target):
        yield job
        return
    if job.target == PIPE and typer.get_binary_stream("stdout").isatty():
        raise InputError("stdout is a terminal: send it to a pipe or a file, or say --out FILE")
    with TemporaryDirectory(prefix="melcap-") as folder:
        source, target = Path(folder, "stdin"), Path(folder, f"stdout{suffix}")
        if job.source == PIPE:
            _take_stdin(source)
        here = Job(
            source if job.source == PIPE else job.source,
            target if job.target == PIPE else job.target,
        )
        try:
            yield here
        except MelcapError as error:
            said = str(error).replace(str(source), "<stdin>").replace(str(target), "<stdout>")
            raise type(error)(said) from error
        if job.target == PIPE:
            stdout = typer.get_binary_stream("stdout")
            with target.open("rb") as file:
                shutil.copyfileobj(file, stdout, _AT_ONCE)
            stdout.flush()


def shown(path: Path, name: str) -> str:
    """Return how results call a file: `name` in angle brackets where it is a pipe."""
    return f"<{name}>" if path == PIPE else str(path)


def _take_stdin(target: Path) -> None:
    stdin, total = typer.get_binary_stream("stdin"), 0
    with target.open("xb") as file:
        while piece := stdin.read(_AT_ONCE):
            total += len(piece)
            if total > MAX_BYTES:
                raise InputError(f"<stdin> holds more than {MAX_BYTES} bytes; pass it as a file")
            file.write(piece)
