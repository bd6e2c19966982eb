"""Worker processes that are started afresh."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

SPAWN = multiprocessing.get_context("spawn")
"""How worker processes start. The threads of torch and BLAS do not survive a fork."""


@contextmanager
def executor(workers: int, *, torch_threads: int | None = None) -> Iterator[Executor]:
    """Run jobs in worker processes while the block lasts.

    Jobs that have not begun when the block ends are not done.

    Args:
        workers: the number of processes. With one worker or none, jobs run in this process, each
            when it is submitted.
        torch_threads: the number of torch's threads in each process; None leaves it alone. It does
            not change this process.

    Yields:
        The executor. The future of a job that failed raises its error, in this process too.
    """
    pool: Executor
    if workers <= 1:
        pool = _InThisProcess()
    else:
        arguments = () if torch_threads is None else (torch_threads,)
        prepare = None if torch_threads is None else _set_threads
        pool = ProcessPoolExecutor(workers, SPAWN, prepare, arguments)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _set_threads(count: int) -> None:
    import torch  # readers of audio need none

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
