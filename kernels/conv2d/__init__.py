"""conv2d on Triton: a norm into halves, and the implicit product of matrices in `kernels`."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.ops.registry import Implementation, Tolerance, register

from ..halves import bound_of_norm, scale_table
from ..launch import out_of_reach, run, shared_memory
from ..weight_cache import remembered
from .launches import Halves, placed, plan_conv2d, plan_halves
from .shipped import shipped
from .sizes import ROOMY, Layer, Tiling, tile_of, width_of
from .weights import Matrix, columns_of_transposed, matrix

__all__ = ["conv2d", "shipped", "unsupported"]

_MOST_CHANNELS = 4096


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    rows: Tensor | None,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
    transposed: bool,
    activation: str,
    bound: float | None,
) -> Tensor:
    """Compute `melcap.ops.conv2d`: float32 on float16 halves behind a norm or with a bound."""
    norm = () if norm_weight is None or norm_bias is None else (norm_weight, norm_bias)
    layer = layer_of(weight, stride, padding, transposed, bool(norm) or bound is not None)
    clips, _, height, steps = x.shape
    rows_out = (height + 2 * padding[0] - layer.kernel[0]) // layer.stride[0] + 1
    steps_out = (steps + 2 * padding[1] - layer.kernel[1]) // layer.stride[1] + 1
    channels = layer.columns // (layer.up[0] * layer.up[1])
    out = x.new_empty((clips, rows_out * layer.up[0], steps_out * layer.up[1], channels))
    if not out.numel():
        return out.movedim(-1, 1)
    if norm:
        given: Tensor | Halves = halves_of(x, norm_table(*norm), norm, activation, padding[1])
    elif bound is not None:
        given = halves_of(x, _bound_table(bound, x.device), (), "none", padding[1])
    else:
        padded = F.pad(x, (padding[1],) * 2) if padding[1] else x
        given = padded.movedim(1, -1).contiguous()
    run(
        plan_conv2d(
            layer,
            given,
            matrix_of(layer, weight, transposed),
            out,
            tiling_of(layer, x.device),
            bias=None if bias is None else bias.contiguous(),
            rows=None if rows is None else _by_row(rows),
            residual=None if residual is None else placed(residual),
        )
    )
    return out.movedim(-1, 1)


def layer_of(
    weight: Tensor, stride: list[int], padding: list[int], transposed: bool, halves: bool
) -> Layer:
    """Return the sizes of a convolution with this weight."""
    outputs, inputs, kernel_rows, kernel_steps = weight.shape
    if transposed:
        columns = inputs * kernel_rows * kernel_steps
        up = (kernel_rows, kernel_steps)
        return Layer(outputs, columns, (1, 1), up=up, halves=halves)
    kernel = (kernel_rows, kernel_steps)
    return Layer(inputs, outputs, kernel, (stride[0], stride[1]), padding[0], halves=halves)


def matrix_of(layer: Layer, weight: Tensor, transposed: bool = False) -> Matrix:
    """Return the matrix of a layer, which is kept for as long as its weight lives."""

    def build() -> Matrix:
        columns = columns_of_transposed(weight) if transposed else weight
        sizes = {"width": layer.width, "depth": layer.depth, "tile": tile_of(layer.columns)}
        return matrix(columns, **sizes, halves=layer.halves)

    return remembered(weight, ("conv2d", layer), build)


def norm_table(weight: Tensor, bias: Tensor) -> Tensor:
    """Return the scale of a norm's output as halves, which is kept with the norm."""
    return remembered(weight, "halves", lambda: scale_table(bound_of_norm(weight, bias)), bias)


@cache  # they are small, and a CUDA graph goes on reading those it was captured with
def _bound_table(bound: float, device: torch.device) -> Tensor:
    return scale_table(torch.tensor(bound, dtype=torch.float64)).to(device)


def _by_row(rows: Tensor) -> Tensor:
    """Return an embedding [channels, rows, 1] as [rows, channels], kept with it."""
    by_row, memory = rows.detach().squeeze(2).t(), torch.contiguous_format
    return remembered(rows, "conv2d", lambda: by_row.clone(memory_format=memory))


def tiling_of(layer: Layer, device: torch.device) -> Tiling:
    """Return the tiling of a layer on a device."""
    return Tiling.of(layer, shared_memory(device) >= ROOMY)


def halves_of(
    x: Tensor, scale: Tensor, norm: tuple[Tensor, ...], activation: str, padding: int
) -> Halves:
    """Return x [clips, channels, rows, steps] as halves, after a norm, with steps of zeros."""
    clips, channels, rows, steps = x.shape
    out = Halves.empty(clips, rows, steps + 2 * padding, channels, scale)
    if padding:
        for half in (out.high, out.low):
            half[:, :, :padding] = 0
            half[:, :, steps + padding :] = 0
    last = x.movedim(1, -1)
    if x.is_contiguous() and not last.is_contiguous():
        given = x.view(clips, channels, -1).transpose(1, 2)
    else:
        given = last.contiguous().view(clips, -1, channels)
    run(plan_halves(given, tuple(v.contiguous() for v in norm), activation, steps, padding, out))
    return out


def unsupported(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    rows: Tensor | None,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
    transposed: bool,
    activation: str,
    bound: float | None,
) -> list[str]:
    """Return why the kernels cannot run on these arguments; [] if they can."""
    tensors = (x, weight, bias, norm_weight, norm_bias, rows, residual)
    reasons = reasons_against(*tensors)
    channels = weight.shape[0 if transposed else 1]
    if norm_weight is not None and channels > _MOST_CHANNELS:
        reasons.append(f"at most {_MOST_CHANNELS} normed channels fit on the chip, not {channels}")
    padded = math.prod(size + 2 * pad for size, pad in zip(x.shape[2:], padding, strict=True))
    widest = max(width_of(channels), math.prod(weight.shape) // channels)
    if padded * widest >= 2**31:
        reasons.append(f"a clip may have {(2**31 - 1) // widest} positions, not {padded}")
    return reasons


def reasons_against(*tensors: Tensor | None) -> list[str]:
    """Return why no kernel of a convolution can work on these tensors."""
    reasons = out_of_reach(*tensors)
    given = [tensor for tensor in tensors if tensor is not None]
    devices = {str(tensor.device) for tensor in given}
    if len(devices) > 1:
        reasons.append(f"tensors are on several devices: {', '.join(sorted(devices))}")
    others = {str(tensor.dtype) for tensor in given if tensor.dtype != torch.float32}
    if others:
        reasons.append(f"all tensors must be float32, not {', '.join(sorted(others))}")
    return reasons


register(
    "conv2d",
    "triton",
    Implementation(conv2d, {torch.float32: Tolerance(atol=2e-5, rtol=2e-5)}, unsupported),
)
