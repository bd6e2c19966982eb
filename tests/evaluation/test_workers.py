"""Jobs in worker processes and in this one: each with its result or its error, as it finishes."""

from __future__ import annotations

from typing import Any

import pytest

from melcap.evaluation import workers
from melcap.evaluation.workers import outcomes
from melcap.processes import executor


def inverse(number: int) -> float:
    return 1 / number


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_failed_job_does_not_stop_the_others(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_torch(count: int, torch_threads: int) -> Any:
        """Start workers that do not import torch, which takes seconds."""
        assert (count, torch_threads) == (processes, 1)
        return executor(count)

    monkeypatch.setattr(workers, "executor", without_torch)
    found = dict(outcomes(inverse, [1, 0, 4], processes))
    assert found.keys() == {1, 0, 4}
    assert (found[1], found[4]) == (1, 0.25)
    assert isinstance(found[0], ZeroDivisionError)


def test_a_job_begins_when_the_one_before_is_yielded() -> None:
    """With one process, a result is kept before the next job begins."""
    begun: list[int] = []
    for job, _ in outcomes(begun.append, [1, 2, 3], 1):
        assert begun[-1] == job
