"""conv2d on Triton: an implicit product of matrices, in float16 halves or in three TF32 products.

A program computes a tile of output positions of one clip, with up to 128 output channels. The input
has its channels next to each other, so the steps that one row of the convolution's kernel covers
are one run of memory. The convolution is then a product of matrices whose left side is never built:
for each row of the kernel, the runs of all positions times a slice of the weights.

Tensor cores have no float32 products, so they are made of shorter ones. Where a bound on the input
is known, because a norm comes first, input and weights are scaled by powers of two and written as
two float16 halves (`halves`): a product is low * high + high * low + high * high. Where no bound is
known, both are cut into the part that TF32 holds and the rest. This needs no scale, because TF32
has the range of float32, and runs at half the rate.

Tensor cores cut off the sum so far, where float32 arithmetic rounds it. So a sum is closed after 64
products or fewer, and the closed sums are added in true float32.

Error against float64, for the sum of K products x * w. In halves a number of the input is off by at
most 2^-22 of itself or 2^-39 of the bound, whichever is more, and a weight likewise by 2^-22 or
2^-39 of the largest of its channel. The product of the low halves, which is left out, is at most
2^-22 of the whole. Three TF32 products are off by at most 3 * 2^-21 instead of these three terms.
A closed sum is cut off 12 times, by at most 2^-23 of its largest partial sum, and the addition of
K / 64 of them or more rounds by 2^-24 each. `tests/kernels/test_conv2d.py` adds these terms up and
holds the kernel to them. It also checks that the root mean square of the error in halves is below
that of a float32 convolution, which rounds K times.

Traffic for each position of C input and D output channels: 4 C bytes for each tap, from the cache
but for the first, and 4 D bytes written; 4 D more with a residual. Arithmetic is 6 K D FLOP.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..activations import activate
from ..tf32 import cut, takes_tf32


@triton.jit(
    do_not_specialize=[
        "rows_in",
        "steps_in",
        "rows_out",
        "steps_out",
        "residual_clip",
        "residual_row",
        "products",
    ]
)
def conv2d_kernel(
    x,
    x_low,
    x_scale,
    weight,
    weight_low,
    factor,
    bias,
    row_bias,
    norm_weight,
    norm_bias,
    residual,
    out,
    out_low,
    out_scale,
    rows_in,
    steps_in,
    rows_out,
    steps_out,
    residual_clip,
    residual_row,
    products,
    CHANNELS: tl.constexpr,
    RUN: tl.constexpr,
    STRIDE_ROWS: tl.constexpr,
    STRIDE_STEPS: tl.constexpr,
    PADDING: tl.constexpr,
    COLUMNS: tl.constexpr,
    UP_ROWS: tl.constexpr,
    UP_STEPS: tl.constexpr,
    CHANNELS_OUT: tl.constexpr,
    EPSILON: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POSITIONS: tl.constexpr,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Fill out [clips, rows, steps, CHANNELS_OUT] from x [clips, rows, steps, CHANNELS].

    Both are float32, or float16 with the low halves in `x_low` and `out_low`. A column is a
    channel at one of the UP_ROWS * UP_STEPS places of a position; `steps_out` and `rows_out` count
    positions. `residual_clip` and `residual_row` are strides in positions.
    """
    BLOCKS: tl.constexpr = (RUN + DEPTH - 1) // DEPTH
    GROUPS: tl.constexpr = (COLUMNS + TILE - 1) // TILE
    positions = rows_out * steps_out
    tiles = tl.cdiv(positions, POSITIONS)
    group = tl.program_id(0) % GROUPS
    clip = (tl.program_id(0) // GROUPS // tiles).to(tl.int64)
    place = tl.program_id(0) // GROUPS % tiles * POSITIONS + tl.arange(0, POSITIONS)
    known = place < positions
    row, step = place // steps_out, place % steps_out

    first_row = row * STRIDE_ROWS - PADDING
    row_size = steps_in * CHANNELS
    depth = tl.arange(0, DEPTH)
    x_at = (first_row * row_size + step * (STRIDE_STEPS * CHANNELS))[:, None] + depth[None, :]
    x += clip * rows_in * row_size
    if x_low is not None:
        x_low += clip * rows_in * row_size
    column = group * TILE + tl.arange(0, TILE)
    weight_at = column[None, :] * (products * DEPTH) + depth[:, None]
    total = tl.zeros([POSITIONS, TILE], tl.float32)
    for product in range(products):
        tap, first = product // BLOCKS, product % BLOCKS * DEPTH
        from_row = first_row + tap
        mask = (known & (from_row >= 0) & (from_row < rows_in))[:, None]
        if RUN % DEPTH != 0:
            mask = mask & (first + depth < RUN)[None, :]
        at = x_at + (tap * row_size + first)
        high = tl.load(x + at, mask=mask, other=0.0)
        w = tl.load(weight + weight_at + product * DEPTH)
        w_low = tl.load(weight_low + weight_at + product * DEPTH)
        closed = tl.zeros([POSITIONS, TILE], tl.float32)
        if x_low is None:
            closed = _product_of_tf32(high, w, w_low, closed)
        else:
            low = tl.load(x_low + at, mask=mask, other=0.0)
            closed = tl.dot(low, w, closed)
            closed = tl.dot(high, w_low, closed)
            closed = tl.dot(high, w, closed)
        total += closed

    y = total * tl.load(factor + column)[None, :]
    if x_low is not None:
        y *= tl.load(x_scale + 1)
    real = column < COLUMNS
    channel, up_row, up_step = column, 0, 0
    if COLUMNS != CHANNELS_OUT:
        channel = column % CHANNELS_OUT
        up_row = (column // (UP_STEPS * CHANNELS_OUT))[None, :]
        up_step = (column // CHANNELS_OUT % UP_STEPS)[None, :]
    if bias is not None:
        y += tl.load(bias + channel, mask=real, other=0.0)[None, :]
    row_out = (row * UP_ROWS)[:, None] + up_row
    step_out = (step * UP_STEPS)[:, None] + up_step
    inside = known[:, None] & real[None, :]
    if row_bias is not None:
        at = row_bias + row_out * CHANNELS_OUT + channel[None, :]
        y += tl.load(at, mask=inside, other=0.0)
    if norm_weight is not None:
        y -= tl.sum(y, axis=1)[:, None] / CHANNELS_OUT
        y = tl.where(real[None, :], y, 0.0)
        y *= 1 / tl.sqrt(tl.sum(y * y, axis=1)[:, None] / CHANNELS_OUT + EPSILON)
        y *= tl.load(norm_weight + channel, mask=real, other=0.0)[None, :]
        y += tl.load(norm_bias + channel, mask=real, other=0.0)[None, :]
    y = activate(y, 0.0, 0.0, ACTIVATION)
    if residual is not None:
        at = (row_out * residual_row + step_out) * CHANNELS_OUT + channel[None, :]
        residual += clip * residual_clip * CHANNELS_OUT
        y += tl.load(residual + at, mask=inside, other=0.0)
    if out_low is None:
        at = (row_out * (steps_out * UP_STEPS) + step_out) * CHANNELS_OUT + channel[None, :]
        out += clip * positions * (UP_ROWS * UP_STEPS * CHANNELS_OUT)
        tl.store(out + at, y, mask=inside)
    else:
        WIDTH: tl.constexpr = (CHANNELS_OUT + 31) // 32 * 32
        y *= tl.load(out_scale)
        high = y.to(tl.float16)
        at = (place * WIDTH)[:, None] + column[None, :]
        inside = known[:, None] & (column < WIDTH)[None, :]
        tl.store(out + clip * positions * WIDTH + at, high, mask=inside)
        low = (y - high.to(tl.float32)).to(tl.float16)
        tl.store(out_low + clip * positions * WIDTH + at, low, mask=inside)


@triton.jit
def _product_of_tf32(x, weight, weight_low, total):
    """Return total + x @ (weight + weight_low), small products first."""
    if takes_tf32():
        high = cut(x)
        total = tl.dot(x - high, weight, total, input_precision="tf32")
        total = tl.dot(high, weight_low, total, input_precision="tf32")
        return tl.dot(high, weight, total, input_precision="tf32")
    return tl.dot(x, weight + weight_low, total, input_precision="ieee")
