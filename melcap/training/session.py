"""A session of a training run: its figures, and the record from which a model card is made.

Processes that train together have one session: figures are means over them, speed is that of all.

A run that is resumed has several sessions, one for each time that it was started.
"""

from __future__ import annotations

import datetime
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from melcap.errors import MelcapError
from melcap.training import ranks
from melcap.training.audio_cache import SAMPLE_RATE
from melcap.training.checkpoint import Record, describe_last
from melcap.training.recipe import Recipe
from melcap.training.source import CropSource


class Session:
    """A counter of steps and figures, whose clock runs from its construction.

    Args:
        recipe: the recipe that is trained.
        source: the source of the training audio.
        device: where it is trained.
        checkpoint: the folder of the run, for errors.

    Attributes:
        steps: the number of steps of this session.
    """

    def __init__(self, recipe: Recipe, source: CropSource, device: str, checkpoint: Path) -> None:
        config = recipe.config
        self.steps = 0
        self._checkpoint = checkpoint
        self._source = source
        self._seconds = config.batch * recipe.samples / SAMPLE_RATE
        self._start = self._since = time.monotonic()
        self._processor = time.process_time()
        self._sums: dict[str, Tensor] = {}
        self._counted = 0
        self._record: Record = {
            "recipe": config.recipe,
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "data": source.key,
            "batch": config.batch,
            "columns": config.columns,
            "rate": config.rate,
            "discriminators": config.discriminators,
            "discriminator_kind": config.discriminator_kind,
            "device": device_name(device),
            "processes": ranks.count(),
            "accumulate": recipe.accumulate,
            "bf16": recipe.bf16,
            "torch": str(torch.__version__),
            "figures": {},
        }

    @property
    def minutes(self) -> float:
        """Return the minutes since the session began."""
        return (time.monotonic() - self._start) / 60

    def add(self, figures: dict[str, Tensor]) -> None:
        """Add the figures of one more step, without waiting for a GPU."""
        self.steps += 1
        self._counted += 1
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()

    def row(self) -> dict[str, float]:
        """Return throughput (seconds of audio per second) and mean figures since the last row.

        All processes call it at the same step.

        Raises:
            MelcapError: if a figure is not finite.
        """
        figures = self._record["figures"] = self._means()
        now = time.monotonic()
        speed = self._counted * self._seconds / (now - self._since)
        self._since, self._sums, self._counted = now, {}, 0
        return {"audio_seconds_per_second": round(speed, 1), **figures}

    def note(self, name: str, sentence: str) -> None:
        """Add a finding to the record."""
        self._record[name] = sentence

    def record(self) -> Record:
        """Return the record so far: plain numbers and strings, fit for JSON.

        All processes call it at the same step.

        Raises:
            MelcapError: if a figure is not finite, because what was trained from it is useless.
        """
        figures = self._means()
        processor = torch.tensor(time.process_time() - self._processor, dtype=torch.float64)
        return {
            **self._record,
            "hours": self._source.hours(),
            "steps": self.steps,
            "minutes": round(self.minutes, 2),
            "processor_minutes": round(float(ranks.sum_(processor)) / 60, 2),
            "audio_seconds_per_second": round(self.steps * self._seconds / 60 / self.minutes, 1),
            "figures": self._record["figures"] or figures,
        }

    def _means(self) -> dict[str, float]:
        totals = [total.clone() for total in self._sums.values()]
        ranks.mean_(totals)
        means = {
            name: float(total) / self._counted
            for name, total in zip(self._sums, totals, strict=True)
        }
        for name, value in means.items():
            if not math.isfinite(value):
                raise MelcapError(
                    f"{name} became {value} in the last {self._counted} steps: "
                    f"{describe_last(self._checkpoint)}; resume from there with a lower --rate"
                )
        return {name: round(value, 5) for name, value in means.items()}


def device_name(device: str) -> str:
    """Return the name of a GPU, or the number of threads of the CPU."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
