"""Run a ConvNeXt block in channels-last memory: three launches in float32, two in 16 bits.

`convnext1d_norm` turns a few steps of all channels into normalised vectors: one load for each tap
(neighbouring taps share them in the cache), a sum, and mean and variance in float32.

In float32 the linear layers are two launches of `conv2d_kernel` on float16 halves, as convolutions
of 1 x 1. The norm writes halves. The first product adds its bias, applies GELU and writes halves;
the second adds its bias and the skip and writes float32. `weights` has their matrices.

In 16 bits `convnext1d_mlp` takes a tile of steps through both layers, and the hidden layer, the
widest tensor, never leaves the chip. It computes a slice of hidden channels at a time, applies
GELU, and multiplies it into the sums of all output channels. For float32, halves take so much room
that a slice would have 16 hidden channels, and most of a tensor core would be idle.

Traffic for each step of C channels and H hidden ones, in float32: the norm reads and writes 4 C
bytes, the first product reads 4 C and writes 4 H, the second reads 4 H, and 4 C for the skip, and
writes 4 C. That is 20 C + 8 H, or 9 KiB for 256 and 512; each tile of columns reads its input again
from the cache. The plain chain moves 24 KiB: transposed copies, norm, skip and scale 8, hidden
layer 16. In 16 bits it is 10 C, 2.5 KiB. Arithmetic is 4 C H FLOP, for float32 three times that in
float16, and 2 C for each tap.

Error of float32 against float64, with u = 2^-24, to first order:

1. K taps and a bias round K + 1 times, each by u of the sum of absolute terms.
2. A sum of C numbers rounds each of them 16 + log2 C times at most, so that mean and deviation are
   off by this and by what (1) left in their terms. Both are passed on divided by the deviation.
3. Halves of a normalised number are off by 2^-22 of it, or by 2^-39 of sqrt(C) if that is more.
4. The first product passes on (2) and (3) times its weights, and has the error of `conv2d_kernel`.
5. The slope of GELU is 1.13 at most. To compute it rounds by 4 u of its argument.
6. Halves of the hidden layer are off by 2^-22, or by 2^-39 of the bound that `weights` derives.
7. The second product is like the first. Bias and skip round by u of what they are added to.

`tests/kernels/test_convnext1d.py` adds these terms up and holds the kernels to them. On random data
the error is less than that of the plain chain in float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..activations import activate
from ..channel_norm.kernels import centred, vector


@triton.jit(do_not_specialize=["clip_steps", "steps", "rows"])
def convnext1d_norm(
    x,
    taps,
    depthwise_bias,
    norm_weight,
    norm_bias,
    scale,
    out,
    out_low,
    clip_steps,
    steps,
    rows,
    CHANNELS: tl.constexpr,
    KERNEL: tl.constexpr,
    EPSILON: tl.constexpr,
    WIDTH: tl.constexpr,
    C_TILE: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Fill out [batch, rows, WIDTH] from x [batch, clip_steps, CHANNELS].

    Channels after the last are zeros. Rows after `steps` hold some finite numbers. With `out_low`,
    of out's shape, both are the halves of scaled numbers, without weight and bias of the norm.
    """
    programs = tl.cdiv(rows, STEPS)
    clip = (tl.program_id(0) // programs).to(tl.int64)
    step = (tl.program_id(0) % programs) * STEPS + tl.arange(0, STEPS)[:, None]
    channel = tl.arange(0, C_TILE)[None, :]
    inside = (step < steps) & (channel < CHANNELS)
    x += clip * clip_steps * CHANNELS
    y = tl.zeros([STEPS, C_TILE], tl.float32) + vector(depthwise_bias, channel, CHANNELS)
    for tap in range(KERNEL):
        weight = vector(taps + tap * CHANNELS, channel, CHANNELS)
        at = x + (step + tap) * CHANNELS + channel
        y += weight * tl.load(at, mask=inside, other=0.0).to(tl.float32)
    y, _ = centred(y, channel, CHANNELS, EPSILON)
    inside = (step < rows) & (channel < WIDTH)
    first = clip * rows * WIDTH
    at = step * WIDTH + channel
    if out_low is None:
        y = y * vector(norm_weight, channel, CHANNELS) + vector(norm_bias, channel, CHANNELS)
        tl.store(out + first + at, y.to(out.dtype.element_ty), mask=inside)
    else:
        y *= tl.load(scale)
        high = y.to(tl.float16)
        tl.store(out + first + at, high, mask=inside)
        tl.store(out_low + first + at, (y - high.to(tl.float32)).to(tl.float16), mask=inside)


@triton.jit(do_not_specialize=["clip_steps", "steps"])
def convnext1d_mlp(
    x,
    normed_steps,
    expand_weight,
    expand_bias,
    contract_weight,
    contract_bias,
    scale,
    out,
    clip_steps,
    steps,
    CHANNELS: tl.constexpr,
    HIDDEN: tl.constexpr,
    C_TILE: tl.constexpr,
    T_TILE: tl.constexpr,
    H_TILE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Fill out [batch, steps, channels] from x (where the skip begins) and the normalised steps.

    The products are weights times activations and not the other way round: on every target fewer
    numbers must then be held twice.
    """
    programs = tl.cdiv(steps, T_TILE)
    clip = (tl.program_id(0) // programs).to(tl.int64)
    step = ((tl.program_id(0) % programs) * T_TILE + tl.arange(0, T_TILE))[None, :]
    row = normed_steps + clip * programs * T_TILE * C_TILE + step * C_TILE
    channel = tl.arange(0, C_TILE)[:, None]
    y = tl.zeros([C_TILE, T_TILE], tl.float32)
    for first in range(0, HIDDEN, H_TILE):
        hidden = first + tl.arange(0, H_TILE)
        z = tl.zeros([H_TILE, T_TILE], tl.float32)
        for begin in range(0, CHANNELS, DEPTH):
            part = begin + tl.arange(0, DEPTH)
            weight = tl.load(
                expand_weight + hidden[:, None] * CHANNELS + part[None, :],
                mask=(hidden < HIDDEN)[:, None] & (part < CHANNELS)[None, :],
                other=0.0,
            )
            z = tl.dot(weight, tl.load(row + part[:, None]), z)
        z += vector(expand_bias, hidden, HIDDEN)[:, None]
        z = activate(z, 0.0, 0.0, "gelu")
        weight = tl.load(
            contract_weight + channel * HIDDEN + hidden[None, :],
            mask=(channel < CHANNELS) & (hidden < HIDDEN)[None, :],
            other=0.0,
        )
        y = tl.dot(weight, z.to(weight.dtype), y)
    y += vector(contract_bias, channel, CHANNELS)
    y *= vector(scale, channel, CHANNELS)
    inside = (channel < CHANNELS) & (step < steps)
    at = step * CHANNELS + channel
    x += clip * clip_steps * CHANNELS
    y += tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    out += clip * steps * CHANNELS
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)
