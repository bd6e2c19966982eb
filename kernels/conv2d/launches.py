"""Plan the launches of a convolution from the shapes of its layer and the device alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from melcap.ops.numerics import EPSILON

from ..halves import halves_kernel
from ..launch import Launch
from .kernels import conv2d_kernel
from .weights import Matrix

NUMBERS = 4096
"""The numbers that a program of `halves_kernel` holds at a time."""
ROOMY = 200 * 1024
"""The bytes of shared memory with which a program can take a tile of 128 by 128."""


MOST_NORMED = 128
"""The most channels that a norm behind a convolution can have: a program needs all of them."""


def tile_of(columns: int) -> int:
    """Return the columns of a program, to a multiple of which those of a matrix are filled up."""
    return min(MOST_NORMED, max(32, triton.next_power_of_2(columns)))


def width_of(channels: int) -> int:
    """Return the channels of a position in halves, with those that fill them up."""
    return triton.cdiv(channels, 32) * 32


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


@dataclass(frozen=True)
class Layer:
    """The sizes of a convolution.

    Attributes:
        channels: of the input.
        columns: channels of the output, at all places of an upsampled position.
        kernel: (rows, steps).
        stride: (rows, steps).
        padding: rows of zeros above and below. Steps are padded before.
        up: (rows, steps) of the output for each position.
        halves: whether the input is in halves.
    """

    channels: int
    columns: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: int = 0
    up: tuple[int, int] = (1, 1)
    halves: bool = True

    @property
    def width(self) -> int:
        """Return the channels of a position of the input in memory."""
        return width_of(self.channels) if self.halves else self.channels

    @property
    def depth(self) -> int:
        """Return how many products are summed up before the sum is closed."""
        run = self.kernel[1] * self.width
        if self.halves:
            return 64 if run % 64 == 0 else 32
        return 16 if run <= 16 else 32

    @property
    def products(self) -> int:
        """Return how many times `depth` products there are."""
        return self.kernel[0] * triton.cdiv(self.kernel[1] * self.width, self.depth)


@dataclass(frozen=True)
class Tiling:
    """The sizes into which an output is cut. They do not change its bits.

    Attributes:
        positions: of a program.
        columns: of a program.
        warps: of a program.
        stages: of its pipeline.
        shared: bytes of shared memory that a device must have; 0 where any has enough.
    """

    positions: int
    columns: int
    warps: int
    stages: int
    shared: int = 0

    @staticmethod
    def of(layer: Layer, roomy: bool) -> Tiling:
        """Return the tiling for a device with `ROOMY` shared memory or less.

        A program takes all columns where they are few, so that a norm can follow.
        """
        columns = tile_of(layer.columns)
        if columns < 64:
            return Tiling(128, columns, 4, 3 if layer.depth == 32 else 2)
        if not roomy or not layer.halves:
            return Tiling(64, columns, 8, 2)
        return Tiling(128, columns, 8, 3 if columns == 128 else 2, ROOMY)


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
    c_tile = triton.next_power_of_2(width)
    tile = max(1, NUMBERS // c_tile)
    packed = x.is_contiguous()
    weight, bias = norm or (None, None)
    return Launch(
        halves_kernel,
        (clips * triton.cdiv(steps, tile),),
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
        residual: [clips, channels, rows, steps] with a stride of 1 between channels.
    """
    given = x if isinstance(x, Halves) else None
    made = out if isinstance(out, Halves) else None
    source = x.high if isinstance(x, Halves) else x
    target = out.high if isinstance(out, Halves) else out
    clips, rows_out, steps_out, _ = target.shape
    rows_out, steps_out = rows_out // layer.up[0], steps_out // layer.up[1]
    strides = (0, 0, 0) if residual is None else (residual.stride(i) for i in (0, 2, 3))
    clip_stride, row_stride, step_stride = strides
    norm_weight, norm_bias = norm or (None, None)
    tiles = triton.cdiv(rows_out * steps_out, tiling.positions)
    return Launch(
        conv2d_kernel,
        (clips * tiles * triton.cdiv(layer.columns, tiling.columns),),
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
            "residual_clip": clip_stride,
            "residual_row": row_stride,
            "residual_step": step_stride,
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
