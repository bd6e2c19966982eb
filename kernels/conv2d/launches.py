"""Plan the launches of a convolution from the shapes of its layer and the device alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from melcap.ops.numerics import EPSILON

from ..halves import halves_kernel
from ..launch import Launch, power_of_two
from .kernels import conv2d_kernel
from .sizes import Layer, Tiling, width_of
from .weights import Matrix

NUMBERS = 4096
"""The numbers that a program of `halves_kernel` holds at a time."""


class Halves(NamedTuple):
    """A tensor [clips, rows, steps, width] as float16 halves, with its scale.

    Attributes:
        high: the high halves.
        low: the low halves.
        scale: float32 [2], the scale and its inverse.
    """

    high: Tensor
    low: Tensor
    scale: Tensor

    @staticmethod
    def empty(clips: int, rows: int, steps: int, channels: int, scale: Tensor) -> Halves:
        """Allocate halves on the scale's device."""
        shape = (2, clips, rows, steps, width_of(channels))
        high, low = torch.empty(shape, dtype=torch.float16, device=scale.device)
        return Halves(high, low, scale)


def plan_halves(
    x: Tensor,
    norm: Sequence[Tensor],
    activation: str,
    row_steps: int,
    padding: int,
    out: Halves,
) -> Launch:
    """Return the launch that fills `out` [clips, rows, row_steps + 2 * padding, width].

    Args:
        x: [clips, steps, channels], contiguous, or contiguous with its last two axes swapped.
        norm: weight and bias, or nothing.
        activation: of the norm.
        row_steps: steps of a row of a clip.
        padding: steps before and after each row that are left as they are.
        out: the halves.
    """
    clips, steps, channels = x.shape
    width = out.high.shape[3]
    c_tile = power_of_two(width)
    tile = max(1, NUMBERS // c_tile)
    packed = x.is_contiguous()
    weight, bias = norm or (None, None)
    return Launch(
        halves_kernel,
        (clips * -(-steps // tile),),
        {
            "x": x,
            "norm_weight": weight,
            "norm_bias": bias,
            "scale": out.scale,
            "out": out.high,
            "out_low": out.low,
            "steps": steps,
            "row_steps": row_steps,
            "padding": padding,
        },
        {
            "CHANNELS": channels,
            "WIDTH": width,
            "EPSILON": EPSILON,
            "ACTIVATION": activation,
            "PACKED": packed,
            "C_TILE": c_tile,
            "STEPS": tile,
        },
        wide=128 if packed and channels % 16 == 0 else 0,
    )


def placed(x: Tensor) -> Tensor:
    """Return x [clips, channels, rows, steps] with whole positions of channels between its parts.

    It is copied where its channels are not next to each other, or other strides are no multiples
    of their number.
    """
    channels = x.shape[1]
    fits = (
        (x.stride(1) == 1 or channels == 1)
        and (x.stride(3) == channels or x.shape[3] == 1)
        and (x.stride(2) % channels == 0 or x.shape[2] == 1)
        and (x.stride(0) % channels == 0 or len(x) == 1)
    )
    return x if fits else x.movedim(1, -1).contiguous().movedim(-1, 1)


def plan_conv2d(
    layer: Layer,
    x: Tensor | Halves,
    weights: Matrix,
    out: Tensor | Halves,
    tiling: Tiling,
    *,
    bias: Tensor | None = None,
    rows: Tensor | None = None,
    norm: Sequence[Tensor] = (),
    activation: str = "none",
    residual: Tensor | None = None,
) -> Launch:
    """Return the launch that fills `out`: convolution, bias, rows, norm, activation, residual.

    Args:
        layer: the sizes of the convolution.
        x: [clips, rows, steps, width], contiguous.
        weights: the matrix of the layer.
        out: [clips, rows, steps, channels], contiguous, or halves without upsampling.
        tiling: for the device.
        bias: [channels], contiguous.
        rows: [rows, channels], contiguous.
        norm: weight and bias of a norm of at most `MOST_NORMED` channels, or nothing.
        activation: after the norm.
        residual: [clips, channels, rows, steps], as `placed` returns it.
    """
    given = x if isinstance(x, Halves) else None
    made = out if isinstance(out, Halves) else None
    source = x.high if isinstance(x, Halves) else x
    target = out.high if isinstance(out, Halves) else out
    clips, rows_out, steps_out, _ = target.shape
    rows_out, steps_out = rows_out // layer.up[0], steps_out // layer.up[1]
    residual_clip, residual_row = (
        (0, 0) if residual is None else (residual.stride(i) // residual.shape[1] for i in (0, 2))
    )
    norm_weight, norm_bias = norm or (None, None)
    tiles = -(-rows_out * steps_out // tiling.positions)
    return Launch(
        conv2d_kernel,
        (clips * tiles * -(-layer.columns // tiling.columns),),
        {
            "x": source,
            "x_low": None if given is None else given.low,
            "x_scale": None if given is None else given.scale,
            "weight": weights.high,
            "weight_low": weights.low,
            "factor": weights.factor,
            "bias": bias,
            "row_bias": rows,
            "norm_weight": norm_weight,
            "norm_bias": norm_bias,
            "residual": residual,
            "out": target,
            "out_low": None if made is None else made.low,
            "out_scale": None if made is None else made.scale,
            "rows_in": source.shape[1],
            "steps_in": source.shape[2],
            "rows_out": rows_out,
            "steps_out": steps_out,
            "residual_clip": residual_clip,
            "residual_row": residual_row,
            "products": layer.products,
        },
        {
            "CHANNELS": layer.width,
            "RUN": layer.kernel[1] * layer.width,
            "STRIDE_ROWS": layer.stride[0],
            "STRIDE_STEPS": layer.stride[1],
            "PADDING": layer.padding,
            "COLUMNS": layer.columns,
            "UP_ROWS": layer.up[0],
            "UP_STEPS": layer.up[1],
            "CHANNELS_OUT": layer.columns // (layer.up[0] * layer.up[1]),
            "EPSILON": EPSILON,
            "ACTIVATION": activation,
            "POSITIONS": tiling.positions,
            "TILE": tiling.columns,
            "DEPTH": layer.depth,
        },
        warps=tiling.warps,
        stages=tiling.stages,
        products="half" if given else "tf32",
        wide=128,
        shared=tiling.shared,
    )
