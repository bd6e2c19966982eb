"""What the training loop asks of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from melcap.training.config import TrainingConfig


class Recipe(Protocol):
    """What a stage brings: its modules and optimisers, and one step."""

    config: TrainingConfig
    samples: int
    """Of a crop, with all the context that its supervised columns depend on."""
    bf16: bool
    """Whether networks that learn run in bfloat16, where that is precise enough (autocast)."""

    def modules(self) -> Mapping[str, nn.Module]: ...

    def averaged(self) -> Mapping[str, nn.Module]:
        """Those of the modules that learn by gradients and are exported."""
        ...

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]: ...

    def compile(self, backend: str = "inductor") -> None:
        """Have torch.compile make the networks and the losses faster; names stay as they are."""
        ...

    def uncompile(self) -> None:
        """Undo `compile`."""
        ...

    def step(self, wave: Tensor, progress: float) -> dict[str, Tensor]:
        """One update from a batch of waves; returns the figures to log."""
        ...

    def samples_for(self, columns: int) -> int:
        """Samples of a crop for `reconstruct`."""
        ...

    def reconstruct(self, wave: Tensor, columns: int) -> tuple[Tensor, Tensor]:
        """What was to be made of crops [batch, samples_for(columns)], and what is made of them.

        Normalised log-mels [batch, mels, frames], or waves [batch, samples]. Changes nothing: no
        weight, no random state.
        """
        ...
