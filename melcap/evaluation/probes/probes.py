"""Two small networks that learn a label from frozen features, the same for whichever feature.

Every choice here (steps, rates, sizes) was fixed before a clip of VALID was scored, and none is
fitted to it. Features are normalised by what the clips of TRAIN have, number by number.
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
WINDOW = {"linear": 1, "convolutional": 64}
"""Columns of its input that a probe sees at a time. The linear one's is pooled into one already,
for the other they are 3 s."""
STEPS = {"linear": 500, "convolutional": 300}
LEARNING_RATE = {"linear": 1e-2, "convolutional": 1e-3}
BATCH = 32


@dataclass(frozen=True)
class ProbeJob:
    """One feature and one probe on a task: learnt once for each seed, each clip of VALID guessed.

    `labels` are the indices of the classes of `train`; with `shuffled` they are permuted, which
    leaves nothing to be learnt.
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
        clips = [[job.feature, job.path.name] for job in (*self.train, *self.valid)]
        budget = (STEPS[self.probe], LEARNING_RATE[self.probe])
        settings = (self.labels, self.classes, self.seeds, self.shuffled)
        return self.folder / f"{name_of(DEFINITIONS, self.probe, budget, clips, settings)}.npy"

    def write(self, path: Path) -> None:
        train, valid = ([job.load() for job in jobs] for jobs in (self.train, self.valid))
        labels = np.array(self.labels)
        guesses = []
        for seed in range(self.seeds):
            order = np.random.default_rng(seed).permutation(len(labels))
            learnt = labels[order] if self.shuffled else labels
            guesses.append(predict(self.probe, train, learnt, valid, self.classes, seed))
        np.save(path, np.stack(guesses))

    def load(self) -> npt.NDArray[np.int64]:
        """[seeds, clips]: the class guessed; raises `InputError` for a damaged file."""
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
    """Learn from `train` [numbers, rows, columns] and its labels; the classes guessed for `valid`.

    The linear probe sees the mean and the standard deviation of each number over a clip's columns,
    the convolutional one windows of 64 columns, over which its logits are averaged at the end.
    Both minimise cross-entropy, where each class weighs the same, by AdamW with a cosine schedule.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = _pooled if probe == "linear" else _flat
    learnt, asked = ([inputs(clip) for clip in clips] for clips in (train, valid))
    together = torch.cat(learnt, -1)
    mean, std = together.mean(-1, keepdim=True), together.std(-1, keepdim=True)
    scale = torch.where(std > 1e-4, 1 / std.clamp(min=1e-4), 0)  # what never changes says nothing
    learnt, asked = ([(clip - mean) * scale for clip in clips] for clips in (learnt, asked))
    answers = torch.from_numpy(labels.astype(np.int64))
    count = torch.bincount(answers, minlength=classes).clamp(min=1)
    loss = nn.CrossEntropyLoss(weight=len(answers) / (classes * count))
    with torch.random.fork_rng(devices=[]):  # where weights and dropout are drawn from
        torch.manual_seed(seed)
        network = build(probe, len(mean), classes)
        _learn(network, learnt, answers, loss, probe, generator)
    with torch.no_grad():
        logits = torch.stack([network(_windows(clip, WINDOW[probe])).mean(0) for clip in asked])
    return logits.argmax(1).numpy()


def build(probe: str, numbers: int, classes: int) -> nn.Module:
    """The network for inputs [batch, numbers, columns]."""
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
    """Of the probe on a feature with `shape` (numbers, rows) in each column."""
    numbers = shape[0] * shape[1] * (2 if probe == "linear" else 1)
    return sum(weight.numel() for weight in build(probe, numbers, classes).parameters())


def _learn(
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
    """[numbers, rows, columns] to [2 * numbers * rows, 1]."""
    flat = _flat(clip)
    return torch.cat((flat.mean(1), flat.std(1, correction=0)))[:, None]


def _flat(clip: Features) -> Tensor:
    return torch.from_numpy(clip.reshape(-1, clip.shape[-1]))


def _crop(clip: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """A random window; a clip that is shorter is repeated."""
    start = int(torch.randint(max(1, clip.shape[1] - width + 1), (), generator=generator))
    return clip[:, (start + torch.arange(width)) % clip.shape[1]]


def _windows(clip: Tensor, width: int) -> Tensor:
    """[windows, numbers, width], one after the other; the last goes on from the beginning."""
    columns = -(-clip.shape[1] // width) * width
    return clip[:, torch.arange(columns) % clip.shape[1]].unflatten(1, (-1, width)).movedim(1, 0)
