"""What the commands share: file after file, progress, results, and errors in a sentence."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from melcap.bulk.entry import in_words
from melcap.cli.pipes import files_for, shown
from melcap.cli.plan import PIPE, Job
from melcap.errors import InputError, MelcapError

if TYPE_CHECKING:
    from melcap.transcode import Transcoded

Progress = Callable[[float], None]
Record = dict[str, Any]
"""What became of one file, as it goes into the JSON."""


def run(
    jobs: Sequence[Job],
    work: Callable[[Job, Progress], Record],
    *,
    suffix: str,
    passed: Mapping[str, int],
    passes: int = 1,
    as_json: bool,
    quiet: bool,
) -> None:
    """Do the jobs, past those that fail; then report, and exit with status 1 if one failed.

    `work` does one job, in so many passes over the audio, and tells its second argument the seconds
    of audio done since it last did. `suffix` is that of a file for stdout; then what is printed
    goes to stderr. `passed` is what folders hold beside the sources.
    """
    to_stdout = any(job.target == PIPE for job in jobs)
    if to_stdout and as_json:
        raise InputError("--json and the output would both go to stdout: say --out FILE")
    done: list[Record] = []
    failed: list[Record] = []
    with _progress_bar(passes, visible=not quiet, to_stderr=to_stdout) as (begin, say):
        for number, job in enumerate(jobs, start=1):
            name = job.source.name if len(jobs) == 1 else f"{number}/{len(jobs)} {job.source.name}"
            called = {"source": shown(job.source, "stdin"), "target": shown(job.target, "stdout")}
            try:
                with folder_for(job.target), files_for(job, suffix) as here:
                    done.append({**work(here, begin(name, here.source)), **called})
            except BrokenPipeError:
                raise
            except (MelcapError, OSError, UnicodeError) as error:  # UnicodeError: an odd name
                failed.append({"source": called["source"], "error": sentence(error)})
            else:
                if not (as_json or quiet):
                    say(line_of(done[-1]))
    if as_json:
        print_json({"files": done, "failed": failed, "passed_over": dict(passed)})
    elif passed and not quiet:
        typer.echo(f"passed over: {in_words(passed)}", err=True)
    for failure in failed:
        typer.echo(f"error: {failure['error']}", err=True)
    if failed and len(jobs) > 1:
        typer.echo(f"{len(failed)} of {len(jobs)} files failed", err=True)
    if failed:
        raise typer.Exit(1)


@contextmanager
def folder_for(target: Path) -> Iterator[None]:
    """The folder of `target` exists inside the block; if that fails, no new folder stays behind."""
    made = [place for place in target.parents if not place.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for place in made:
            with suppress(OSError):  # another job's file is in it
                place.rmdir()
        raise


@contextmanager
def _progress_bar(
    passes: int, *, visible: bool, to_stderr: bool
) -> Iterator[tuple[Callable[[str, Path], Progress], Callable[[str], None]]]:
    """How to begin a file, and how to print a line of results; the bar is on a terminal only."""
    if not (visible and sys.stderr.isatty()):
        yield lambda name, source: lambda seconds: None, partial(typer.echo, err=to_stderr)
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
    # Redirected, what is printed to stdout would come out of stderr.
    with progress.Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("")

        def begin(name: str, source: Path) -> Progress:
            seconds = seconds_of(source)
            bar.reset(task, description=name, total=seconds and passes * seconds)
            return lambda done: bar.advance(task, done)

        def say(text: str) -> None:
            if to_stderr or sys.stdout.isatty():  # the same terminal: printed above the bar
                bar.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                typer.echo(text)

        yield begin, say


def seconds_of(path: Path) -> float | None:
    """How long a file says it is; None where it does not, or is going to be refused anyway."""
    from melcap.audio import AudioReader
    from melcap.io.container import read_header

    with suppress(MelcapError):
        if path.suffix.lower() == ".melcap":
            header = read_header(path)
            return header.samples / header.sample_rate
        with AudioReader(path) as reader:
            return None if reader.samples is None else reader.samples / reader.sample_rate
    return None


def record_of(done: Transcoded, **speeds: float) -> Record:
    return {
        "source": str(done.source),
        "target": str(done.target),
        "seconds": done.seconds,
        "channels": done.channels,
        "sample_rate": done.sample_rate,
        "token_bytes": done.file_bytes,
        "kbps": done.kbps,
        **speeds,
    }


def line_of(record: Record) -> str:
    speeds = ", ".join(
        f"{what} {record[key]:.1f}x real time"
        for what, key in (("encoded", "encode_speed"), ("decoded", "decode_speed"))
        if key in record
    )
    return (
        f"{record['source']} -> {record['target']}: {record['seconds']:.2f} s, "
        f"{record['channels']} ch, {record['sample_rate']} Hz, {record['kbps']:.2f} kbps, {speeds}"
    )


def print_json(data: object) -> None:
    typer.echo(json.dumps(data, indent=2, allow_nan=False))


def sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


@contextmanager
def sentences(as_json: bool = False) -> Iterator[None]:
    """End a user's mistake in one sentence on stderr and status 1, an interruption in 130.

    With `as_json` the sentence is printed as JSON to stdout too, {"error": sentence}.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # `melcap ... | head`: typer ends it in silence
    except (MelcapError, OSError) as error:
        if as_json:
            print_json({"error": sentence(error)})
        typer.echo(f"error: {sentence(error)}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from error


def prepare_process() -> None:
    """What `melcap` as a program needs, and a test that calls a command does not."""

    def end(*_: object) -> None:
        sys.exit(143)

    # A `kill` unwinds the stack, so that temporary files go away as they do on Ctrl-C.
    signal.signal(signal.SIGTERM, end)
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
