"""Apply the activation functions that operations fuse."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS = ("none", "snake", "leaky_relu", "gelu", "silu")


def activate(x: Tensor, activation: str, alpha: Tensor | None) -> Tensor:
    """Return the activation of `x`.

    Args:
        x: [batch, channels, steps] for snake, any shape for the others.
        activation: "snake" (x + sin^2(alpha x) / alpha, Ziyin et al. 2020), "leaky_relu" (slope
            0.1), "gelu" (exact), "silu" or "none".
        alpha: [channels], for snake alone.
    """
    if activation == "snake":
        assert alpha is not None
        a = alpha.to(x.dtype)[:, None]
        return x + torch.sin(a * x).square() / (a + 1e-9)
    if activation == "leaky_relu":
        return F.leaky_relu(x, 0.1)
    if activation == "gelu":
        return F.gelu(x)
    if activation == "silu":
        return F.silu(x)
    return x
