"""Plan the norm and the float32 products from the shapes of layers and the device alone."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

from melcap.ops.numerics import EPSILON

from ..conv2d.launches import Halves, plan_conv2d
from ..conv2d.sizes import ROOMY, Layer, Tiling
from ..launch import Launch, power_of_two
from .kernels import convnext1d_norm
from .weights import Tables, layers_of

NUMBERS = 4096
"""The numbers that a program normalises, of up to 16 steps."""
DEEP = 1024
"""The products of a sum for more of which a program takes fewer columns."""


@lru_cache(maxsize=64)
def product_tiling(layer: Layer, roomy: bool) -> Tiling:
    """Return the tiling of a float32 product on a device with `ROOMY` shared memory or less.

    Sums are short, so that first loads and results take as long as products. Two programs fit on a
    multiprocessor with that memory, and the products of one hide the loads of the other. In a short
    clip there are few programs, and the deeper the sums the longer they take. So a deep layer is
    cut into more of them.
    """
    smaller = Tiling.of(layer, False)
    if not roomy or smaller.columns < 64:
        return smaller
    if layer.width > DEEP or smaller.columns == 64:
        return Tiling(64, 64, 4, 3, ROOMY)
    return Tiling(64, 128, 4, 2, ROOMY)


def plan_norm(
    x: Tensor,
    taps: Tensor,
    bias: Tensor,
    norm: tuple[Tensor, Tensor] | None,
    out: Tensor | Halves,
) -> Launch:
    """Return the launch of depthwise convolution and norm.

    Args:
        x: [batch, steps and those around them, channels], with consecutive steps.
        taps: [kernel, channels], contiguous.
        bias: [channels], contiguous.
        norm: weight and bias of the norm, contiguous; None for halves.
        out: [batch, rows, width], contiguous, or halves [batch, 1, rows, width].
    """
    made = out if isinstance(out, Halves) else None
    target = out.high if isinstance(out, Halves) else out
    kernel, channels = taps.shape
    batch, rows, width = target.shape[0], target.shape[-2], target.shape[-1]
    c_tile = power_of_two(width)
    tile = max(1, min(16, NUMBERS // c_tile))
    weight, shift = norm or (None, None)
    return Launch(
        convnext1d_norm,
        (batch * -(-rows // tile),),
        {
            "x": x,
            "taps": taps,
            "depthwise_bias": bias,
            "norm_weight": weight,
            "norm_bias": shift,
            "scale": None if made is None else made.scale,
            "out": target,
            "out_low": None if made is None else made.low,
            "clip_steps": x.stride(0) // channels,
            "steps": x.shape[1] - kernel + 1,
            "rows": rows,
        },
        {
            "CHANNELS": channels,
            "KERNEL": kernel,
            "EPSILON": EPSILON,
            "WIDTH": width,
            "C_TILE": c_tile,
            "STEPS": tile,
        },
        warps=max(1, tile * c_tile // 512),
        wide=128 if channels % 16 == 0 else 0,
    )


def plan_products(
    skip: Tensor, tables: Tables, normed: Halves, hidden: Halves, out: Tensor, roomy: bool
) -> tuple[Launch, Launch]:
    """Return the launches that fill `hidden` from `normed`, then `out` from `hidden`.

    Args:
        skip: [batch, steps, channels], consecutive channels.
        tables: the weights.
        normed: [batch, 1, steps, width].
        hidden: [batch, 1, steps, hidden width].
        out: [batch, steps, channels], contiguous.
        roomy: whether the device has `ROOMY` shared memory.
    """
    channels, hidden_channels = out.shape[2], len(tables.expand_bias)
    first, second = layers_of(channels, hidden_channels)
    expand = plan_conv2d(
        first,
        normed,
        tables.expand,
        hidden,
        product_tiling(first, roomy),
        bias=tables.expand_bias,
        activation="gelu",
    )
    contract = plan_conv2d(
        second,
        hidden,
        tables.contract,
        out.unsqueeze(1),
        product_tiling(second, roomy),
        bias=tables.contract_bias,
        residual=skip.transpose(1, 2).unsqueeze(2),
    )
    return expand, contract
