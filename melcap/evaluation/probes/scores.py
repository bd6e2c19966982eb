"""Compute scores of predictions, with intervals.

Clips of one voice depend on each other. The bootstrap therefore draws in two steps, class by class:
voices with replacement, then clips of each voice with replacement. There are `DRAWS` draws, and an
interval reaches from the 2.5 % to the 97.5 % point. A class with a single voice does not show how
much voices differ, so its part of an interval is too narrow. The tables state the number of voices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.evaluation.table import DRAWS

Floats = npt.NDArray[np.float64]


def draws_of(answers: npt.NDArray[np.integer[Any]], voices: Sequence[str]) -> Floats:
    """Draw clips for the bootstrap.

    Args:
        answers: the class of each clip, [clips].
        voices: the voice of each clip.

    Returns:
        How often each clip is in each draw, [1 + DRAWS, clips]. The first draw has each clip once.
    """
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
    """Count how many clips of each class are predicted as each class.

    Args:
        answers: the class of each clip, [clips].
        guesses: the predicted classes, [seeds, clips].
        times: how often each clip counts, [draws, clips].
        classes: the number of classes.

    Returns:
        Confusion matrices, [draws, seeds, true class, predicted class].
    """
    pairs = answers * classes + guesses  # [seeds, clips]
    spread = np.eye(classes**2)[pairs]
    return np.einsum("dc,scp->dsp", times, spread).reshape(len(times), -1, classes, classes)


def balanced_accuracy(table: Floats) -> Floats:
    """Return the mean over classes of the recall, from confusions [..., classes, classes]."""
    return (np.diagonal(table, axis1=-2, axis2=-1) / table.sum(-1)).mean(-1)


def macro_f1(table: Floats) -> Floats:
    """Return the mean over classes of the F1 score, from confusions [..., classes, classes]."""
    right = np.diagonal(table, axis1=-2, axis2=-1)
    return (2 * right / (table.sum(-1) + table.sum(-2))).mean(-1)


def interval(values: Floats) -> dict[str, float | None]:
    """Return a figure and its 95 % interval.

    Args:
        values: the figure and its draws, [1 + DRAWS], or the figure alone, [1]. A figure without
            draws has None for the ends of its interval.
    """
    mean = round(float(values[0]), 4)
    if len(values) == 1:
        return {"mean": mean, "low": None, "high": None}
    low, high = np.quantile(values[1:], (0.025, 0.975)).round(4).tolist()
    return {"mean": mean, "low": low, "high": high}


def rates(errors: Sequence[int], totals: Sequence[int]) -> Floats:
    """Return errors over totals, of all clips and of bootstrap draws.

    Args:
        errors: the errors in each clip.
        totals: the words of each clip.

    Returns:
        The rate of all clips, then that of each draw, [1 + DRAWS]; of a single clip [1], without
        draws.
    """
    both = np.array([errors, totals], dtype=np.float64)
    drawn = np.random.default_rng(0).integers(len(errors), size=(DRAWS, len(errors)))
    sums = both[:, drawn if len(errors) > 1 else drawn[:0]].sum(2)
    sums = np.concatenate([both.sum(1)[:, None], sums], axis=1)
    return sums[0] / sums[1]
