"""Write float32 numbers as two float16 halves, which tensor cores multiply without loss.

With a scale of a power of two the numbers of a tensor lie within 2^15. The high half is the number
rounded to float16, the low half is what that leaves, rounded too. Together they hold 22 bits: they
are off by at most 2^-22 of the number, or by 2^-39 of the bound, below which float16 ends.

Scales are static. They follow from a bound on the tensor, never from its values, so they need no
pass over the data, and a clip has the same scale in any batch. A norm gives such a bound: a vector
of C numbers whose squares have a mean of 1 has no number above sqrt(C).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .activations import activate
from .channel_norm.kernels import centred, vector

LARGEST = 2.0**15
"""The bound of scaled numbers; float16 ends at 65,504."""


def scale_of(bound: Tensor) -> Tensor:
    """Return a power of two for each of `bound` [...] that brings it near `LARGEST`, not above.

    It is at most 2^100, so that it and its inverse are float32 numbers for a bound of 0 too.
    """
    exponent = torch.log2(bound.double()).floor() + 1
    return torch.exp2((15 - exponent).clamp(max=100)).float()


def scale_table(bound: Tensor) -> Tensor:
    """Return float32 [2]: the scale of a tensor with this bound, and its inverse."""
    scale = scale_of(bound)
    return torch.stack((scale, 1 / scale))


def bound_of_norm(weight: Tensor, bias: Tensor) -> Tensor:
    """Return a bound on the output of a layer norm with these weights, before or after SiLU.

    SiLU is never further from 0 than its argument. The factor covers the rounding of the norm.
    """
    most = len(weight) ** 0.5 * weight.detach().double().abs() + bias.detach().double().abs()
    return 1.0001 * most.amax()


def split(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the halves of x * scale, float16 of x's shape."""
    scaled = x.detach().double() * scale
    high = scaled.half()
    return high, (scaled - high.double()).half()


@triton.jit(do_not_specialize=["steps", "row_steps", "padding"])
def halves_kernel(
    x,
    norm_weight,
    norm_bias,
    scale,
    out,
    out_low,
    steps,
    row_steps,
    padding,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    EPSILON: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PACKED: tl.constexpr,
    C_TILE: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Fill out [clips, rows, row_steps + 2 * padding, WIDTH], and `out_low` of the same shape.

    x is [clips, steps, CHANNELS] if `PACKED`, else [clips, CHANNELS, steps], where a clip has rows
    of `row_steps`. Channels after the last are zeros; the padding is left as it is.
    """
    programs = tl.cdiv(steps, STEPS)
    clip = (tl.program_id(0) // programs).to(tl.int64)
    step = (tl.program_id(0) % programs) * STEPS + tl.arange(0, STEPS)[:, None]
    channel = tl.arange(0, C_TILE)[None, :]
    inside = (step < steps) & (channel < CHANNELS)
    if PACKED:
        at = (clip * steps + step) * CHANNELS + channel
    else:
        at = (clip * CHANNELS + channel) * steps + step
    y = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if norm_weight is not None:
        y, _ = centred(y, channel, CHANNELS, EPSILON)
        y = y * vector(norm_weight, channel, CHANNELS) + vector(norm_bias, channel, CHANNELS)
    y = activate(y, 0.0, 0.0, ACTIVATION) * tl.load(scale)
    row = step // row_steps
    place = clip * (steps // row_steps * (row_steps + 2 * padding))
    place += step + (2 * row + 1) * padding
    high = y.to(tl.float16)
    inside = (step < steps) & (channel < WIDTH)
    tl.store(out + place * WIDTH + channel, high, mask=inside)
    low = (y - high.to(tl.float32)).to(tl.float16)
    tl.store(out_low + place * WIDTH + channel, low, mask=inside)
