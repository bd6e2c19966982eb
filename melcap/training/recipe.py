"""The interface of a training stage, as the training loop uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from melcap.training.config import TrainingConfig


class Recipe(Protocol):
    """A stage of training: its modules and optimisers, and one step.

    Attributes:
        config: the settings.
        samples: the length of a crop, with all context that its supervised columns depend on.
        bf16: whether the networks that are trained run in bfloat16, where that is precise enough
            (autocast).
        accumulate: the number of pieces in which a step takes its crops, see `Pieces`.
    """

    config: TrainingConfig
    samples: int
    bf16: bool
    accumulate: int

    def modules(self) -> Mapping[str, nn.Module]:
        """Return all modules of a checkpoint by name."""
        ...

    def averaged(self) -> Mapping[str, nn.Module]:
        """Return the modules that are trained by gradients and exported."""
        ...

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Return the optimisers by name."""
        ...

    def compile(self, backend: str = "inductor") -> None:
        """Compile the networks and the losses with torch.compile. Names do not change."""
        ...

    def uncompile(self) -> None:
        """Undo `compile`."""
        ...

    def step(self, wave: Tensor) -> dict[str, Tensor]:
        """Update everything once from a batch of waves.

        Args:
            wave: float32 [batch, samples]; this process's part, where several train together.

        Returns:
            The figures to log.
        """
        ...

    def samples_for(self, columns: int) -> int:
        """Return the samples of a crop for `reconstruct`."""
        ...

    def reconstruct(self, wave: Tensor, columns: int) -> tuple[Tensor, Tensor]:
        """Return the targets of crops and their reconstructions. Change no weight or random state.

        Args:
            wave: float32 [batch, samples_for(columns)].
            columns: the number of columns.

        Returns:
            Normalised log-mels [batch, mels, frames], or waves [batch, samples], before and after.
        """
        ...
