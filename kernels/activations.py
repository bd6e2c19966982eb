"""Compute the activations of `melcap.ops.activations` in float32, in registers.

All of them give zero for zero, so masked loads stay zero.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROUND = tl.constexpr(1.5 * 2**23)
"""Adding and subtracting this rounds a number under 2^22 to the nearest integer."""


@triton.jit
def activate(x, half_turns, inverse, ACTIVATION: tl.constexpr):
    """Return the activation of x; only snake uses `half_turns` and `inverse` (`snake_table`)."""
    if ACTIVATION == "snake":
        # sin^2 repeats every half turn, so only the distance to the nearest one counts. The
        # polynomial is sin(pi d) / d on 0..1/2, by least squares reweighted until the error is even
        # (3e-9).
        angle = x * half_turns
        nearest = (angle + _ROUND) - _ROUND
        distance = tl.minimum(tl.abs(x * half_turns - nearest), 0.5)
        square = distance * distance
        sine = 0.07722010463476181 * square - 0.5980451703071594
        sine = sine * square + 2.5500314235687256
        sine = sine * square - 5.1677069664001465
        sine = (sine * square + 3.141592502593994) * distance
        x += (sine * inverse) * sine
    elif ACTIVATION == "leaky_relu":
        x = tl.where(x > 0, x, 0.1 * x)
    elif ACTIVATION == "gelu":
        x = 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == "silu":
        x = x / (1 + tl.exp(-x))
    return x


def snake_table(alpha: Tensor) -> Tensor:
    """Return float32 [2, channels]: alpha in half turns, and 1 / (alpha + 1e-9)."""
    exact = alpha.detach().double()
    return torch.stack((exact / torch.pi, 1 / (exact + 1e-9))).float()
