"""Progress bars on stderr, for commands that work through files or through jobs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from melcap.errors import MelcapError

if TYPE_CHECKING:
    from melcap.evaluation.workers import Begin
    from melcap.transcode import Advance


class Bar(NamedTuple):
    """A progress bar.

    Attributes:
        begin: begins a file, given what to call it and its path; returns the file's `Advance`.
        say: prints a line of results.
    """

    begin: Callable[[str, Path], Advance]
    say: Callable[[str], None]


@contextmanager
def progress_bar(passes: int, *, visible: bool, to_stderr: bool) -> Iterator[Bar]:
    """Show a progress bar while the block runs, if stderr is a terminal.

    Args:
        passes: how often the audio of a file is worked through.
        visible: False shows no bar.
        to_stderr: print results to stderr too, because stdout carries a file.

    Yields:
        The bar.
    """
    if not (visible and sys.stderr.isatty()):
        yield Bar(lambda name, source: lambda seconds: None, partial(typer.echo, err=to_stderr))
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # With redirect_stdout, what is printed to stdout would come out of stderr.
    with progress.Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("")

        def begin(name: str, source: Path) -> Advance:
            seconds = seconds_of(source)
            bar.reset(task, description=name, total=seconds and passes * seconds)
            return lambda done: bar.advance(task, done)

        def say(text: str) -> None:
            if to_stderr or sys.stdout.isatty():  # the same terminal: print above the bar
                bar.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                typer.echo(text)

        yield Bar(begin, say)


@contextmanager
def progress_of_parts(visible: bool = True) -> Iterator[Begin]:
    """Show a progress bar on a terminal for each part of a run.

    Args:
        visible: False shows no bar.

    Yields:
        The function that begins a part, given its name and the number of its jobs. It returns the
        function to call after each job.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not (visible and console.is_terminal)) as progress:

        def begin(part: str, total: int) -> Callable[[], object]:
            task = progress.add_task(part, total=total)
            return lambda: progress.advance(task)

        yield begin


def seconds_of(path: Path) -> float | None:
    """Return the duration that a file states, or None where it states none or cannot be read.

    The command itself reports what is wrong with a file.
    """
    from melcap.audio import AudioReader
    from melcap.io.container import read_header

    with suppress(MelcapError):
        if path.suffix.lower() == ".melcap":
            header = read_header(path)
            return header.samples / header.sample_rate
        with AudioReader(path) as reader:
            return None if reader.samples is None else reader.samples / reader.sample_rate
    return None
