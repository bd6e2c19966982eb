"""Which clips teach and which are scored, for class and for language group, and how it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from melcap.evaluation.clips import choose_clips
from melcap.evaluation.probes.features import FeatureJob
from melcap.evaluation.probes.jobs import compute
from melcap.evaluation.probes.labels import Labelled
from melcap.evaluation.probes.probes import STEPS, ProbeJob, parameters
from melcap.evaluation.probes.scores import (
    balanced_accuracy,
    confusions,
    draws_of,
    interval,
    macro_f1,
)

Row: TypeAlias = dict[str, Any]
Begin: TypeAlias = Callable[[str, int], Callable[[], object]]

FEWEST = 5
"""Clips that a class must have on each side, else it is left out and said so."""
LABELS: dict[str, Callable[[Labelled], str]] = {
    "class": lambda item: item.kind,
    "language group": lambda item: item.group,
}


@dataclass(frozen=True)
class Task:
    """Clips to learn from and to be scored on, each with its label among `classes`."""

    name: str
    classes: tuple[str, ...]
    train: tuple[Labelled, ...]
    valid: tuple[Labelled, ...]

    def answers(self, items: Iterable[Labelled]) -> tuple[int, ...]:
        return tuple(self.classes.index(LABELS[self.name](item)) for item in items)


def tasks_of(
    train: Sequence[Labelled], valid: Sequence[Labelled], per_class: int
) -> tuple[list[Task], list[str]]:
    """The tasks that the labels allow, with at most `per_class` clips of each class on each side,
    and a sentence for each class or task that is left out."""
    tasks, notes = [], []
    for name, label in LABELS.items():
        sides = [Counter(filter(None, map(label, side))) for side in (train, valid)]
        there = sorted(sides[0] | sides[1])
        classes = tuple(c for c in there if min(side[c] for side in sides) >= FEWEST)
        notes += [
            f"{name}: {c} is left out, with {sides[0][c]} clips in TRAIN and {sides[1][c]} in VALID"
            for c in there
            if c not in classes
        ]
        if len(classes) < 2:
            notes.append(f"{name}: no probe, as fewer than two classes have {FEWEST} clips a side")
            continue
        chosen = [_choose(side, label, classes, per_class) for side in (train, valid)]
        tasks.append(Task(name, classes, *chosen))
    return tasks, notes


def probe_tasks(
    tasks: Sequence[Task],
    features: Sequence[str],
    folder: Path,
    *,
    seconds: float,
    seeds: int,
    processes: int,
    begin: Begin,
) -> tuple[list[Row], list[str]]:
    """A summary of each task, and a sentence for each clip that failed.

    A clip that one feature cannot be had of counts for none: all probes see the same clips.
    """
    items = {item.clip: item for task in tasks for item in (*task.train, *task.valid)}
    jobs = [
        FeatureJob(name, clip, seconds, folder / "features") for clip in items for name in features
    ]
    failed = compute(jobs, processes, begin("features", len(jobs)))
    broken = {job.clip for job in jobs if job.path in failed}
    failures = [
        f"{job.feature}, {job.clip.name}: {failed[job.path]}" for job in jobs if job.path in failed
    ]
    tasks = [_without(task, broken) for task in tasks]
    probes = {
        (task.name, name, probe, shuffled): _job(
            task, name, probe, shuffled, seconds, seeds, folder
        )
        for task in tasks
        for name in features
        for probe in STEPS
        for shuffled in ((False, True) if name == features[0] else (False,))
    }
    failed = compute(list(probes.values()), processes, begin("probes", len(probes)))
    failures += [f"{key}: {failed[job.path]}" for key, job in probes.items() if job.path in failed]
    done = {key: job for key, job in probes.items() if job.path not in failed}
    return [_summary(task, features, done) for task in tasks], failures


def _choose(
    items: Sequence[Labelled],
    label: Callable[[Labelled], str],
    classes: Sequence[str],
    per_class: int,
) -> tuple[Labelled, ...]:
    known = {item.clip: item for item in items if label(item) in classes}
    renamed = {replace(clip, label=label(item)): item for clip, item in known.items()}
    return tuple(renamed[clip] for clip in choose_clips(renamed, per_class))


def _without(task: Task, broken: set[Any]) -> Task:
    sides = (tuple(i for i in side if i.clip not in broken) for side in (task.train, task.valid))
    train, valid = sides
    return replace(task, train=train, valid=valid)


def _job(
    task: Task, feature: str, probe: str, shuffled: bool, seconds: float, seeds: int, folder: Path
) -> ProbeJob:
    train, valid = (
        tuple(FeatureJob(feature, item.clip, seconds, folder / "features") for item in side)
        for side in (task.train, task.valid)
    )
    labels, classes = task.answers(task.train), len(task.classes)
    return ProbeJob(
        probe, train, labels, valid, classes, seeds, folder / "probes", shuffled=shuffled
    )


def _summary(
    task: Task, features: Sequence[str], probes: dict[tuple[str, str, str, bool], ProbeJob]
) -> Row:
    answers = np.array(task.answers(task.valid))
    times = draws_of(answers, [item.voice for item in task.valid])
    lines, accuracies = [], {}
    for (name, feature, probe, shuffled), job in probes.items():
        if name != task.name:
            continue
        table = confusions(answers, job.load(), times, len(task.classes))
        accuracy, f1 = balanced_accuracy(table), macro_f1(table)
        if not shuffled:
            accuracies[feature, probe] = accuracy.mean(1)
        numbers, rows, _ = job.valid[0].load().shape
        recall = np.diagonal(table[0] / table[0].sum(-1, keepdims=True), axis1=-2, axis2=-1)
        lines.append(
            {
                "features": feature,
                "labels": "shuffled" if shuffled else "true",
                "probe": probe,
                "numbers_per_column": numbers * rows,
                "parameters": parameters(probe, (numbers, rows), len(task.classes)),
                "balanced_accuracy": interval(accuracy.mean(1)),
                "seeds_standard_deviation": round(float(accuracy[0].std()), 4),
                "macro_f1": interval(f1.mean(1)),
                "recall": dict(zip(task.classes, recall.mean(0).round(4).tolist(), strict=True)),
            }
        )
    differences = [
        {"features": f"{features[0]} - {other}", "probe": probe}
        | {"balanced_accuracy": interval(accuracies[features[0], probe] - values)}
        for (other, probe), values in accuracies.items()
        if other != features[0] and (features[0], probe) in accuracies
    ]
    sides = {"train": task.train, "valid": task.valid}
    counts = {
        side: {
            name: {
                "clips": sum(LABELS[task.name](item) == name for item in items),
                "voices": len({i.voice for i in items if LABELS[task.name](i) == name}),
            }
            for name in task.classes
        }
        for side, items in sides.items()
    }
    chance = round(1 / len(task.classes), 4)
    return {"task": task.name, "chance": chance, "classes": counts, "probes": lines} | {
        "differences": differences
    }
