"""Adversarial training: updates of discriminators, and the losses that they give the codec."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from melcap.training import gan_losses
from melcap.training.config import TrainingConfig


class AdversarialTraining:
    """Discriminators with an optimiser of their own.

    They see an output and its target, both of one shape: waves [batch, samples] or pictures
    [batch, 1, mels, frames].

    Args:
        discriminators: see `melcap.training.discriminators`.
        config: the settings of their optimiser.
    """

    def __init__(self, discriminators: Iterable[nn.Module], config: TrainingConfig) -> None:
        self.discriminators = nn.ModuleList(discriminators)
        self.optimiser = torch.optim.AdamW(
            self.discriminators.parameters(), betas=config.betas, weight_decay=config.weight_decay
        )

    def compile(self, backend: str) -> None:
        """Compile the discriminators with torch.compile."""
        for discriminator in self.discriminators:
            discriminator.compile(backend=backend, dynamic=False)

    def uncompile(self) -> None:
        """Undo `compile`."""
        for discriminator in self.discriminators:
            discriminator._compiled_call_impl = None  # what nn.Module.compile has set

    def discriminator_step(self, output: Tensor, target: Tensor, bf16: bool) -> Tensor:
        """Update the discriminators once; return their hinge loss, summed over the kinds."""
        output = output.detach()
        with torch.autocast(output.device.type, torch.bfloat16, enabled=bf16):
            scores = [
                (discriminator(target)[0], discriminator(output)[0])
                for discriminator in self.discriminators
            ]
        loss = torch.stack(
            [gan_losses.hinge_discriminator_loss(real, fake) for real, fake in scores]
        ).sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss

    def generator_losses(self, output: Tensor, target: Tensor, bf16: bool) -> tuple[Tensor, Tensor]:
        """Return the generator's hinge loss and the feature matching loss, for the codec."""
        self.discriminators.requires_grad_(False)
        adversarial, matching = output.new_zeros(()), output.new_zeros(())
        for discriminator in self.discriminators:
            with torch.autocast(output.device.type, torch.bfloat16, enabled=bf16):
                scores, features = discriminator(output)
                with torch.no_grad():
                    _, wanted = discriminator(target)
            adversarial = adversarial + gan_losses.hinge_generator_loss(scores)
            matching = matching + gan_losses.feature_matching_loss(wanted, features)
        self.discriminators.requires_grad_(True)
        return adversarial, matching
