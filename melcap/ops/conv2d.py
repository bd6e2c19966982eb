"""A 2D convolution with what surrounds it in a network: `conv2d`."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.errors import InputError
from melcap.inputs import described
from melcap.ops.channel_norm import channel_norm
from melcap.ops.library import define_operation, run_exactly, wants_gradient
from melcap.ops.numerics import working_dtype
from melcap.ops.products import linear
from melcap.ops.registry import Tolerance

Pair = tuple[int, int]


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    transposed: bool = False,
    norm: tuple[Tensor, Tensor] | None = None,
    activation: str = "none",
    rows: Tensor | None = None,
    residual: Tensor | None = None,
    bound: float | None = None,
) -> Tensor:
    """Return a 2D convolution: norm, activation, convolution, bias, row embedding, residual.

    Where a gradient is wanted, the parts run one after the other, `channel_norm` and PyTorch's
    convolution, which follows autocast.

    Args:
        x: [batch, channels_in, rows, steps], floating point.
        weight: [channels_out, channels_in, kernel_rows, kernel_steps], or transposed [channels_in,
            channels_out, kernel_rows, kernel_steps].
        bias: [channels_out] or None.
        stride: (rows, steps).
        padding: zeros (rows, steps) on either side; none if transposed.
        transposed: whether to upsample by the stride, which then is the size of the kernel.
        norm: weight and bias [channels_in] of a `channel_norm` that x goes through first.
        activation: of the norm, "none" or "silu".
        rows: [channels_out, rows_out, 1], added to the result.
        residual: of the result's shape, added last.
        bound: a number that no |x| exceeds, where the caller knows one and there is no norm. It
            makes the triton backend faster; an x beyond it gives the right result there or NaN.

    Returns:
        [batch, channels_out, rows_out, steps_out] of x's dtype, computed in float32 (float64 for
        float64). The channels of a position are next to each other in memory.

    Raises:
        InputError: if shapes, stride, padding, activation or bound do not fit.

    Example:
        >>> import torch
        >>> from melcap.ops import conv2d
        >>> x, weight = torch.randn(2, 8, 12, 50), torch.randn(16, 8, 3, 3)
        >>> conv2d(x, weight, padding=(1, 0), norm=(torch.ones(8), torch.zeros(8))).shape
        torch.Size([2, 16, 12, 48])
    """
    _check_sizes(x, weight, stride, padding, transposed)
    channels_out = weight.shape[1 if transposed else 0]
    norm_weight, norm_bias = norm or (None, None)
    shape = _out_shape(x.shape, weight.shape, stride, padding, transposed)
    for name, tensor, expected in (
        ("bias", bias, (channels_out,)),
        ("norm's weight", norm_weight, (x.shape[1],)),
        ("norm's bias", norm_bias, (x.shape[1],)),
        ("rows", rows, (channels_out, shape[2], 1)),
        ("residual", residual, shape),
    ):
        if tensor is not None and tuple(tensor.shape) != expected:
            raise InputError(f"conv2d: {name} must be {list(expected)}, not {described(tensor)}")
    if activation not in ("none", "silu") or (activation != "none" and norm is None):
        raise InputError(
            f"conv2d: activation must be none, or silu after a norm, not {activation!r}"
        )
    if bound is not None and (norm is not None or not 0 <= bound < math.inf):
        raise InputError(
            f"conv2d: bound must be a finite number, for an x without norm, not {bound}"
        )
    tensors = (x, weight, bias, norm_weight, norm_bias, rows, residual)
    arguments = (*tensors, [*stride], [*padding], transposed, activation, bound)
    compiling = torch.compiler.is_compiling()
    if wants_gradient(*(t for t in tensors if t is not None)) or (
        compiling and x.device.type == "cpu"
    ):
        return conv2d_in_parts(*arguments)
    if compiling:
        return torch.ops.melcap.conv2d(*arguments)
    # Networks call it dozens of times on little data, where an operator's overhead dominates.
    return run_exactly("conv2d", *arguments)


def conv2d_in_parts(
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
    """Compute `conv2d` from operations that autograd and autocast follow."""
    if norm_weight is not None and norm_bias is not None:
        x = channel_norm(x, norm_weight, norm_bias, activation=activation)
    if x.shape[1] == 1:
        # oneDNN 3.11 computes some single-channel images wrongly whose strides are those of
        # channels-last memory. These are the same numbers with ordinary strides.
        x = x.flatten(1).view(x.shape)
    if transposed:
        y = F.conv_transpose2d(x, weight, bias, stride)
    else:
        y = F.conv2d(x, weight, bias, stride, padding)
    if rows is not None:
        y = y + rows
    return y if residual is None else residual + y


def conv2d_inference(x: Tensor, weight: Tensor, bias: Tensor | None, *arguments: Any) -> Tensor:
    """Compute `conv2d` where no gradient is wanted, as a linear layer where it is nothing else.

    On a CPU oneDNN multiplies a kernel of 1 x 1 faster as a matrix than as a convolution.
    """
    *others, stride, padding, transposed, _, _ = arguments
    linear_alone = (
        tuple(weight.shape[2:]) == (1, 1)
        and bias is not None
        and all(tensor is None for tensor in others)  # norm, rows and residual
        and [*stride, *padding] == [1, 1, 0, 0]
        and not transposed
    )
    if x.device.type != "cpu" or not linear_alone:
        return conv2d_reference(x, weight, bias, *arguments)
    assert bias is not None
    w = working_dtype(x)
    y = linear(x.movedim(1, -1).to(w), weight[..., 0, 0].to(w), bias.to(w))
    return y.to(x.dtype).movedim(-1, 1)


def conv2d_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    rows: Tensor | None,
    residual: Tensor | None,
    *arguments: Any,
) -> Tensor:
    """Compute `conv2d` in plain PyTorch, but for the norm, which follows the backend in force."""
    w = working_dtype(x)
    bias, norm_weight, norm_bias = (
        None if t is None else t.to(w) for t in (bias, norm_weight, norm_bias)
    )
    given = (x.to(w), weight.to(w), bias, norm_weight, norm_bias, None, None)
    y = conv2d_in_parts(*given, *arguments)
    for addend in (rows, residual):
        if addend is not None:
            y += addend  # in place, as nothing else refers to the convolution's result
    return channels_last(y.to(x.dtype))


def channels_last(x: Tensor) -> Tensor:
    """Return x with the channels of a position next to each other, copied where they are not."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def _check_sizes(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, transposed: bool) -> None:
    channels = weight.shape[0 if transposed else 1] if weight.ndim == 4 else None
    if x.ndim != 4 or not x.is_floating_point() or channels != x.shape[1] or not weight.numel():
        raise InputError(
            "conv2d: x must be floating point [batch, channels_in, rows, steps] and weight "
            + ("[channels_in, channels_out, " if transposed else "[channels_out, channels_in, ")
            + f"kernel_rows, kernel_steps], not {described(x)} and {described(weight)}"
        )
    kernel = tuple(weight.shape[2:])
    if min(stride) < 1 or min(padding) < 0:
        raise InputError(
            "conv2d: strides are 1 or more and paddings 0 or more, "
            f"not {tuple(stride)} and {tuple(padding)}"
        )
    if transposed and (kernel != tuple(stride) or max(padding)):
        raise InputError(
            f"conv2d: transposed, a kernel {kernel} takes a stride of its size and no padding, "
            f"not {tuple(stride)} and {tuple(padding)}"
        )
    if not transposed and any(
        size + 2 * pad < taps for size, pad, taps in zip(x.shape[2:], padding, kernel, strict=True)
    ):
        raise InputError(
            f"conv2d: a kernel {kernel} does not fit into {described(x)} with padding "
            f"{tuple(padding)}"
        )


