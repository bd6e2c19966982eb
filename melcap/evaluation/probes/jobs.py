"""Results that are kept on disk the moment they are there, made in processes of one thread each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import torch

from melcap.io.files import replacing


class Job(Protocol):
    """Something to compute, which a process of its own can be sent."""

    @property
    def path(self) -> Path:
        """Where its result is, or will be: a name made of all that the result depends on."""
        ...

    def write(self, path: Path) -> None:
        """Compute it and write it there."""
        ...


def name_of(*parts: Any) -> str:
    """A file name for a result that depends on these parts, which JSON can hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def compute(
    jobs: Sequence[Job], processes: int, advance: Callable[[], object] = lambda: None
) -> dict[Path, str]:
    """Do the jobs whose result is not there yet; the reasons of those that failed, by their path.

    Calls `advance` once for each job, done then or before.
    """
    wanted = {job.path: job for job in jobs}
    todo = [job for path, job in wanted.items() if not path.exists()]
    for _ in range(len(jobs) - len(todo)):
        advance()
    for folder in {path.parent for path in wanted}:
        folder.mkdir(parents=True, exist_ok=True)
    failures = {}
    for job, reason in _run(todo, min(processes, len(todo))):
        if reason:
            failures[job.path] = reason
        advance()
    return failures


def _run(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, str]]:
    if processes < 2:
        yield from ((job, _outcome(lambda job=job: _do(job))) for job in jobs)  # type: ignore[misc]
        return
    # Spawned, as a forked child of a process that runs torch's threads can hang.
    workers = ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,))
    try:
        futures = {workers.submit(_do, job): job for job in jobs}
        yield from ((futures[done], _outcome(done.result)) for done in as_completed(futures))
    finally:
        workers.shutdown(cancel_futures=True)


def _do(job: Job) -> None:
    with replacing(job.path) as temporary:
        job.write(temporary)


def _outcome(run: Callable[[], object]) -> str:
    # Whatever goes wrong with one clip, the others still count.
    try:
        run()
        return ""
    except Exception as error:
        return str(error) or type(error).__name__
