"""Train small classifiers on frozen features; these are the probes.

There are two, a linear and a convolutional one, and each is trained in the same way on every
feature. Steps, rates and sizes were chosen before any clip of VALID was scored, and none is fitted
to it. Features are normalised, number by number, by mean and deviation over the clips of TRAIN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from melcap.errors import InputError
from melcap.evaluation.probes.features import FeatureJob, Features
from melcap.evaluation.probes.jobs import name_of

DEFINITIONS = 1
"""Raise it when a classifier or its training changes, so that old and new results never mix."""
WINDOW = {"linear": 1, "convolutional": 64}
"""Columns in an input of each probe: 3 s for the convolutional one. The linear one gets a single
column, into which the clip is pooled."""
STEPS = {"linear": 500, "convolutional": 300}
LEARNING_RATE = {"linear": 1e-2, "convolutional": 1e-3}
BATCH = 32


@dataclass(frozen=True)
class ProbeJob:
    """A probe to train on a feature once for each seed, and to run on each clip of VALID.

    Attributes:
        probe: "linear" or "convolutional".
        train: the features of the clips of TRAIN.
        labels: their classes.
        valid: the features of the clips of VALID.
        classes: the number of classes.
        seeds: how often the probe is trained.
        folder: where the result is kept.
        shuffled: permute the labels, so that there is nothing to learn.
    """

    probe: str
    train: tuple[FeatureJob, ...]
    labels: tuple[int, ...]
    valid: tuple[FeatureJob, ...]
    classes: int
    seeds: int
    folder: Path
    shuffled: bool = False

    @property
    def path(self) -> Path:
        """Return the path of the predictions."""
        clips = [[job.feature, job.path.name] for job in (*self.train, *self.valid)]
        budget = (STEPS[self.probe], LEARNING_RATE[self.probe])
        settings = (self.labels, self.classes, self.seeds, self.shuffled)
        return self.folder / f"{name_of(DEFINITIONS, self.probe, budget, clips, settings)}.npy"

    def write(self, path: Path) -> None:
        """Train, predict, and write the predictions to a file."""
        train, valid = ([job.load() for job in jobs] for jobs in (self.train, self.valid))
        labels = np.array(self.labels)
        guesses = []
        for seed in range(self.seeds):
            order = np.random.default_rng(seed).permutation(len(labels))
            taken = labels[order] if self.shuffled else labels
            guesses.append(predict(self.probe, train, taken, valid, self.classes, seed))
        np.save(path, np.stack(guesses))

    def load(self) -> npt.NDArray[np.int64]:
        """Read the predicted classes, [seeds, clips].

        Raises:
            InputError: for a damaged file.
        """
        try:
            return np.load(self.path)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{self.path} is damaged ({error}): delete it") from error


def predict(
    probe: str,
    train: Sequence[Features],
    labels: npt.NDArray[np.integer],
    valid: Sequence[Features],
    classes: int,
    seed: int,
) -> npt.NDArray[np.int64]:
    """Train a probe on clips with their labels, and predict the classes of other clips.

    The inputs of the linear probe are the mean and the standard deviation of each number over a
    clip's columns. Those of the convolutional probe are windows of 64 columns, over which logits
    are averaged. Both minimise cross-entropy, in which all classes have the same weight, by AdamW
    with a cosine schedule.

    Args:
        probe: "linear" or "convolutional".
        train: features of clips, [numbers, rows, columns] each.
        labels: their classes, [clips].
        valid: features of the clips to predict.
        classes: the number of classes.
        seed: the seed of weights, order and windows.

    Returns:
        The predicted classes, [clips].
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = _pooled if probe == "linear" else _flat
    learning, scored = ([inputs(clip) for clip in clips] for clips in (train, valid))
    together = torch.cat(learning, -1)
    mean, std = together.mean(-1, keepdim=True), together.std(-1, keepdim=True)
    scale = torch.where(std > 1e-4, 1 / std.clamp(min=1e-4), 0)  # a constant has no information
    learning, scored = ([(clip - mean) * scale for clip in clips] for clips in (learning, scored))
    answers = torch.from_numpy(labels.astype(np.int64))
    count = torch.bincount(answers, minlength=classes).clamp(min=1)
    loss = nn.CrossEntropyLoss(weight=len(answers) / (classes * count))
    with torch.random.fork_rng(devices=[]):  # weights and dropout are drawn from it
        torch.manual_seed(seed)
        network = build(probe, len(mean), classes)
        _fit(network, learning, answers, loss, probe, generator)
    with torch.no_grad():
        logits = torch.stack([network(_windows(clip, WINDOW[probe])).mean(0) for clip in scored])
    return logits.argmax(1).numpy()


def build(probe: str, numbers: int, classes: int) -> nn.Module:
    """Return the untrained network of a probe, for inputs [batch, numbers, columns]."""
    if probe == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(numbers, classes))
    return nn.Sequential(
        nn.Conv1d(numbers, 64, 1),
        nn.GELU(),
        nn.Conv1d(64, 64, 5, stride=2),
        nn.GELU(),
        nn.Conv1d(64, 64, 5, stride=2),
        nn.GELU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(64, classes),
    )


def parameters(probe: str, shape: tuple[int, int], classes: int) -> int:
    """Return the number of a probe's parameters, for features with (numbers, rows) in a column."""
    numbers = shape[0] * shape[1] * (2 if probe == "linear" else 1)
    return sum(weight.numel() for weight in build(probe, numbers, classes).parameters())


def _fit(
    network: nn.Module,
    clips: Sequence[Tensor],
    answers: Tensor,
    loss: nn.Module,
    probe: str,
    generator: torch.Generator,
) -> None:
    rate = LEARNING_RATE[probe]
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS[probe])
    order = torch.tensor([], dtype=torch.long)
    for _ in range(STEPS[probe]):
        if len(order) < BATCH:
            order = torch.cat((order, torch.randperm(len(clips), generator=generator)))
        batch, order = order[:BATCH], order[BATCH:]
        crops = torch.stack(
            [_crop(clips[index], WINDOW[probe], generator) for index in batch.tolist()]
        )
        optimiser.zero_grad()
        loss(network(crops), answers[batch]).backward()
        optimiser.step()
        schedule.step()
    network.eval()


def _pooled(clip: Features) -> Tensor:
    """Pool [numbers, rows, columns] to means and deviations, [2 * numbers * rows, 1]."""
    flat = _flat(clip)
    return torch.cat((flat.mean(1), flat.std(1, correction=0)))[:, None]


def _flat(clip: Features) -> Tensor:
    return torch.from_numpy(clip.reshape(-1, clip.shape[-1]))


def _crop(clip: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Return a random window of a clip. A shorter clip is repeated."""
    start = int(torch.randint(max(1, clip.shape[1] - width + 1), (), generator=generator))
    return clip[:, (start + torch.arange(width)) % clip.shape[1]]


def _windows(clip: Tensor, width: int) -> Tensor:
    """Cut a clip into windows, [windows, numbers, width]. The last wraps around to the start."""
    columns = -(-clip.shape[1] // width) * width
    return clip[:, torch.arange(columns) % clip.shape[1]].unflatten(1, (-1, width)).movedim(1, 0)
