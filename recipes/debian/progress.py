"""Jobs in worker processes with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, as_completed
from functools import partial
from typing import Any, TypeVar

from rich.progress import Progress, TaskID

Result = TypeVar("Result")


def run_jobs(
    pool: Executor,
    job: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    progress: Progress,
    what: str,
    sizes: Sequence[int],
) -> list[Result]:
    """Run a job with each tuple of arguments and return the results in the same order.

    Args:
        pool: Where the jobs run.
        job: A function that can be pickled.
        arguments: The arguments of each job.
        progress: The progress display.
        what: The text beside the bar.
        sizes: How far each job advances the bar.

    Raises:
        Exception: The error of the first job that fails; the jobs after it are not started.
    """
    task = progress.add_task(what, total=sum(sizes))
    futures: list[Future[Result]] = []
    for values, size in zip(arguments, sizes, strict=True):
        future = pool.submit(job, *values)
        future.add_done_callback(partial(_advance, progress, task, size))
        futures.append(future)
        stop_at_failure(future)
    for future in as_completed(futures):
        future.result()
    progress.remove_task(task)
    return [future.result() for future in futures]


def stop_at_failure(future: Future[Any]) -> None:
    """Raise the error of a job that has failed already.

    With one worker a job is done when it is submitted, so this stops before the next one.
    """
    if future.done():
        future.result()


def _advance(progress: Progress, task: TaskID, size: int, _: Future[Any]) -> None:
    progress.advance(task, size)
