"""Muon, an optimiser for matrices, which orthogonalises the momentum.

The method is that of Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/), with the
scale of Liu et al. 2025 (arXiv 2502.16982): an update has the root mean square of AdamW's, so that
both share one learning rate. torch.optim.Muon takes matrices alone. Here a convolution counts as a
matrix too, of its outputs by all of their inputs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""The coefficients of Jordan's iteration: five rounds bring every singular value near 1."""
ROUNDS = 5
RMS = 0.2
"""The root mean square of AdamW's updates, about."""


class Muon(torch.optim.Optimizer):
    """An optimiser with orthogonalised Nesterov momentum and decoupled weight decay.

    Args:
        parameters: parameters of at least two dimensions.
        lr: the learning rate.
        momentum: the decay of the moving average of gradients.
        weight_decay: the weight decay.
    """

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
        """Update all parameters that have gradients. A closure is not called."""
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


def orthogonal(matrices: Tensor) -> Tensor:
    """Return matrices [batch, n, m] with all singular values brought near 1 (0.7 to 1.2).

    This is the iteration of Newton and Schulz. It runs in bfloat16 on GPUs, which is precise
    enough.
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
