"""The ConvNeXt block of Vocos: `convnext1d`."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.errors import InputError
from melcap.inputs import described
from melcap.ops.library import define_operation, wants_gradient
from melcap.ops.numerics import EPSILON, working_dtype
from melcap.ops.precision import without_autocast_for
from melcap.ops.products import linear
from melcap.ops.registry import Tolerance


class Parameters(NamedTuple):
    """The weights of a block, in the order of the operation's arguments."""

    depthwise_weight: Tensor
    depthwise_bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    expand_weight: Tensor
    expand_bias: Tensor
    contract_weight: Tensor
    contract_bias: Tensor
    scale: Tensor


def convnext1d(
    x: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    contract_weight: Tensor,
    contract_bias: Tensor,
    scale: Tensor,
) -> Tensor:
    """Return the output of a ConvNeXt block as in Vocos (arXiv 2306.00814), without padding.

    The block is a depthwise convolution, a layer norm over the channels (epsilon 1e-6), a linear
    layer, GELU (exact), a linear layer and a scale; the input at the centre of the convolution is
    added. Where a gradient is wanted, the block runs in plain PyTorch, whatever the backend.

    Args:
        x: [batch, channels, steps], floating point.
        depthwise_weight: [channels, 1, kernel]; the kernel is odd and at most `steps`.
        depthwise_bias: [channels].
        norm_weight: [channels].
        norm_bias: [channels].
        expand_weight: [hidden, channels].
        expand_bias: [hidden].
        contract_weight: [channels, hidden].
        contract_bias: [channels].
        scale: [channels].

    Returns:
        [batch, channels, steps - kernel + 1], of x's dtype. The channels of a step are next to each
        other in memory. Blocks that follow each other are fastest with x in that layout.

    Raises:
        InputError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> from melcap.ops import convnext1d
        >>> c, h = torch.ones(8), torch.ones(16)
        >>> x, taps = torch.randn(2, 8, 100), torch.randn(8, 1, 7)
        >>> convnext1d(x, taps, c, c, c, torch.ones(16, 8), h, torch.ones(8, 16), c, c).shape
        torch.Size([2, 8, 94])
    """
    kernel = depthwise_weight.shape[-1] if depthwise_weight.ndim == 3 else 0
    if x.ndim != 3 or not x.is_floating_point() or kernel % 2 == 0 or x.shape[2] < kernel:
        raise InputError(
            "convnext1d: x must be floating point [batch, channels, steps] and depthwise_weight "
            "[channels, 1, kernel] with kernel odd and at most steps, "
            f"not {described(x)} and {described(depthwise_weight)}"
        )
    channels, hidden = x.shape[1], len(expand_weight)
    parameters = {
        "depthwise_weight": (depthwise_weight, (channels, 1, kernel)),
        "depthwise_bias": (depthwise_bias, (channels,)),
        "norm_weight": (norm_weight, (channels,)),
        "norm_bias": (norm_bias, (channels,)),
        "expand_weight": (expand_weight, (hidden, channels)),
        "expand_bias": (expand_bias, (hidden,)),
        "contract_weight": (contract_weight, (channels, hidden)),
        "contract_bias": (contract_bias, (channels,)),
        "scale": (scale, (channels,)),
    }
    for name, (parameter, expected) in parameters.items():
        if tuple(parameter.shape) != expected:
            raise InputError(
                f"convnext1d: {name} must be {list(expected)}, not {described(parameter)}"
            )
    arguments = (x, *(parameter for parameter, _ in parameters.values()))
    if wants_gradient(*arguments):
        with without_autocast_for(x):
            return convnext1d_reference(*arguments)
    return torch.ops.melcap.convnext1d(*arguments)


def convnext1d_reference(x: Tensor, *parameters: Tensor) -> Tensor:
    """Compute `convnext1d` in plain PyTorch."""
    w, p = working_dtype(x), Parameters(*parameters)
    y = F.conv1d(x.to(w), p.depthwise_weight.to(w), p.depthwise_bias.to(w), groups=x.shape[1])
    y = y.transpose(1, 2)
    y = F.layer_norm(y, p.norm_weight.shape, p.norm_weight.to(w), p.norm_bias.to(w), EPSILON)
    y = F.gelu(F.linear(y, p.expand_weight.to(w), p.expand_bias.to(w)))
    y = F.linear(y, p.contract_weight.to(w), p.contract_bias.to(w)) * p.scale.to(w)
    return (y + _centre(x, p).transpose(1, 2)).to(x.dtype).contiguous().transpose(1, 2)


def convnext1d_inference(x: Tensor, *parameters: Tensor) -> Tensor:
    """Compute `convnext1d` where no gradient is wanted, in float32 on a CPU by oneDNN.

    The depthwise convolution is a 2D one of a single row, because PyTorch has a layout with
    neighbouring channels for these alone. Without it the input would be copied.
    """
    if x.device.type != "cpu" or any(t.dtype != torch.float32 for t in (x, *parameters)):
        return convnext1d_reference(x, *parameters)
    p = Parameters(*parameters)
    taps = p.depthwise_weight.unsqueeze(2)
    y = F.conv2d(x.unsqueeze(2), taps, p.depthwise_bias, groups=x.shape[1]).squeeze(2).mT
    y = F.layer_norm(y, p.norm_weight.shape, p.norm_weight, p.norm_bias, EPSILON)
    y = linear(y, p.expand_weight, p.expand_bias, "gelu")
    y = linear(y, p.contract_weight, p.contract_bias)
    return torch.addcmul(_centre(x, p).mT, y, p.scale, out=y).mT


def _centre(x: Tensor, p: Parameters) -> Tensor:
    """Return the steps of x that the block adds to its result."""
    cut = p.depthwise_weight.shape[2] // 2
    return x[..., cut : x.shape[2] - cut]


def _fake(x: Tensor, depthwise_weight: Tensor, *_: Tensor) -> Tensor:
    batch, channels, length = x.shape
    steps = length - depthwise_weight.shape[2] + 1
    return x.new_empty((batch, steps, channels)).transpose(1, 2)


def _flops(
    x: tuple[int, ...],
    depthwise_weight: tuple[int, ...],
    *weights: tuple[int, ...],
    out_shape: tuple[int, ...],
) -> int:
    batch, channels, steps = out_shape
    hidden = weights[3][0]
    return 2 * batch * steps * channels * (depthwise_weight[2] + 2 * hidden)


define_operation(
    "convnext1d(Tensor x, Tensor depthwise_weight, Tensor depthwise_bias, Tensor norm_weight, "
    "Tensor norm_bias, Tensor expand_weight, Tensor expand_bias, Tensor contract_weight, "
    "Tensor contract_bias, Tensor scale) -> Tensor",
    reference=convnext1d_reference,
    inference=convnext1d_inference,
    tolerance=Tolerance(atol=2e-5, rtol=2e-5),
    fake=_fake,
    flops=_flops,
    portable=convnext1d_reference,
)
