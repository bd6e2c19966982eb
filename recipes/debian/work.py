"""Jobs in processes of their own, with a bar that shows how far they are."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar

from rich.progress import Progress, TaskID

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class _Here(Executor):
    """One after another, in this process."""

    def submit(
        self,
        fn: Callable[Arguments, Result],
        /,
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Future[Result]:
        done: Future[Result] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@contextmanager
def executor(workers: int) -> Iterator[Executor]:
    """So many processes; with one worker, none. What has not begun by the end is not done."""
    # Spawned, not forked: torch's and BLAS's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context) if workers > 1 else _Here()
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def run(
    pool: Executor,
    job: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    progress: Progress,
    what: str,
    sizes: Sequence[int] | None = None,
) -> list[Result]:
    """The results of a job with each tuple of arguments, in that order; `sizes` are for the bar."""
    sizes = sizes or [1] * len(arguments)
    task = progress.add_task(what, total=sum(sizes))
    futures: list[Future[Result]] = []
    for values, size in zip(arguments, sizes, strict=True):
        future = pool.submit(job, *values)
        future.add_done_callback(partial(_advance, progress, task, size))
        futures.append(future)
    for future in as_completed(futures):
        future.result()  # the first failure ends it
    progress.remove_task(task)
    return [future.result() for future in futures]


def _advance(progress: Progress, task: TaskID, size: int, _: Future[Any]) -> None:
    progress.advance(task, size)
