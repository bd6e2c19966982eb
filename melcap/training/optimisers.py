"""The choice of an optimiser for each parameter, and a step of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from melcap.training import ranks
from melcap.training.config import TrainingConfig
from melcap.training.muon import Muon


def optimisers_of(
    name: str, parameters: Iterable[tuple[str, nn.Parameter]], config: TrainingConfig
) -> dict[str, torch.optim.Optimizer]:
    """Return AdamW and, where the configuration asks for it, Muon for the matrices.

    Args:
        name: the name of the AdamW; Muon is called "`name` matrices".
        parameters: the parameters with their names.
        config: the settings of both.

    Returns:
        The optimisers by name.
    """
    named = dict(parameters)
    matrices = [value for key, value in named.items() if config.muon and is_matrix(key, value)]
    rest = [value for key, value in named.items() if not config.muon or not is_matrix(key, value)]
    decay = config.weight_decay
    found: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.AdamW(rest, betas=config.betas, weight_decay=decay)
    }
    if matrices:
        found[f"{name} matrices"] = Muon(matrices, weight_decay=decay)
    return found


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter of that name is a matrix, that is, maps several channels.

    Biases, scales and depthwise convolutions are no matrices.
    """
    return name.endswith("weight") and parameter.ndim > 1 and parameter.shape[1] > 1


def descend(
    losses: Iterable[Tensor],
    parameters: Sequence[nn.Parameter],
    optimisers: Mapping[str, torch.optim.Optimizer],
    clip: float,
) -> Tensor:
    """Take a step of all optimisers down the mean of the losses, over all processes.

    Args:
        losses: the loss of each piece of the batch, see `backward`.
        parameters: the parameters whose gradients are clipped together.
        optimisers: the optimisers by name.
        clip: the norm that gradients are clipped to.

    Returns:
        The norm of the gradient before it was clipped.
    """
    for optimiser in optimisers.values():
        optimiser.zero_grad(set_to_none=True)
    backward(losses, parameters)
    norm: Tensor = nn.utils.clip_grad_norm_(parameters, clip)
    for optimiser in optimisers.values():
        optimiser.step()
    return norm


def backward(losses: Iterable[Tensor], parameters: Iterable[nn.Parameter]) -> Tensor:
    """Add to the parameters the gradient of the mean of the losses, over all processes.

    The parameters have no gradients before. Processes are averaged once, after the last piece.

    Args:
        losses: the loss of each piece of the batch, a scalar with a gradient. Each is used before
            the next is asked for.
        parameters: the parameters that the losses train.

    Returns:
        The mean of this process's losses, without a gradient.
    """
    found = []
    for loss in losses:
        loss.backward()
        found.append(loss.detach())
    gradients = [each.grad for each in parameters if each.grad is not None]
    if len(found) > 1:
        for gradient in gradients:
            gradient /= len(found)
    ranks.mean_(gradients)
    return torch.stack(found).mean()
