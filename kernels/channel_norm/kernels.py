"""channel_norm on Triton, forward and backward: a tile of positions with all their channels.

A layer norm over few channels has nothing to share between positions. A tile is read once, mean,
variance and activation stay in registers, and the result is written once. Layer norms of libraries
are made for long rows, with a block of threads for each; lite has millions of rows of 32 to 128
channels. The backward pass reads input and upstream gradient, computes mean, variance and
activation again, and writes one tensor. A fixed number of programs sums up the gradients of weight
and bias, and these sums are added in a fixed order, so that the gradients are the same every time.

Traffic for each number: forward one read and one write, backward two reads and one write, of the
input's dtype. The plain chain with SiLU reads and writes twice forward. Under autocast, on
bfloat16, it moves 28 bytes (cast, norm and SiLU in float32, cast) where this kernel moves 4.

Mean and variance are computed in float32, in two passes over registers, and only the result is
rounded. The error against float64 is that of an input rounded to float32: at most 6e-8 of the
largest channel, magnified by 1 / deviation.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..activations import activate


@triton.jit(do_not_specialize=["steps"])
def channel_norm_kernel(
    x,
    weight,
    bias,
    out,
    steps,
    CHANNELS: tl.constexpr,
    EPSILON: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PACKED: tl.constexpr,
    C_TILE: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Fill out [clips, steps, CHANNELS] from x, which has that shape if `PACKED`.

    Otherwise x is [clips, CHANNELS, steps].
    """
    programs = tl.cdiv(steps, STEPS)
    clip = (tl.program_id(0) // programs).to(tl.int64)
    step = (tl.program_id(0) % programs) * STEPS + tl.arange(0, STEPS)[:, None]
    channel = tl.arange(0, C_TILE)[None, :]
    inside = (step < steps) & (channel < CHANNELS)
    packed = (clip * steps + step) * CHANNELS + channel
    if PACKED:
        at = packed
    else:
        at = (clip * CHANNELS + channel) * steps + step
    normed, _ = centred(tl.load(x + at, mask=inside, other=0.0), channel, CHANNELS, EPSILON)
    y = normed * vector(weight, channel, CHANNELS) + vector(bias, channel, CHANNELS)
    y = activate(y, 0.0, 0.0, ACTIVATION)
    tl.store(out + packed, y.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["steps"])
def channel_norm_gradient_kernel(
    upstream,
    x,
    weight,
    bias,
    out,
    sums,
    steps,
    CHANNELS: tl.constexpr,
    EPSILON: tl.constexpr,
    ACTIVATION: tl.constexpr,
    C_TILE: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Fill out [steps, CHANNELS] from `upstream` and `x` of that shape, and `sums`.

    sums [programs, 2, CHANNELS] are the shares of each program's steps in the gradients of weight
    and bias.
    """
    channel = tl.arange(0, C_TILE)[None, :]
    real = channel < CHANNELS
    gain = vector(weight, channel, CHANNELS)
    shift = vector(bias, channel, CHANNELS)
    to_weight = tl.zeros([STEPS, C_TILE], tl.float32)
    to_bias = tl.zeros([STEPS, C_TILE], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(steps, STEPS), tl.num_programs(0)):
        step = tile * STEPS + tl.arange(0, STEPS)[:, None]
        inside = (step < steps) & real
        at = step.to(tl.int64) * CHANNELS + channel
        normed, inverse = centred(
            tl.load(x + at, mask=inside, other=0.0), channel, CHANNELS, EPSILON
        )
        given = tl.load(upstream + at, mask=inside, other=0.0).to(tl.float32)
        if ACTIVATION == "silu":
            y = normed * gain + shift
            half = 1 / (1 + tl.exp(-y))
            given *= half * (1 + y * (1 - half))
        to_weight += given * normed
        to_bias += given
        given *= gain
        mean = tl.sum(given, axis=1)[:, None] / CHANNELS
        along = tl.sum(given * normed, axis=1)[:, None] / CHANNELS
        found = inverse * (given - mean - along * normed)
        tl.store(out + at, found.to(out.dtype.element_ty), mask=inside)
    mine = sums + tl.program_id(0) * 2 * CHANNELS + channel
    tl.store(mine, tl.sum(to_weight, axis=0)[None, :], mask=real)
    tl.store(mine + CHANNELS, tl.sum(to_bias, axis=0)[None, :], mask=real)


@triton.jit
def centred(x, channel, CHANNELS: tl.constexpr, EPSILON: tl.constexpr):
    """Return x [steps, channels] with mean 0 and variance 1, and the factor [steps, 1] for that.

    The result is zero after the last channel.
    """
    x = x.to(tl.float32)
    mean = tl.sum(x, axis=1)[:, None] / CHANNELS
    x = tl.where(channel < CHANNELS, x - mean, 0.0)
    inverse = 1 / tl.sqrt(tl.sum(x * x, axis=1)[:, None] / CHANNELS + EPSILON)
    return x * inverse, inverse


@triton.jit
def vector(values, channel, CHANNELS: tl.constexpr):
    """Return the values of the channels in float32."""
    return tl.load(values + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
