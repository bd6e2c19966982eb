"""Guesses to figures with intervals.

Clips of one voice are not independent of each other, so an interval is found by drawing, class by
class, voices with replacement and then clips of each voice drawn (2000 times; the 2.5 % and 97.5 %
points). A class with a single voice cannot say how much voices differ: its part of an interval is
too narrow, and the tables give the number of voices beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

DRAWS = 2000

Floats = npt.NDArray[np.float64]


def draws_of(answers: npt.NDArray[np.integer[Any]], voices: Sequence[str]) -> Floats:
    """[1 + DRAWS, clips]: how often each clip is in each draw; in the first, all of them once."""
    random = np.random.default_rng(0)
    places: dict[int, dict[str, list[int]]] = {}
    for clip, (answer, voice) in enumerate(zip(answers.tolist(), voices, strict=True)):
        places.setdefault(answer, {}).setdefault(voice, []).append(clip)
    times = np.zeros((1 + DRAWS, len(voices)))
    times[0] = 1
    for draw in times[1:]:
        for groups in places.values():
            clips = list(groups.values())
            for voice in random.integers(len(clips), size=len(clips)):
                drawn = random.integers(len(clips[voice]), size=len(clips[voice]))
                np.add.at(draw, np.array(clips[voice])[drawn], 1)
    return times


def confusions(
    answers: npt.NDArray[np.integer[Any]],
    guesses: npt.NDArray[np.integer[Any]],
    times: Floats,
    classes: int,
) -> Floats:
    """[draws, seeds, classes, classes]: clips of the one class (first) guessed as the other."""
    pairs = answers * classes + guesses  # [seeds, clips]
    spread = np.eye(classes**2)[pairs]
    return np.einsum("dc,scp->dsp", times, spread).reshape(len(times), -1, classes, classes)


def balanced_accuracy(table: Floats) -> Floats:
    """Of [..., classes, classes]: the mean over classes of the share that is right."""
    return (np.diagonal(table, axis1=-2, axis2=-1) / table.sum(-1)).mean(-1)


def macro_f1(table: Floats) -> Floats:
    """Of [..., classes, classes]: the mean over classes of 2 right / (said + there)."""
    right = np.diagonal(table, axis1=-2, axis2=-1)
    return (2 * right / (table.sum(-1) + table.sum(-2))).mean(-1)


def interval(values: Floats) -> dict[str, float | None]:
    """Of a figure, [1], or a figure and its draws, [1 + DRAWS]: its interval is None without."""
    mean = round(float(values[0]), 4)
    if len(values) == 1:
        return {"mean": mean, "low": None, "high": None}
    low, high = np.quantile(values[1:], (0.025, 0.975)).round(4).tolist()
    return {"mean": mean, "low": low, "high": high}


def rates(errors: Sequence[int], totals: Sequence[int]) -> Floats:
    """Errors over totals, of all clips and of as many drawn with replacement: [1 + DRAWS].

    A single clip has no draws: [1].
    """
    both = np.array([errors, totals], dtype=np.float64)
    drawn = np.random.default_rng(0).integers(len(errors), size=(DRAWS, len(errors)))
    sums = both[:, drawn if len(errors) > 1 else drawn[:0]].sum(2)
    sums = np.concatenate([both.sum(1)[:, None], sums], axis=1)
    return sums[0] / sums[1]
