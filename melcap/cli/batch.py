"""File after file: each is worked on, a bad one does not stop the rest, and results are printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from melcap.bulk.manifests.passed_over import in_words
from melcap.cli.exits import FAILURE, sentence
from melcap.cli.jobs import PIPE, Job
from melcap.cli.output import print_json
from melcap.cli.pipes import files_for, shown
from melcap.cli.progress import progress_bar
from melcap.errors import InputError, MelcapError

if TYPE_CHECKING:
    from melcap.transcode import Advance, Transcoded

Record = dict[str, Any]
"""The outcome for one file, as the JSON has it."""


@dataclass(frozen=True)
class BatchOptions:
    """Options of a run over files, which decide what is printed and where.

    Attributes:
        suffix: the suffix of a file that goes to stdout.
        passed: counts of what the input folders hold beside the sources, by kind.
        passes: how often the audio of a file is worked through.
        as_json: print one JSON document at the end instead of a line for each file.
        quiet: print errors only.
    """

    suffix: str
    passed: Mapping[str, int]
    as_json: bool
    quiet: bool
    passes: int = 1


def run(jobs: Sequence[Job], work: Callable[[Job, Advance], Record], options: BatchOptions) -> None:
    """Do the jobs one after the other, going on after those that fail, and report.

    Where a file goes to stdout, what is printed goes to stderr.

    Args:
        jobs: which file becomes which.
        work: does one job. It tells its second argument the seconds of audio done.
        options: what is printed, and where.

    Raises:
        InputError: a file and the JSON would both go to stdout.
        typer.Exit: with `FAILURE` where a job failed, after all of them.
    """
    to_stdout = any(job.target == PIPE for job in jobs)
    if to_stdout and options.as_json:
        raise InputError("--json and the output would both go to stdout: name a file with --out")
    done: list[Record] = []
    failed: list[Record] = []
    visible = not options.quiet
    with progress_bar(options.passes, visible=visible, to_stderr=to_stdout) as bar:
        for number, job in enumerate(jobs, start=1):
            name = job.source.name if len(jobs) == 1 else f"{number}/{len(jobs)} {job.source.name}"
            called = {"source": shown(job.source, "stdin"), "target": shown(job.target, "stdout")}
            try:
                with folder_for(job.target), files_for(job, options.suffix) as here:
                    done.append({**work(here, bar.begin(name, here.source)), **called})
            except BrokenPipeError:
                raise
            except (MelcapError, OSError, UnicodeError) as error:  # UnicodeError: an odd name
                failed.append({"source": called["source"], "error": sentence(error)})
            else:
                if not (options.as_json or options.quiet):
                    bar.say(line_of(done[-1]))
    _print_results(done, failed, options)
    for failure in failed:
        typer.echo(f"error: {failure['error']}", err=True)
    if failed and len(jobs) > 1:
        typer.echo(f"{len(failed)} of {len(jobs)} files failed", err=True)
    if failed:
        raise typer.Exit(FAILURE)


def _print_results(done: list[Record], failed: list[Record], options: BatchOptions) -> None:
    if options.as_json:
        print_json({"files": done, "failed": failed, "passed_over": dict(options.passed)})
    elif options.passed and not options.quiet:
        typer.echo(f"passed over: {in_words(options.passed)}", err=True)


@contextmanager
def folder_for(target: Path) -> Iterator[None]:
    """Make the folder of `target` for the block, and remove it again where the block fails.

    Folders that were there before stay, and so do new ones in which another job has a file.
    """
    made = [place for place in target.parents if not place.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for place in made:
            with suppress(OSError):  # another job's file is in it
                place.rmdir()
        raise


def record_of(done: Transcoded, **speeds: float) -> Record:
    """Return the record of a file, with its speeds in times real time."""
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
    """Return a record as a line of text."""
    speeds = ", ".join(
        f"{what} {record[key]:.1f}x real time"
        for what, key in (("encoded", "encode_speed"), ("decoded", "decode_speed"))
        if key in record
    )
    return (
        f"{record['source']} -> {record['target']}: {record['seconds']:.2f} s, "
        f"{record['channels']} ch, {record['sample_rate']} Hz, {record['kbps']:.2f} kbps, {speeds}"
    )
