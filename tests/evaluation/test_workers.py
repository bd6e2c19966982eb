"""Jobs in worker processes and in this one: each with its result or its error, as it finishes."""

from __future__ import annotations

import pytest

from melcap.evaluation.workers import outcomes


def inverse(number: int) -> float:
    return 1 / number


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_failed_job_does_not_stop_the_others(processes: int) -> None:
    found = dict(outcomes(inverse, [1, 0, 4], processes))
    assert found.keys() == {1, 0, 4}
    assert (found[1], found[4]) == (1, 0.25)
    assert isinstance(found[0], ZeroDivisionError)


def test_a_job_begins_when_the_one_before_is_yielded() -> None:
    """With one process, a result is kept before the next job begins."""
    begun: list[int] = []
    for job, _ in outcomes(begun.append, [1, 2, 3], 1):
        assert begun[-1] == job
