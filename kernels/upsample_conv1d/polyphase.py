"""Compute a transposed convolution with all around it in one kernel, as a polyphase product.

Step f = stride * q + r of the full result reads the input steps q, q - 1, ..., one for each tap.
For all phases r at once that is a matrix product, [steps q] x [taps * channels in] by [taps *
channels in] x [channels out * phases] (see `weights`). No zero is multiplied, and the crop is only
an offset of the stores. A program turns a tile of x, shifted by the tap, into activated operands,
multiplies them by a tile of the weights, and interleaves the phases at the end. Its stores, and the
residual that it reads, are contiguous in time. A stride that is no power of two is filled up with
phases of zeros (5 to 8, 3 to 4), which are multiplied in vain and not stored.

**Cost** of one input step of a layer of 256 to 128 channels, kernel 8, stride 4, float32: 1 KB read
and 2 KB written take 0.9 ns at an H100's 3.35 TB/s; 2 x 2 x 256 x 512 = 0.52 MFLOP take 7.8 ns on
its float32 cores (67 TFLOP/s) and 3.2 ns as three products on its tensor cores (495 TFLOP/s). So
products decide in float32, down to 128 to 64 channels (0.4 and 0.3 ns). Narrower layers and 16-bit
layers are bound by memory, so nothing must be read or written twice.

Each tile of 128 rows activates x again for every tap, 4 x 2 = 8 times in that layer. For a step
of 64 x 128 x 32, at least 768 cycles of the tensor cores, a warp issues 570 instructions: 192 for
snake (12 a number, without division and without a library's sine), 160 for splitting x and weights,
the rest for loads, addresses and shared memory. Activating x once, in a launch of its own, would
save those 192, which overlap with products anyway, and would move 2 KB more for each input step
(+67 %). The cache delivers 16 KB of weights and 8 KB of x: 32 bytes a cycle, about its limit.
Weights split beforehand would save 130 instructions and take 16 KB more.

**Loads.** Weights are read 128 bits at a time. Rows of x start anywhere (their length is any
number, and a tap is a shift by one), so each thread reads one number of x at a time, a warp's
numbers side by side. The tile for the next step is loaded while this one is multiplied.

**float32** is three TF32 products, with x = x1 + x2 and w = w1 + w2: x2 w1 + x1 w2 + x1 w1. It
lacks x2 w2 < 2^-20 |x w| and as little for the last bits of x2 and w2: at worst 3e-6 of the sum of
all |x w|, 1e-7 in the mean. That is tl.dot's "tf32x3" written out: its care for infinities takes a
third of the loop's instructions, and here an infinity gives NaN where float32 may give infinity.
Deep sums are closed in chunks, see `Tiling.chunked`. 16-bit operands are rounded after the
activation, which is computed in float32, and summed in float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..activations import activate
from ..tf32 import cut, takes_tf32


@triton.jit
def _product(x, weight, total):
    """Return total + x @ weight; float32 as three TF32 products, small ones first."""
    if x.dtype == tl.float32 and takes_tf32():
        # All parts come before the first product: otherwise x and weight are kept beside them.
        high, weight_high = cut(x), cut(weight)
        low, weight_low = x - high, weight - weight_high
        total = tl.dot(low, weight_high, total, input_precision="tf32")
        total = tl.dot(high, weight_low, total, input_precision="tf32")
        return tl.dot(high, weight_high, total, input_precision="tf32")
    return tl.dot(x, weight, total, input_precision="ieee")


@triton.jit
def _input(x_at, step, channel, length, CHANNELS: tl.constexpr, DEPTH: tl.constexpr):
    """Return [DEPTH, steps] of x, zero where it ends."""
    if CHANNELS % DEPTH == 0:
        length = tl.where(channel < CHANNELS, length, 0)
    mask = ((step >= 0) & (step < length))[None, :]
    if CHANNELS % DEPTH != 0:
        mask = mask & (channel + tl.arange(0, DEPTH) < CHANNELS)[:, None]
    return tl.load(x_at, mask=mask, other=0.0)


@triton.jit(do_not_specialize=["length", "tiles", "batch_stride", "channel_stride"])
def upsample_conv1d_kernel(
    x,
    weight,
    bias,
    snake,
    residual,
    out,
    length,
    tiles,
    batch_stride,
    channel_stride,
    ACTIVATION: tl.constexpr,
    CHANNELS_IN: tl.constexpr,
    CHANNELS_OUT: tl.constexpr,
    STRIDE: tl.constexpr,
    TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    PHASES: tl.constexpr,
    DEPTH: tl.constexpr,
    STEPS: tl.constexpr,
    CHUNKED: tl.constexpr,
):
    """Fill `out`; a program writes STEPS * STRIDE output steps of ROWS / PHASES channels."""
    GROUP: tl.constexpr = ROWS // PHASES
    GROUPS: tl.constexpr = (CHANNELS_OUT + GROUP - 1) // GROUP
    PRODUCTS: tl.constexpr = (CHANNELS_IN + DEPTH - 1) // DEPTH * TAPS
    FRONT: tl.constexpr = (TAPS - 1) * STRIDE // 2
    group = tl.program_id(0) % GROUPS
    first = tl.program_id(0) // GROUPS % tiles * STEPS
    clip = (tl.program_id(0) // GROUPS // tiles).to(tl.int64)

    step = first + FRONT // STRIDE + tl.arange(0, STEPS)
    depth = tl.arange(0, DEPTH)
    row = group * ROWS + tl.arange(0, ROWS)
    channel_stride = channel_stride.to(tl.int64)
    x_at = x + clip * batch_stride + depth[:, None] * channel_stride + step[None, :]
    weight_at = weight + row[None, :] * (PRODUCTS * DEPTH) + depth[:, None]
    total = tl.zeros((STEPS, ROWS), tl.float32)
    ahead = _input(x_at, step, 0, length, CHANNELS_IN, DEPTH)
    for product in range(PRODUCTS):
        active = ahead.to(tl.float32)
        following = product + 1
        x_at += tl.where(following % TAPS == 0, DEPTH * channel_stride + (TAPS - 1), -1)
        ahead = _input(
            x_at, step - following % TAPS, following // TAPS * DEPTH, length, CHANNELS_IN, DEPTH
        )
        half_turns, inverse = 0.0, 0.0
        if ACTIVATION == "snake":
            channel = product // TAPS * DEPTH + depth
            known = channel < CHANNELS_IN
            half_turns = tl.load(snake + channel, mask=known, other=0.0)[:, None]
            inverse = tl.load(snake + CHANNELS_IN + channel, mask=known, other=0.0)[:, None]
        active = activate(active, half_turns, inverse, ACTIVATION).to(x.dtype.element_ty)
        part = tl.load(weight_at + product * DEPTH)
        if CHUNKED:
            total += _product(tl.trans(active), part, tl.zeros((STEPS, ROWS), tl.float32))
        else:
            total = _product(tl.trans(active), part, total)

    interleaved = tl.permute(tl.reshape(total, (STEPS, GROUP, PHASES)), (1, 0, 2))
    y = tl.reshape(interleaved, (GROUP, STEPS * PHASES))
    place = tl.arange(0, STEPS * PHASES)
    begin = first * STRIDE - FRONT % STRIDE
    if PHASES != STRIDE:
        phase = place % PHASES
        place = tl.where(phase < STRIDE, place // PHASES * STRIDE + phase, -begin - 1)
    channel = group * GROUP + tl.arange(0, GROUP)
    inside = (place >= -begin) & (place < length * STRIDE - begin)
    mask = (channel < CHANNELS_OUT)[:, None] & inside[None, :]
    row_at = (clip * CHANNELS_OUT + channel) * (length * STRIDE) + begin
    if bias is not None:
        y += tl.load(bias + channel, mask=channel < CHANNELS_OUT, other=0.0).to(tl.float32)[:, None]
    if residual is not None:
        at = residual + row_at[:, None] + place[None, :]
        y += tl.load(at, mask=mask, other=0.0).to(tl.float32)
    at = out + row_at[:, None] + place[None, :]
    tl.store(at, y.to(out.dtype.element_ty), mask=mask)
