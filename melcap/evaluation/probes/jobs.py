"""Compute results in worker processes, and keep each in a file the moment it is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from melcap.evaluation.workers import outcomes
from melcap.io.files import replacing


class Job(Protocol):
    """A result to compute. Jobs can be pickled."""

    @property
    def path(self) -> Path:
        """The file of the result. Its name depends on all that the result depends on."""
        ...

    def write(self, path: Path) -> None:
        """Compute the result and write it to a file."""
        ...


def name_of(*parts: Any) -> str:
    """Return a file name for a result that depends on these parts, which JSON can hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def compute(
    jobs: Sequence[Job], processes: int, advance: Callable[[], object] = lambda: None
) -> dict[Path, str]:
    """Do the jobs whose results are not there yet.

    Args:
        jobs: all the jobs.
        processes: the number of worker processes; 1 does the jobs in this process.
        advance: is called once for each job, whether it is done now or was done before.

    Returns:
        The reasons of the jobs that failed, by the path of the result.
    """
    wanted = {job.path: job for job in jobs}
    todo = [job for path, job in wanted.items() if not path.exists()]
    for _ in range(len(jobs) - len(todo)):
        advance()
    for folder in {path.parent for path in wanted}:
        folder.mkdir(parents=True, exist_ok=True)
    failures = {}
    for job, error in outcomes(_do, todo, processes):
        if error is not None:
            failures[job.path] = str(error) or type(error).__name__
        advance()
    return failures


def _do(job: Job) -> None:
    with replacing(job.path) as temporary:
        job.write(temporary)
