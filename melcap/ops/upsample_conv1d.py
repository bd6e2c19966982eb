"""Transposed convolution with its activation and residual: `upsample_conv1d`.

It is for vocoders that upsample in the time domain. The default codec does not: its vocoder ends in
an inverse STFT, and only configurations with upsampling stages use this operation.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.errors import InputError
from melcap.inputs import described
from melcap.ops.activations import ACTIVATIONS, activate
from melcap.ops.library import Gradient, define_operation
from melcap.ops.numerics import working_dtype
from melcap.ops.registry import Tolerance


def upsample_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    *,
    activation: str = "none",
    alpha: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Return a transposed convolution: activation, upsampling by `stride`, bias, residual.

    Vocoders that upsample with transposed convolutions, as HiFi-GAN and BigVGAN do, are made of
    such layers. The codec's default vocoder has none.

    Args:
        x: [batch, channels_in, steps].
        weight: [channels_in, channels_out, kernel], kernel a multiple of stride (the layout of
            `torch.nn.ConvTranspose1d`).
        bias: [channels_out] or None.
        stride: output steps for each input step.
        activation: applied to `x` first: "none", "snake" (with `alpha` [channels_in]),
            "leaky_relu" (slope 0.1), "gelu" or "silu".
        alpha: [channels_in], for snake and for snake only.
        residual: [batch, channels_out, steps * stride], added last.

    Returns:
        [batch, channels_out, steps * stride]: the full result with (kernel - stride) // 2 steps cut
        off before it and the rest after it.

    Raises:
        InputError: if shapes, activation or stride do not fit.

    Example:
        >>> import torch
        >>> from melcap.ops import upsample_conv1d
        >>> upsample_conv1d(torch.randn(1, 8, 10), torch.randn(8, 4, 16), None, 8).shape
        torch.Size([1, 4, 80])
    """
    if x.ndim != 3 or weight.ndim != 3 or weight.shape[0] != x.shape[1] or not x.shape[2]:
        raise InputError(
            "upsample_conv1d: x must be [batch, channels_in, steps] and weight [channels_in, "
            f"channels_out, kernel], not {described(x)} and {described(weight)}"
        )
    for name, vector, size in (
        ("bias", bias, weight.shape[1]),
        ("alpha", alpha, weight.shape[0]),
    ):
        if vector is not None and tuple(vector.shape) != (size,):
            raise InputError(f"upsample_conv1d: {name} must be [{size}], not {described(vector)}")
    if stride < 1 or weight.shape[2] < stride or weight.shape[2] % stride:
        raise InputError(
            f"upsample_conv1d: kernel {weight.shape[2]} is no multiple of stride {stride}"
        )
    if activation not in ACTIVATIONS or (activation == "snake") != (alpha is not None):
        raise InputError(
            f"upsample_conv1d: activation must be one of {', '.join(ACTIVATIONS)}, with alpha for "
            f"snake and for snake only, not {activation!r}"
        )
    expected = (x.shape[0], weight.shape[1], x.shape[2] * stride)
    if residual is not None and tuple(residual.shape) != expected:
        raise InputError(
            f"upsample_conv1d: residual must be {list(expected)}, not {described(residual)}"
        )
    return torch.ops.melcap.upsample_conv1d(x, weight, bias, stride, activation, alpha, residual)


def upsample_conv1d_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    activation: str,
    alpha: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """Compute `upsample_conv1d` in plain PyTorch."""
    dtype = working_dtype(x)
    bias = None if bias is None else bias.to(dtype)
    active = activate(x.to(dtype), activation, alpha)
    y = F.conv_transpose1d(active, weight.to(dtype), bias, stride)
    left = (weight.shape[2] - stride) // 2
    y = y[..., left : left + x.shape[2] * stride]
    if residual is not None:
        y = y + residual
    return y.to(x.dtype).contiguous()


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, *_: Any) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[1], x.shape[2] * stride))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.stride, ctx.activation, alpha, residual = inputs
    ctx.save_for_backward(x, weight, bias, alpha, residual)


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    """Compute the reference once more and differentiate it."""
    leaves: list[Any] = [
        None if saved is None else saved.detach().requires_grad_() for saved in ctx.saved_tensors
    ]
    x, weight, bias, alpha, residual = leaves
    with torch.enable_grad():
        output = upsample_conv1d_reference(
            x, weight, bias, ctx.stride, ctx.activation, alpha, residual
        )
    needed = [leaf for leaf in leaves if leaf is not None]
    found = iter(torch.autograd.grad(output, needed, upstream))
    x, weight, bias, alpha, residual = (None if leaf is None else next(found) for leaf in leaves)
    return x, weight, bias, None, None, alpha, residual


def _flops(x: tuple[int, ...], weight: tuple[int, ...], *_: Any, **__: Any) -> int:
    return 2 * x[0] * x[2] * math.prod(weight)


define_operation(
    "upsample_conv1d(Tensor x, Tensor weight, Tensor? bias, int stride, str activation, "
    "Tensor? alpha, Tensor? residual) -> Tensor",
    reference=upsample_conv1d_reference,
    tolerance=Tolerance(atol=2e-5, rtol=2e-5),
    fake=_fake,
    gradient=Gradient(_keep, _backward),
    flops=_flops,
    portable=upsample_conv1d_reference,
)
