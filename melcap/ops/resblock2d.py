"""The residual block of the 2D tokenizer: `resblock2d`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from melcap.errors import InputError
from melcap.inputs import described
from melcap.ops.conv2d import conv2d_in_parts, conv2d_reference
from melcap.ops.library import define_operation, run_exactly, wants_gradient
from melcap.ops.registry import Tolerance


class Parameters(NamedTuple):
    """The weights of a block, in the order of the operation's arguments."""

    norm1_weight: Tensor
    norm1_bias: Tensor
    conv1_weight: Tensor
    conv1_bias: Tensor
    norm2_weight: Tensor
    norm2_bias: Tensor
    conv2_weight: Tensor
    conv2_bias: Tensor


def resblock2d(
    x: Tensor,
    norm1_weight: Tensor,
    norm1_bias: Tensor,
    conv1_weight: Tensor,
    conv1_bias: Tensor,
    norm2_weight: Tensor,
    norm2_bias: Tensor,
    conv2_weight: Tensor,
    conv2_bias: Tensor,
) -> Tensor:
    """Return the output of a residual block of two convolutions, each behind a norm and SiLU.

    Kernels have odd sizes. Rows are padded with zeros, steps are not: the block returns the steps
    whose inputs are all there, and adds the input at the centre of the kernels. The norms are
    `channel_norm`. Where a gradient is wanted, the parts run one after the other, and its
    convolutions follow autocast.

    Args:
        x: [batch, channels, rows, steps], floating point.
        norm1_weight: [channels].
        norm1_bias: [channels].
        conv1_weight: [hidden, channels, kernel_rows, kernel_steps].
        conv1_bias: [hidden].
        norm2_weight: [hidden].
        norm2_bias: [hidden].
        conv2_weight: [channels, hidden, kernel_rows, kernel_steps].
        conv2_bias: [channels].

    Returns:
        [batch, channels, rows, steps less what the kernels need], of x's dtype. The channels of a
        position are next to each other in memory.

    Raises:
        InputError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> from melcap.ops import resblock2d
        >>> one, zero = torch.ones(8), torch.zeros(8)
        >>> first, second = torch.randn(8, 8, 3, 3), torch.randn(8, 8, 3, 1)
        >>> resblock2d(torch.randn(2, 8, 12, 50), one, zero, first, zero, one, zero, second,
        ...            zero).shape
        torch.Size([2, 8, 12, 48])
    """
    given = Parameters(
        norm1_weight,
        norm1_bias,
        conv1_weight,
        conv1_bias,
        norm2_weight,
        norm2_bias,
        conv2_weight,
        conv2_bias,
    )
    _check(x, given)
    compiling = torch.compiler.is_compiling()
    if wants_gradient(x, *given) or (compiling and x.device.type == "cpu"):
        return resblock2d_in_parts(x, *given)
    if compiling:
        return torch.ops.melcap.resblock2d(x, *given)
    return run_exactly("resblock2d", x, *given)


def resblock2d_in_parts(x: Tensor, *parameters: Tensor) -> Tensor:
    """Compute `resblock2d` from operations that autograd and autocast follow."""
    first, second = _arguments(x, Parameters(*parameters))
    return conv2d_in_parts(conv2d_in_parts(x, *first), *second)


def resblock2d_reference(x: Tensor, *parameters: Tensor) -> Tensor:
    """Compute `resblock2d` in plain PyTorch."""
    first, second = _arguments(x, Parameters(*parameters))
    return conv2d_reference(conv2d_reference(x, *first), *second)


def centre(x: Tensor, parameters: Parameters) -> Tensor:
    """Return the steps of x that a block adds to its result."""
    cut = steps_needed(parameters) // 2
    return x[..., cut : x.shape[3] - cut]


def steps_needed(parameters: Parameters) -> int:
    """Return by how many steps the result of a block is shorter than its input."""
    return parameters.conv1_weight.shape[3] + parameters.conv2_weight.shape[3] - 2


def _arguments(x: Tensor, p: Parameters) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the arguments of both convolutions after their input, see `conv2d_in_parts`."""

    def of(weight: Tensor, bias: Tensor, *others: Tensor | None) -> tuple[Any, ...]:
        return (weight, bias, *others, [1, 1], [weight.shape[2] // 2, 0], False, "silu", None)

    first = of(p.conv1_weight, p.conv1_bias, p.norm1_weight, p.norm1_bias, None, None)
    norm = p.norm2_weight, p.norm2_bias
    return first, of(p.conv2_weight, p.conv2_bias, *norm, None, centre(x, p))


def _check(x: Tensor, p: Parameters) -> None:
    kernels = [*p.conv1_weight.shape[2:], *p.conv2_weight.shape[2:]]
    if (
        x.ndim != 4
        or not x.is_floating_point()
        or p.conv1_weight.ndim != 4
        or p.conv2_weight.ndim != 4
        or any(size % 2 == 0 for size in kernels)
        or x.shape[3] <= steps_needed(p)
    ):
        raise InputError(
            "resblock2d: x must be floating point [batch, channels, rows, steps] and both weights "
            "[channels_out, channels_in, kernel_rows, kernel_steps] with odd kernels that fit into "
            f"x, not {described(x)}, {described(p.conv1_weight)} and {described(p.conv2_weight)}"
        )
    channels, hidden = x.shape[1], len(p.conv1_weight)
    for name, tensor, expected in (
        ("norm1_weight", p.norm1_weight, (channels,)),
        ("norm1_bias", p.norm1_bias, (channels,)),
        ("conv1_weight", p.conv1_weight, (hidden, channels, *kernels[:2])),
        ("conv1_bias", p.conv1_bias, (hidden,)),
        ("norm2_weight", p.norm2_weight, (hidden,)),
        ("norm2_bias", p.norm2_bias, (hidden,)),
        ("conv2_weight", p.conv2_weight, (channels, hidden, *kernels[2:])),
        ("conv2_bias", p.conv2_bias, (channels,)),
    ):
        if tuple(tensor.shape) != expected or not tensor.numel():
            raise InputError(
                f"resblock2d: {name} must be {list(expected)}, not {described(tensor)}"
            )


def _fake(x: Tensor, *parameters: Tensor) -> Tensor:
    batch, channels, rows, steps = x.shape
    steps -= steps_needed(Parameters(*parameters))
    return x.new_empty((batch, rows, steps, channels)).movedim(-1, 1)


define_operation(
    "resblock2d(Tensor x, Tensor norm1_weight, Tensor norm1_bias, Tensor conv1_weight, "
    "Tensor conv1_bias, Tensor norm2_weight, Tensor norm2_bias, Tensor conv2_weight, "
    "Tensor conv2_bias) -> Tensor",
    reference=resblock2d_reference,
    tolerance=Tolerance(atol=2e-5, rtol=2e-5),
    fake=_fake,
    portable=resblock2d_reference,
)
