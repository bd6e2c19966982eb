"""The other side of a GAN: discriminators that learn, and what they make the codec learn."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from melcap.training import losses
from melcap.training.config import TrainingConfig


class Adversary:
    """Discriminators (see `melcap.training.discriminators`) with an optimiser of their own.

    They hear what was made and what should have been, of one shape: waves [batch, samples] or
    pictures [batch, 1, mels, frames].
    """

    def __init__(self, judges: Iterable[nn.Module], config: TrainingConfig) -> None:
        self.judges = nn.ModuleList(judges)
        self.optimiser = torch.optim.AdamW(
            self.judges.parameters(), betas=config.betas, weight_decay=config.weight_decay
        )

    def compile(self, backend: str) -> None:
        for judge in self.judges:
            judge.compile(backend=backend, dynamic=False)

    def uncompile(self) -> None:
        for judge in self.judges:
            judge._compiled_call_impl = None  # what nn.Module.compile has set

    def learn(self, made: Tensor, target: Tensor, bf16: bool) -> Tensor:
        """One update to tell the two apart; returns the hinge loss, summed over the kinds."""
        made = made.detach()
        with torch.autocast(made.device.type, torch.bfloat16, enabled=bf16):
            verdicts = [(judge(target)[0], judge(made)[0]) for judge in self.judges]
        loss = torch.stack(
            [losses.hinge_discriminator_loss(real, fake) for real, fake in verdicts]
        ).sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss

    def persuade(self, made: Tensor, target: Tensor, bf16: bool) -> tuple[Tensor, Tensor]:
        """What the codec is to lessen: the hinge loss of its side, and the distance of features."""
        self.judges.requires_grad_(False)
        adversarial, matching = made.new_zeros(()), made.new_zeros(())
        for judge in self.judges:
            with torch.autocast(made.device.type, torch.bfloat16, enabled=bf16):
                scores, features = judge(made)
                with torch.no_grad():
                    _, wanted = judge(target)
            adversarial = adversarial + losses.hinge_generator_loss(scores)
            matching = matching + losses.feature_matching_loss(wanted, features)
        self.judges.requires_grad_(True)
        return adversarial, matching
