"""`python -m melcap.evaluation.scorecard DATA`: codecs on the same clips, measured, in a table.

DATA is a tar shard or a folder of audio files; a clip's class is the name of the folder it lies in.
STOI and PESQ are for the class called speech alone.
Each result is a line of OUT/scores.jsonl the moment it is there, so a run that was stopped goes on
where it was; OUT/scorecard.md and OUT/scorecard.json are made from those lines at the end.
"""

from __future__ import annotations

import datetime
import json
import math
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress

from melcap.errors import InputError, MelcapError
from melcap.evaluation import metrics, peers
from melcap.evaluation.clips import Clip, choose_clips, find_clips
from melcap.evaluation.table import MEASURES, Row, markdown, summarise

OF_SPEECH = ("stoi", "pesq")
KEY = ("codec", "identity", "source", "clip", "cut", "measures")


@dataclass(frozen=True)
class Job:
    """One codec on one clip, of which the first `seconds` count."""

    codec: str
    clip: Clip
    seconds: float

    def key(self) -> Row:
        """What a result depends on (`KEY`): all of it the same, it need not be computed again."""
        return {
            "codec": self.codec,
            "identity": peers.codec(self.codec).identity,
            "source": self.clip.source.name,
            "clip": self.clip.name,
            "cut": self.seconds,
            "measures": f"{metrics.DEFINITIONS}, visqol {_version('visqol-python')}, "
            f"pystoi {_version('pystoi')}, pesq {_version('pesq')}",
        }

    def run(self) -> Row:
        """A line of scores.jsonl; None stands for a measure that is not defined for the clip."""
        row, rate = self.key(), metrics.MEL.sample_rate
        wave = self.clip.read(self.seconds)
        start = time.perf_counter()
        decoded, size = peers.codec(self.codec).round_trip(wave, rate)
        took = time.perf_counter() - start
        row |= {"class": self.clip.kind, "seconds": len(wave) / rate, "bytes": size}
        row |= {"round_trip_seconds": took}
        for name, (_, measure) in MEASURES.items():
            if name not in OF_SPEECH or self.clip.kind == "speech":
                value = measure(wave, decoded, rate)
                row[name] = None if math.isnan(value) else value
        return row


def compute(
    jobs: Sequence[Job], path: Path, processes: int, advance: Callable[[], object] = lambda: None
) -> tuple[list[Row], list[str]]:
    """Run the jobs that have no line in `path` yet, and add their lines to it.

    Returns the rows of all jobs, in their order, and a sentence for each that failed. Calls
    `advance` once for each job done, then or before.
    """
    done = {_key(row): row for row in _read_rows(path)}
    wanted = {_key(job.key()): job for job in jobs}
    failures = []
    for _ in wanted.keys() & done.keys():
        advance()
    todo = [job for key, job in wanted.items() if key not in done]
    with path.open("a", encoding="utf-8") as file:
        for job, result in _results(todo, processes):
            if isinstance(result, Exception):
                failures.append(f"{job.codec}, {job.clip.name}: {result}")
            else:
                done[_key(result)] = result
                file.write(json.dumps(result) + "\n")
                file.flush()
            advance()
    return [done[key] for key in wanted if key in done], failures


def main(
    data: Annotated[Path, typer.Argument(exists=True, help="A tar shard, or a folder CLASS/FILE.")],
    codecs: Annotated[
        str,
        typer.Option(help=f"Separated by commas: {', '.join(peers.NAMES)}, or a weights file."),
    ] = "melcap,opus-12",
    clips_per_class: Annotated[int, typer.Option(min=1)] = 8,
    seconds: Annotated[float, typer.Option(min=1, help="At most so much of each clip.")] = 10.0,
    processes: Annotated[int, typer.Option(min=1, help="1: all in this one.")] = 2,
    out: Annotated[Path, typer.Option(help="The folder for the results.")] = Path("results"),
) -> None:
    """Measure codecs on clips; a run that was stopped goes on where it was."""
    names = list(dict.fromkeys(codecs.split(",")))
    console = Console(stderr=True)
    try:
        for name in names:
            peers.codec(name)
        for module in ("visqol", "pystoi", "pesq"):
            metrics.import_extra(module)
        clips = choose_clips(find_clips(data), clips_per_class)
        jobs = [Job(name, clip, seconds) for clip in clips for name in names]
        out.mkdir(parents=True, exist_ok=True)
        with Progress(console=console) as progress:
            task = progress.add_task("clips x codecs", total=len(jobs))
            rows, failures = compute(
                jobs, out / "scores.jsonl", processes, lambda: progress.advance(task)
            )
    except (MelcapError, OSError) as error:
        console.print(f"error: {error}", markup=False)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from error
    lines = summarise(sorted(rows, key=lambda row: names.index(row["codec"])))
    settings = {"data": data.name, "clips_per_class": clips_per_class, "seconds_at_most": seconds}
    summary = {**_machine(), **settings, "failures": failures, "table": lines}
    (out / "scorecard.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    (out / "scorecard.md").write_text(markdown(lines), encoding="utf-8")
    typer.echo(markdown(lines))
    for failure in failures:
        console.print(f"failed: {failure}", markup=False)
    if failures:
        raise typer.Exit(1)


def _results(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, Row | Exception]]:
    """Each job with its row, or the exception it ended with, as they finish."""
    # Spawned, as a forked child of a process that runs torch's threads can hang.
    workers = ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,))
    try:
        futures = {workers.submit(job.run): job for job in jobs} if processes > 1 else {}
        yield from ((futures[done], _outcome(done.result)) for done in as_completed(futures))
        yield from ((job, _outcome(job.run)) for job in jobs if not futures)
    finally:
        workers.shutdown(cancel_futures=True)


def _outcome(run: Callable[[], Row]) -> Row | Exception:
    # Whatever goes wrong with one clip, in whatever codec or measure, the others still count.
    try:
        return run()
    except Exception as error:
        return error


def _read_rows(path: Path) -> list[Row]:
    """The complete lines of the file; a line that a stopped run left unfinished is cut off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    if len(complete) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(complete))
    try:
        return [json.loads(line) for line in complete.splitlines()]
    except ValueError as error:
        raise MelcapError(f"{path} is not a file of scores ({error}); move it away") from error


def _key(row: Row) -> str:
    return json.dumps([row.get(field) for field in KEY])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _machine() -> Row:
    """When, on which processor and with which versions the figures were made."""
    packages = ("melcap", "torch", "numpy", "visqol-python", "pystoi", "pesq", "av", "soxr")
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "processor": found.group(1) if found else platform.processor() or platform.machine(),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in packages},
    }


if __name__ == "__main__":
    typer.run(main)
