"""Worker processes, started by spawning instead of forking, and the cores that they may use."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

SPAWN = multiprocessing.get_context("spawn")
"""The start method of worker processes. The threads of torch and BLAS do not survive a fork."""


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def executor(workers: int, *, torch_threads: int | None = None) -> Iterator[Executor]:
    """Run jobs in worker processes while the block lasts.

    At the end of the block, jobs that have begun are waited for, and the others are cancelled.

    Args:
        workers: The number of processes. With one or none, each job runs in this process, inside
            the call that submits it.
        torch_threads: The number of torch's threads in each worker process; None leaves it as it
            is. The threads of this process do not change.

    Yields:
        The executor. A job that fails raises its error in `Future.result`, in this process too. So
        code that is to stop at the first failure looks at each future after it is submitted.

    Example:
        >>> from melcap.processes import executor
        >>> with executor(workers=1) as pool:
        ...     future = pool.submit(sum, [1, 2, 3])
        >>> future.result()
        6
    """
    pool: Executor
    if workers <= 1:
        pool = _InThisProcess()
    elif torch_threads is None:
        pool = ProcessPoolExecutor(workers, SPAWN)
    else:
        pool = ProcessPoolExecutor(workers, SPAWN, _set_threads, (torch_threads,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _set_threads(count: int) -> None:
    import torch  # only here: workers that read audio do not need it

    torch.set_num_threads(count)


class _InThisProcess(Executor):
    def submit(
        self,
        fn: Callable[Arguments, Result],
        /,
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Future[Result]:
        done: Future[Result] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done
