"""`python -m melcap.evaluation.scorecard DATA`, or `melcap evaluate DATA`: codecs, measured.

Each result is a line of OUT/scores.jsonl the moment it is there, so a run that was stopped goes on
where it was; tables and pictures are made from those lines at the end (`melcap.evaluation.report`).
The measures of speech, and the codecs made for it, are for the class called speech alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path

import torch

from melcap.errors import InputError, MelcapError
from melcap.evaluation import peers
from melcap.evaluation.clips import RATE, Clip
from melcap.evaluation.measures import metrics
from melcap.evaluation.measures.codebook import count_tokens, pack_counts
from melcap.evaluation.measures.predictor import find, fingerprint, predict, tokenizer_of
from melcap.evaluation.table import Row

KEY = ("codec", "identity", "source", "clip", "class", "cut", "measures", "predictor")


@dataclass(frozen=True)
class Job:
    """A `Job` is one codec on the first `seconds` of one clip.

    `predictor` is a file for the codec's tokenizer or another one; see `predictor.find`.
    """

    codec: str
    clip: Clip
    seconds: float
    predictor: Path | None = None

    def key(self) -> Row:
        """Return all that a result depends on, the fields of `KEY`."""
        versions = (f"{package} {package_version(package)}" for package in metrics.PACKAGES)
        return {
            "codec": self.codec,
            "identity": peers.codec(self.codec).identity,
            "source": self.clip.source.name,
            "clip": self.clip.name,
            "class": self.clip.kind,
            "cut": self.seconds,
            "measures": ", ".join((str(metrics.DEFINITIONS), *versions)),
            "predictor": fingerprint(self._predictor()),
        }

    def run(self) -> Row:
        """Return a line of scores.jsonl; None is a measure that is not defined for the clip."""
        row, codec = self.key(), peers.codec(self.codec)
        wave = self.clip.read(self.seconds)
        with _one_thread():
            start = time.perf_counter()
            coded = codec.encode(wave, RATE)
            between = time.perf_counter()
            decoded = codec.decode(coded)
            end = time.perf_counter()
        row |= {"seconds": len(wave) / RATE, "bytes": coded.size}
        if not codec.bound:
            row |= {"encode_seconds": between - start, "decode_seconds": end - between}
        if codec.codebook_size and coded.tokens is not None:
            row["codes"] = pack_counts(count_tokens(coded.tokens, codec.codebook_size))
        file = self._predictor()
        if file is not None and coded.tokens is not None:
            row |= predict(file, coded.tokens, row["seconds"])
        speech = self.clip.kind == metrics.SPEECH
        for name, value in metrics.measure(wave, decoded, RATE, speech=speech).items():
            row[name] = None if math.isnan(value) else value
        return row

    def _predictor(self) -> Path | None:
        return find(peers.codec(self.codec).tokenizer_id, self.predictor)


def jobs_for(
    names: Sequence[str], clips: Sequence[Clip], seconds: float, predictor: Path | None = None
) -> list[Job]:
    """Return every codec on every clip that it is made for.

    Raises `InputError` for a codec that is unknown, or for speech where no clip is of that class,
    for a predictor that none of the codecs has tokens for, and what `peers.codec` raises.
    """
    kinds = {clip.kind for clip in clips}
    for name in names:
        if peers.codec(name).speech_only and metrics.SPEECH not in kinds:
            raise InputError(
                f"{name} is for speech, and no clip here is of the class {metrics.SPEECH}: "
                f"there are {', '.join(sorted(kinds))}"
            )
    tokenizers = {peers.codec(name).tokenizer_id for name in names}
    if predictor is not None and tokenizer_of(predictor) not in tokenizers:
        raise InputError(f"{predictor} is for the tokens of none of these codecs")
    return [
        Job(name, clip, seconds, predictor)
        for clip in clips
        for name in names
        if clip.kind == metrics.SPEECH or not peers.codec(name).speech_only
    ]


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


def package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


if __name__ == "__main__":
    import typer

    from melcap.cli.evaluate import evaluate

    typer.run(evaluate)
