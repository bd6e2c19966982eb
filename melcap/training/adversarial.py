"""Adversarial training: updates of discriminators, and the losses that they give the codec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from melcap.training import gan_losses, ranks
from melcap.training.config import TrainingConfig
from melcap.training.optimisers import backward


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
        self._scales: list[Tensor] = []

    def compile(self, backend: str) -> None:
        """Compile the discriminators with torch.compile."""
        for discriminator in self.discriminators:
            discriminator.compile(backend=backend, dynamic=False)

    def uncompile(self) -> None:
        """Undo `compile`."""
        for discriminator in self.discriminators:
            discriminator._compiled_call_impl = None  # what nn.Module.compile has set

    def discriminator_step(self, pieces: Iterable[tuple[Tensor, Tensor]], bf16: bool) -> Tensor:
        """Update the discriminators once.

        Args:
            pieces: output and target of each piece of the batch.
            bf16: whether the networks run in bfloat16.

        Returns:
            The hinge loss, summed over the kinds of discriminators; the mean over pieces.
        """
        targets: list[Tensor] = []

        def losses() -> Iterator[Tensor]:
            for output, target in pieces:
                targets.append(target)
                yield self._hinge_loss(output.detach(), target, bf16)

        self.optimiser.zero_grad(set_to_none=True)
        loss = backward(losses(), self.discriminators.parameters())
        self.optimiser.step()
        self._scales = self._scales_of(targets, bf16) if len(targets) > 1 else []
        return loss

    def generator_losses(self, output: Tensor, target: Tensor, bf16: bool) -> tuple[Tensor, Tensor]:
        """Return the generator's hinge loss and the feature matching loss of a piece.

        Feature matching divides by mean magnitudes of the whole batch: those that
        `discriminator_step` left for a batch of several pieces, and of all processes.
        """
        self.discriminators.requires_grad_(False)
        adversarial, matching = output.new_zeros(()), output.new_zeros(())
        for index, discriminator in enumerate(self.discriminators):
            with torch.autocast(output.device.type, torch.bfloat16, enabled=bf16):
                scores, features = discriminator(output)
                with torch.no_grad():
                    _, wanted = discriminator(target)
            adversarial = adversarial + gan_losses.hinge_generator_loss(scores)
            if self._scales:
                scales = self._scales[index]
            else:
                scales = gan_losses.feature_scales(wanted)
                ranks.mean_([scales])
            matching = matching + gan_losses.feature_matching_loss(wanted, features, scales=scales)
        self.discriminators.requires_grad_(True)
        return adversarial, matching

    def _hinge_loss(self, output: Tensor, target: Tensor, bf16: bool) -> Tensor:
        with torch.autocast(output.device.type, torch.bfloat16, enabled=bf16):
            scores = [
                (discriminator(target)[0], discriminator(output)[0])
                for discriminator in self.discriminators
            ]
        return torch.stack(
            [gan_losses.hinge_discriminator_loss(real, fake) for real, fake in scores]
        ).sum()

    @torch.no_grad()
    def _scales_of(self, targets: Iterable[Tensor], bf16: bool) -> list[Tensor]:
        """Return the `feature_scales` of each discriminator over all pieces and processes."""
        # As in `generator_losses`, so that the same compiled graph serves both.
        self.discriminators.requires_grad_(False)
        found = []
        for discriminator in self.discriminators:
            scales = []
            for target in targets:
                with torch.autocast(target.device.type, torch.bfloat16, enabled=bf16):
                    _, features = discriminator(target)
                scales.append(gan_losses.feature_scales(features))
            found.append(torch.stack(scales).mean(0))
        self.discriminators.requires_grad_(True)
        ranks.mean_(found)
        return found
