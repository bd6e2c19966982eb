"""Layer norm over the channels of each position, with an activation: `channel_norm`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.errors import InputError
from melcap.inputs import described
from melcap.ops.activations import activate
from melcap.ops.library import (
    Gradient,
    define_operation,
    define_operator,
    implementation_for,
    run,
    wants_gradient,
)
from melcap.ops.numerics import EPSILON, working_dtype
from melcap.ops.precision import without_autocast_for
from melcap.ops.registry import Tolerance


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor, *, activation: str = "none") -> Tensor:
    """Return the layer norm over the channels of each position (epsilon 1e-6), activated.

    Where a gradient is wanted on a CPU, or the function is compiled there, it is plain PyTorch,
    which keeps what the backward pass needs. On a GPU the backward pass is the backend's, which
    computes the forward pass again.

    Args:
        x: [batch, channels, ...], floating point, any number of axes after the channels.
        weight: [channels].
        bias: [channels].
        activation: "none" or "silu".

    Returns:
        x's shape and dtype, computed in float32 (float64 for float64). The channels of a position
        are next to each other in memory.

    Raises:
        InputError: if shapes or activation do not fit.

    Example:
        >>> import torch
        >>> from melcap.ops import channel_norm
        >>> channel_norm(torch.randn(2, 32, 5, 7), torch.ones(32), torch.zeros(32)).shape
        torch.Size([2, 32, 5, 7])
    """
    if x.ndim < 2 or not x.is_floating_point() or not x.shape[1]:
        raise InputError(
            f"channel_norm: x must be floating point [batch, channels, ...], not {described(x)}"
        )
    for name, vector in (("weight", weight), ("bias", bias)):
        if tuple(vector.shape) != (x.shape[1],):
            raise InputError(
                f"channel_norm: {name} must be [{x.shape[1]}], not {described(vector)}"
            )
    if activation not in ("none", "silu"):
        raise InputError(f"channel_norm: activation must be none or silu, not {activation!r}")
    if not wants_gradient(x, weight, bias) and not torch.compiler.is_compiling():
        # Networks call it dozens of times on little data, where an operator's overhead dominates.
        return run("channel_norm", x, weight, bias, activation)
    if x.device.type == "cpu":
        with without_autocast_for(x):
            return channel_norm_reference(x, weight, bias, activation)
    return torch.ops.melcap.channel_norm(x, weight, bias, activation)


def channel_norm_reference(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """Compute `channel_norm` in plain PyTorch."""
    w = working_dtype(x)
    last = x.movedim(1, -1).to(w)
    y = F.layer_norm(last, weight.shape, weight.to(w), bias.to(w), EPSILON)
    return activate(y, activation, None).to(x.dtype).movedim(-1, 1)


def channel_norm_inference(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """Compute `channel_norm` where no gradient is wanted: the activation overwrites the norm."""
    if activation != "silu":
        return channel_norm_reference(x, weight, bias, activation)
    y = channel_norm_reference(x.to(working_dtype(x)), weight, bias, "none")
    return F.silu(y, inplace=True).to(x.dtype)


def channel_norm_gradient(
    upstream: Tensor, x: Tensor, weight: Tensor, bias: Tensor, activation: str
) -> tuple[Tensor, ...]:
    """Return the gradients of x, weight and bias; the forward pass is computed again."""
    w, shape = working_dtype(x), weight.shape
    last, factor, shift = x.movedim(1, -1).to(w), weight.to(w), bias.to(w)
    y, mean, inverse = torch.native_layer_norm(last, shape, factor, shift, EPSILON)
    given = upstream.movedim(1, -1).to(w)
    if activation == "silu":
        given = torch.ops.aten.silu_backward(given, y)
    to_x, to_weight, to_bias = torch.ops.aten.native_layer_norm_backward(
        given, last, shape, mean, inverse, factor, shift, [True, True, True]
    )
    return to_x.to(x.dtype).movedim(-1, 1), to_weight.to(weight.dtype), to_bias.to(bias.dtype)


def _kernel(x: Tensor, *arguments: Any) -> Tensor:
    # It has no products, so that switches for TF32 and the like do not concern it.
    return run("channel_norm", x, *arguments)


def _fake(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty((len(x), *x.shape[2:], x.shape[1])).movedim(-1, 1)


def _gradient_kernel(upstream: Tensor, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    found = implementation_for("channel_norm", x, *arguments)
    return (found.gradient or channel_norm_gradient)(upstream, x, *arguments)


def _gradient_fake(
    _: Tensor, x: Tensor, weight: Tensor, bias: Tensor, activation: str
) -> tuple[Tensor, ...]:
    return _fake(x), torch.empty_like(weight), torch.empty_like(bias)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.activation = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    found = torch.ops.melcap.channel_norm_gradient(upstream, *ctx.saved_tensors, ctx.activation)
    return (*found, None)


define_operation(
    "channel_norm(Tensor x, Tensor weight, Tensor bias, str activation) -> Tensor",
    reference=channel_norm_reference,
    inference=channel_norm_inference,
    tolerance=Tolerance(atol=5e-6, rtol=5e-6),
    fake=_fake,
    kernel=_kernel,
    gradient=Gradient(_keep, _backward),
)
define_operator(
    "channel_norm_gradient(Tensor upstream, Tensor x, Tensor weight, Tensor bias, str activation) "
    "-> (Tensor, Tensor, Tensor)",
    _gradient_kernel,
    _gradient_fake,
)
