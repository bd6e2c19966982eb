"""Pipes: `-` on the command line stands for stdin, or for stdout."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from melcap.cli.jobs import PIPE, Job
from melcap.errors import InputError, MelcapError
from melcap.io.files import MAX_COPIED

_AT_ONCE = 1 << 20


@contextmanager
def files_for(job: Job, suffix: str) -> Iterator[Job]:
    """Put temporary files in the place of a job's pipes, because files are read more than once.

    The output goes to stdout when the block has ended well, so nothing half done is written.
    Errors in the block call the files <stdin> and <stdout>.

    Args:
        job: a job with `PIPE` as its source or target. A job without pipes stays as it is.
        suffix: the suffix of the file that stands for stdout.

    Yields:
        The job with files alone.

    Raises:
        InputError: stdin holds more than `MAX_COPIED`, or stdout is a terminal.
    """
    if PIPE not in (job.source, job.target):
        yield job
        return
    if job.target == PIPE and typer.get_binary_stream("stdout").isatty():
        raise InputError("stdout is a terminal: send it to a pipe or a file, or use --out FILE")
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
    """Return what results call a file: for a pipe, `name` in angle brackets."""
    return f"<{name}>" if path == PIPE else str(path)


def _take_stdin(target: Path) -> None:
    stdin, total = typer.get_binary_stream("stdin"), 0
    with target.open("xb") as file:
        while piece := stdin.read(_AT_ONCE):
            total += len(piece)
            if total > MAX_COPIED:
                raise InputError(
                    f"<stdin> holds more than {MAX_COPIED} bytes: pass the audio as a file"
                )
            file.write(piece)
