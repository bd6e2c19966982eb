"""Muon: momentum whose every direction counts alike, for the weights that are matrices.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/), with the scale of Liu et al. 2025
(arXiv 2502.16982): an update has the root mean square of AdamW's, so that both share one rate.
torch.optim.Muon takes matrices alone; here a convolution is one, outputs by all that they see.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor, nn

from melcap.training.config import TrainingConfig

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of Jordan's iteration: five rounds bring every singular value near 1."""
ROUNDS = 5
RMS = 0.2
"""Of AdamW's updates, about."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal, and decoupled weight decay, for `is_matrix` weights."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of all parameters that have gradients; there is no use for a closure."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._momentum(parameter, group).flatten(1)
                    shapes[update.shape].append((parameter, update))
            for shape, members in shapes.items():
                updates = orthogonal(torch.stack([update for _, update in members]))
                scale = group["lr"] * RMS * max(shape) ** 0.5
                for (parameter, _), update in zip(members, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update.view_as(parameter), alpha=scale)
        return None

    def _momentum(self, parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(parameter.grad, 1 - group["momentum"])
        return parameter.grad.lerp(momentum, group["momentum"])


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


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter of that name maps many channels: no bias, scale or embedding, and no
    convolution of each channel by itself."""
    return name.endswith("weight") and parameter.ndim > 1 and parameter.shape[1] > 1


def orthogonal(matrices: Tensor) -> Tensor:
    """[batch, n, m] to the same with all singular values near 1 (0.7 to 1.2), by Newton and Schulz.

    In bfloat16 on GPUs, which is enough for it.
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    x = x.bfloat16() if x.is_cuda else x
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    x = x.to(matrices.dtype)
    return x if matrices.shape[1] <= matrices.shape[2] else x.mT
