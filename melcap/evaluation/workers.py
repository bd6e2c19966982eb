"""Work through independent jobs in worker processes, past those that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from typing import TypeAlias, TypeVar

from melcap.processes import executor

Job = TypeVar("Job")
Result = TypeVar("Result")

Begin: TypeAlias = Callable[[str, int], Callable[[], object]]
"""Begins to show progress: given the name of a part and its number of jobs, it returns a function
that is called once for each job that is done."""


def no_progress(part: str, total: int) -> Callable[[], object]:
    """Show no progress; a `Begin`."""
    return lambda: None


def outcomes(
    run: Callable[[Job], Result], jobs: Sequence[Job], processes: int
) -> Iterator[tuple[Job, Result | Exception]]:
    """Run jobs, and yield each when it is done.

    Args:
        run: does a job; a function that can be pickled.
        jobs: what it is called with.
        processes: the number of worker processes, with one thread of torch each; 1 runs the jobs in
            this process, one after the other.

    Yields:
        The job with its result or its error. A failed job does not stop the others.
    """
    with executor(processes, torch_threads=1) as pool:
        if processes <= 1:  # each job is done when it is submitted
            for job in jobs:
                yield job, _outcome(pool.submit(run, job))
        else:
            futures = {pool.submit(run, job): job for job in jobs}
            for done in as_completed(futures):
                result = _outcome(done)
                yield futures[done], result


def _outcome(done: Future[Result]) -> Result | Exception:
    try:
        return done.result()
    except Exception as error:  # of whichever kind: the other jobs still count
        return error