def _out_shape(
    x: tuple[int, ...],
    weight: tuple[int, ...],
    stride: Pair | list[int],
    padding: Pair | list[int],
    transposed: bool,
) -> tuple[int, ...]:
    """Return the shape of the result."""
    if transposed:
        return (x[0], weight[1], x[2] * stride[0], x[3] * stride[1])
    rows, steps = (
        (size + 2 * pad - taps) // by + 1
        for size, pad, taps, by in zip(x[2:], padding, weight[2:], stride, strict=True)
    )
    return (x[0], weight[0], rows, steps)


def _fake(x: Tensor, weight: Tensor, *arguments: Any) -> Tensor:
    *_, stride, padding, transposed, _activation, _bound = arguments
    batch, channels, rows, steps = _out_shape(x.shape, weight.shape, stride, padding, transposed)
    return x.new_empty((batch, rows, steps, channels)).movedim(-1, 1)


define_operation(
    "conv2d(Tensor x, Tensor weight, Tensor? bias, Tensor? norm_weight, Tensor? norm_bias, "
    "Tensor? rows, Tensor? residual, int[] stride, int[] padding, bool transposed, "
    "str activation, float? bound) -> Tensor",
    reference=conv2d_reference,
    inference=conv2d_inference,
    tolerance=Tolerance(atol=2e-5, rtol=2e-5),
    fake=_fake,
    portable=conv2d_reference,
)
