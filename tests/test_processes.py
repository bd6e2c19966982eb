"""Jobs in worker processes, and the same jobs in this process.

Workers run functions of the standard library: those of this module would bring torch.
"""

from __future__ import annotations

import os
import time

import pytest
import torch

from melcap import processes
from melcap.processes import executor
from tests.forks import FORKS

PROCESS_AND_THREADS = "(__import__('os').getpid(), __import__('torch').get_num_threads())"


@pytest.mark.parametrize("workers", [0, 1])
def test_without_workers_jobs_run_in_this_process_when_submitted(workers: int) -> None:
    seen: list[int] = []
    threads = torch.get_num_threads()
    with executor(workers, torch_threads=threads + 1) as pool:
        pool.submit(seen.append, 1)
        assert seen == [1]
        assert pool.submit(eval, PROCESS_AND_THREADS).result() == (os.getpid(), threads)
        assert list(pool.map(abs, [-1, 2])) == [1, 2]


@pytest.mark.slow
def test_workers_are_other_processes_with_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SPAWN", FORKS)  # which has imported torch
    with executor(2, torch_threads=3) as pool:
        process, threads = pool.submit(eval, PROCESS_AND_THREADS).result()
    assert process != os.getpid()
    assert threads == 3


def test_workers_are_spawned() -> None:
    """A forked one would have all modules of this process."""
    with executor(2) as pool:
        assert pool.submit(eval, "'torch' in __import__('sys').modules").result() is False


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_with_the_result_and_other_jobs_go_on(workers: int) -> None:
    with executor(workers) as pool:
        bad, good = pool.submit(int, "no number"), pool.submit(abs, -3)
        with pytest.raises(ValueError, match="no number"):
            bad.result()
        assert good.result() == 3


@pytest.mark.slow
def test_jobs_that_have_not_begun_at_the_end_are_cancelled() -> None:
    with executor(2) as pool:
        futures = [pool.submit(time.sleep, 0.3) for _ in range(40)]
        futures[0].result()
    assert all(future.done() for future in futures)
    assert sum(future.cancelled() for future in futures) > 20
