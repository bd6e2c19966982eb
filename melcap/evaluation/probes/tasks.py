"""Choose the clips of each task, class and language group, and score the probes on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from melcap.evaluation.clips import Clip, choose_clips
from melcap.evaluation.probes.classifiers import STEPS, ProbeJob, parameters
from melcap.evaluation.probes.features import FeatureJob
from melcap.evaluation.probes.jobs import compute
from melcap.evaluation.probes.labels import Labelled
from melcap.evaluation.probes.scores import (
    balanced_accuracy,
    confusions,
    draws_of,
    interval,
    macro_f1,
)
from melcap.evaluation.probes.settings import Settings
from melcap.evaluation.table import Row
from melcap.evaluation.workers import Begin

FEWEST = 5
"""The fewest clips of a class on each side; a class with fewer is left out, with a note."""
LABELS: dict[str, Callable[[Labelled], str]] = {
    "class": lambda item: item.kind,
    "language group": lambda item: item.group,
}
"""The label of a clip in each task, "" for none."""


@dataclass(frozen=True)
class Task:
    """Clips to train on and clips to score, each with a label among `classes`."""

    name: str
    classes: tuple[str, ...]
    train: tuple[Labelled, ...]
    valid: tuple[Labelled, ...]

    def answers(self, items: Iterable[Labelled]) -> tuple[int, ...]:
        """Return the class of each clip, as an index into `classes`."""
        return tuple(self.classes.index(LABELS[self.name](item)) for item in items)


class Trial(NamedTuple):
    """A probe on a feature in a task."""

    task: str
    feature: str
    probe: str
    shuffled: bool


def tasks_of(
    train: Sequence[Labelled], valid: Sequence[Labelled], per_class: int
) -> tuple[list[Task], list[str]]:
    """Return the tasks that the labels allow.

    Args:
        train: the clips of TRAIN.
        valid: the clips of VALID.
        per_class: the most clips of each class on each side.

    Returns:
        The tasks, and a sentence for each class or task that is left out.
    """
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
    tasks: Sequence[Task], settings: Settings, folder: Path, begin: Begin
) -> tuple[list[Row], list[str]]:
    """Train and score all probes on all features.

    A clip without one of the features is left out of all of them, so all probes get the same clips.

    Args:
        tasks: the tasks.
        settings: the features, seconds, seeds and number of processes.
        folder: where features and predictions are kept.
        begin: shows progress.

    Returns:
        A summary of each task, and a sentence for each clip or probe that failed.
    """
    items = {item.clip: item for task in tasks for item in (*task.train, *task.valid)}
    jobs = [_feature(name, clip, settings, folder) for clip in items for name in settings.features]
    failed = compute(jobs, settings.processes, begin("features", len(jobs)))
    broken = {job.clip for job in jobs if job.path in failed}
    failures = [
        f"{job.feature}, {job.clip.name}: {failed[job.path]}" for job in jobs if job.path in failed
    ]
    tasks = [_without(task, broken) for task in tasks]
    probes = {
        trial: _probe(trial, task, settings, folder)
        for task in tasks
        for trial in _trials(task, settings)
    }
    failed = compute(list(probes.values()), settings.processes, begin("probes", len(probes)))
    failures += [
        f"{trial.probe} probe, {trial.feature}, {trial.task}: {failed[job.path]}"
        for trial, job in probes.items()
        if job.path in failed
    ]
    done = {trial: job for trial, job in probes.items() if job.path not in failed}
    return [_summary(task, settings.features, done) for task in tasks], failures


def _choose(
    items: Sequence[Labelled],
    label: Callable[[Labelled], str],
    classes: Sequence[str],
    per_class: int,
) -> tuple[Labelled, ...]:
    known = {item.clip: item for item in items if label(item) in classes}
    by_label = {replace(clip, label=label(item)): item for clip, item in known.items()}
    return tuple(by_label[clip] for clip in choose_clips(by_label, per_class))


def _without(task: Task, broken: set[Clip]) -> Task:
    train, valid = (
        tuple(item for item in side if item.clip not in broken) for side in (task.train, task.valid)
    )
    return replace(task, train=train, valid=valid)


def _trials(task: Task, settings: Settings) -> Iterable[Trial]:
    """Yield all probes on all features, and with shuffled labels on the first feature."""
    for feature in settings.features:
        for probe in STEPS:
            yield Trial(task.name, feature, probe, shuffled=False)
            if feature == settings.features[0]:
                yield Trial(task.name, feature, probe, shuffled=True)


def _feature(name: str, clip: Clip, settings: Settings, folder: Path) -> FeatureJob:
    return FeatureJob(name, clip, settings.seconds, folder / "features", settings.find_peer)


def _probe(trial: Trial, task: Task, settings: Settings, folder: Path) -> ProbeJob:
    train, valid = (
        tuple(_feature(trial.feature, item.clip, settings, folder) for item in side)
        for side in (task.train, task.valid)
    )
    return ProbeJob(
        trial.probe,
        train,
        labels=task.answers(task.train),
        valid=valid,
        classes=len(task.classes),
        seeds=settings.seeds,
        folder=folder / "probes",
        shuffled=trial.shuffled,
    )


def _summary(task: Task, features: Sequence[str], probes: dict[Trial, ProbeJob]) -> Row:
    answers = np.array(task.answers(task.valid))
    times = draws_of(answers, [item.voice for item in task.valid])
    lines, accuracies = [], {}
    for trial, job in probes.items():
        if trial.task != task.name:
            continue
        table = confusions(answers, job.load(), times, len(task.classes))
        accuracy = balanced_accuracy(table)
        if not trial.shuffled:
            accuracies[trial.feature, trial.probe] = accuracy.mean(1)
        numbers, rows, _ = job.valid[0].load().shape
        recall = np.diagonal(table[0] / table[0].sum(-1, keepdims=True), axis1=-2, axis2=-1)
        lines.append(
            {
                "features": trial.feature,
                "labels": "shuffled" if trial.shuffled else "true",
                "probe": trial.probe,
                "numbers_per_column": numbers * rows,
                "parameters": parameters(trial.probe, (numbers, rows), len(task.classes)),
                "balanced_accuracy": interval(accuracy.mean(1)),
                "seeds_standard_deviation": round(float(accuracy[0].std()), 4),
                "macro_f1": interval(macro_f1(table).mean(1)),
                "recall": dict(zip(task.classes, recall.mean(0).round(4).tolist(), strict=True)),
            }
        )
    differences = [
        {
            "features": f"{features[0]} - {other}",
            "probe": probe,
            "balanced_accuracy": interval(accuracies[features[0], probe] - values),
        }
        for (other, probe), values in accuracies.items()
        if other != features[0] and (features[0], probe) in accuracies
    ]
    return {
        "task": task.name,
        "chance": round(1 / len(task.classes), 4),
        "classes": {"train": _counts(task, task.train), "valid": _counts(task, task.valid)},
        "probes": lines,
        "differences": differences,
    }


def _counts(task: Task, items: Sequence[Labelled]) -> Row:
    """Return the numbers of clips and of voices of each class."""
    label = LABELS[task.name]
    return {
        name: {
            "clips": sum(label(item) == name for item in items),
            "voices": len({item.voice for item in items if label(item) == name}),
        }
        for name in task.classes
    }
