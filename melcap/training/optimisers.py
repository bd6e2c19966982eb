"""Which optimiser teaches which parameters, and a step of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from melcap.training.config import TrainingConfig
from melcap.training.muon import Muon


def optimisers_of(
    name: str, parameters: Iterable[tuple[str, nn.Parameter]], config: TrainingConfig
) -> dict[str, torch.optim.Optimizer]:
    """AdamW by the given name and, where the configuration has it, Muon for what is a matrix."""
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
    """Whether a parameter of that name maps many channels: no bias, scale or embedding, and no
    convolution of each channel by itself."""
    return name.endswith("weight") and parameter.ndim > 1 and parameter.shape[1] > 1


def descend(
    loss: Tensor,
    parameters: Iterable[nn.Parameter],
    optimisers: Mapping[str, torch.optim.Optimizer],
    clip: float,
) -> Tensor:
    """One step of all optimisers down the loss; returns the gradient's norm before it is cut."""
    for optimiser in optimisers.values():
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm: Tensor = nn.utils.clip_grad_norm_(parameters, clip)
    for optimiser in optimisers.values():
        optimiser.step()
    return norm
