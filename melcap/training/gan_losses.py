"""The losses of generative adversarial training: hinge losses of both sides, feature matching.

Everything is computed in float32, under autocast too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def hinge_discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Return the discriminators' loss: scores rise to 1 for targets and fall to -1 for outputs.

    Args:
        real: the scores of targets, one map for each discriminator.
        fake: the scores of outputs.

    Returns:
        The mean over discriminators.
    """
    sides = [
        F.relu(1 - good.float()).mean() + F.relu(1 + bad.float()).mean()
        for good, bad in zip(real, fake, strict=True)
    ]
    return torch.stack(sides).mean()


def hinge_generator_loss(fake: Sequence[Tensor]) -> Tensor:
    """Return the generator's loss: scores of outputs rise to 1, and no further (as in Vocos).

    Args:
        fake: the scores of outputs, one map for each discriminator.

    Returns:
        The mean over discriminators.
    """
    return torch.stack([F.relu(1 - score.float()).mean() for score in fake]).mean()


def feature_matching_loss(
    real: Sequence[Sequence[Tensor]],
    fake: Sequence[Sequence[Tensor]],
    relative: bool = True,
    scales: Tensor | None = None,
) -> Tensor:
    """Return the mean L1 between discriminators' features of targets and of outputs.

    Args:
        real: the features of targets, a list of maps for each discriminator. They are detached.
        fake: the features of outputs.
        relative: divide each layer's distance by the mean magnitude of its features of targets (as
            in EnCodec), so that the weight fits any discriminator at any time. False is as in
            Vocos.
        scales: these mean magnitudes, where the batch is larger than what is given here; None for
            the `feature_scales` of `real`.

    Returns:
        The mean over discriminators and layers.
    """
    if scales is None:
        scales = feature_scales(real)
    distances: list[Tensor] = []
    for good, bad in zip(real, fake, strict=True):
        for wanted, made in zip(good, bad, strict=True):
            distance = F.l1_loss(made.float(), wanted.detach().float())
            if relative:
                distance = distance / scales[len(distances)].clamp(min=1e-4)
            distances.append(distance)
    return torch.stack(distances).mean()


def feature_scales(features: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return the mean magnitude of each discriminator's features at each layer, [maps]."""
    return torch.stack([map_.detach().float().abs().mean() for maps in features for map_ in maps])
