"""Run a ConvNeXt block in two kernels; its hidden layer, the widest tensor, never leaves the chip.

`convnext1d_norm` turns a few steps of all channels into normalised vectors: one load for each tap
(neighbouring taps share them in the cache), a sum, and mean and variance in float32. It writes them
as [steps, channels], with channels next to each other, the order that the products need.

`convnext1d_mlp` takes a tile of steps through both linear layers. It computes a slice of hidden
channels at a time, applies GELU, and multiplies it into the sums of all output channels, which stay
on the chip. Products are weights times activations, not the other way round: then the result is
[channels, steps], as in memory, and on every target fewer numbers must be held twice.

Traffic for each step of 256 channels, 512 hidden, float32: 1 KiB read, 1 KiB written and read again
between the launches (from the cache up to some ten thousand steps), 1 KiB read for the skip and
1 KiB written, 5 KiB in all. The plain chain moves 24 KiB: transposed copies, norm, skip and scale
8, hidden layer 16. Arithmetic is 4 * 256 * 512 = 0.5 MFLOP, three times that in TF32, against
3.6 kFLOP for the taps. A tile of 64 steps reads the weights, 1 MiB, from the cache once. A single
launch would have to hold the normalised tile beside the sums: it needs 200 KiB of shared memory or
spills on every target.
"""

from __future__ import annotations

import triton
import triton.language as tl


def _precision(_semantic=None):
    """Return the precision of float32 products: three of TF32, or exact where a target can."""
    if _semantic is None:  # interpreted
        return "ieee"
    allowed = _semantic.builder.options.allowed_dot_input_precisions
    return tl.constexpr("tf32x3" if "tf32x3" in allowed else "ieee")


_precision.__triton_builtin__ = True  # type: ignore[attr-defined]


@triton.jit(do_not_specialize=["batch_stride", "channel_stride", "steps"])
def convnext1d_norm(
    x,
    depthwise_weight,
    depthwise_bias,
    norm_weight,
    norm_bias,
    out,
    batch_stride,
    channel_stride,
    steps,
    CHANNELS: tl.constexpr,
    KERNEL: tl.constexpr,
    EPSILON: tl.constexpr,
    C_TILE: tl.constexpr,
    T_TILE: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Fill out [batch, steps to a whole T_TILE, C_TILE]; zeros after the last channel."""
    rows = tl.cdiv(steps, T_TILE) * T_TILE
    programs = rows // STEPS
    clip = (tl.program_id(0) // programs).to(tl.int64)
    step = (tl.program_id(0) % programs) * STEPS + tl.arange(0, STEPS)
    channel = tl.arange(0, C_TILE)
    real = channel < CHANNELS
    inside = (step < steps)[:, None] & real[None, :]
    at = x + clip * batch_stride + channel[None, :] * channel_stride + step[:, None]
    y = tl.zeros([STEPS, C_TILE], tl.float32) + _vector(depthwise_bias, channel, real)[None, :]
    for tap in range(KERNEL):
        weight = _vector(depthwise_weight + tap, channel * KERNEL, real)
        y += weight[None, :] * tl.load(at + tap, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(y, axis=1) / CHANNELS
    y = tl.where(real[None, :], y - mean[:, None], 0.0)
    variance = tl.sum(y * y, axis=1) / CHANNELS
    y *= (1 / tl.sqrt(variance + EPSILON))[:, None]
    y *= _vector(norm_weight, channel, real)[None, :]
    y += _vector(norm_bias, channel, real)[None, :]
    out += clip * rows * C_TILE
    tl.store(out + step[:, None] * C_TILE + channel[None, :], y.to(out.dtype.element_ty))


@triton.jit(do_not_specialize=["batch_stride", "channel_stride", "steps"])
def convnext1d_mlp(
    x,
    normed,
    expand_weight,
    expand_bias,
    contract_weight,
    contract_bias,
    scale,
    out,
    batch_stride,
    channel_stride,
    steps,
    CHANNELS: tl.constexpr,
    HIDDEN: tl.constexpr,
    C_TILE: tl.constexpr,
    T_TILE: tl.constexpr,
    H_TILE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Fill out [batch, channels, steps] from x (where the skip begins) and the normalised steps."""
    programs = tl.cdiv(steps, T_TILE)
    clip = (tl.program_id(0) // programs).to(tl.int64)
    step = (tl.program_id(0) % programs) * T_TILE + tl.arange(0, T_TILE)
    channel = tl.arange(0, C_TILE)
    real = channel < CHANNELS
    row = normed + clip * programs * T_TILE * C_TILE + step[None, :] * C_TILE
    y = tl.zeros([C_TILE, T_TILE], tl.float32)
    for first in range(0, HIDDEN, H_TILE):
        hidden = first + tl.arange(0, H_TILE)
        used = hidden < HIDDEN
        z = tl.zeros([H_TILE, T_TILE], tl.float32)
        for begin in range(0, CHANNELS, DEPTH):
            part = begin + tl.arange(0, DEPTH)
            weight = tl.load(
                expand_weight + hidden[:, None] * CHANNELS + part[None, :],
                mask=used[:, None] & (part < CHANNELS)[None, :],
                other=0.0,
            )
            z = tl.dot(weight, tl.load(row + part[:, None]), z, input_precision=_precision())
        z += _vector(expand_bias, hidden, used)[:, None]
        z *= 0.5 + 0.5 * tl.erf(z * 0.7071067811865476)
        weight = tl.load(
            contract_weight + channel[:, None] * HIDDEN + hidden[None, :],
            mask=real[:, None] & used[None, :],
            other=0.0,
        )
        y = tl.dot(weight, z.to(weight.dtype), y, input_precision=_precision())
    y += _vector(contract_bias, channel, real)[:, None]
    y *= _vector(scale, channel, real)[:, None]
    inside = real[:, None] & (step < steps)[None, :]
    at = x + clip * batch_stride + channel[:, None] * channel_stride + step[None, :]
    y += tl.load(at, mask=inside, other=0.0).to(tl.float32)
    at = out + clip * CHANNELS * steps + channel[:, None] * steps + step[None, :]
    tl.store(at, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _vector(values, index, mask):
    """Return values[index] in float32, zero where the mask is not set."""
    return tl.load(values + index, mask=mask, other=0.0).to(tl.float32)
