"""channel_norm on Triton, forward and backward: the launches of the two kernels in `kernels`."""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.ops.registry import Implementation, Tolerance, register

from ..launch import interpreted, out_of_reach, run
from .launches import NUMBERS, plan, plan_gradient, scratch, shipped

__all__ = ["channel_norm", "channel_norm_gradient", "shipped", "unsupported"]

_MOST_CHANNELS = 4096


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """Compute `melcap.ops.channel_norm`."""
    out = x.new_empty((len(x), *x.shape[2:], x.shape[1]))
    if out.numel():
        last = x.movedim(1, -1)
        clips, channels = x.shape[:2]
        if x.is_contiguous() and not last.is_contiguous():
            given = x.view(clips, channels, -1).transpose(1, 2)
        else:
            given = last.contiguous().view(1, -1, channels)
        vectors = weight.contiguous(), bias.contiguous()
        run(plan(given, *vectors, activation, out.view(given.shape)))
    return out.movedim(-1, 1)


def channel_norm_gradient(
    upstream: Tensor, x: Tensor, weight: Tensor, bias: Tensor, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias, given that of the result."""
    shape, channels = (len(x), *x.shape[2:], x.shape[1]), x.shape[1]
    out = x.new_empty(shape)
    if not out.numel():
        return out.movedim(-1, 1), torch.zeros_like(weight), torch.zeros_like(bias)
    rows = out.view(-1, channels)
    given = (_rows(upstream, rows), _rows(x, rows))
    sums = scratch(len(rows), channels, x.device)
    run(plan_gradient(*given, weight.contiguous(), bias.contiguous(), activation, rows, sums))
    to_weight, to_bias = sums.sum(0)
    return out.movedim(-1, 1), to_weight.to(weight.dtype), to_bias.to(bias.dtype)


def _rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """Return [batch, channels, ...] in the order of `rows` [steps, channels]."""
    return tensor.movedim(1, -1).contiguous().view(rows.shape)


def unsupported(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> list[str]:
    """Return why the kernels cannot run on these arguments; [] if they can."""
    reasons = out_of_reach(x, weight, bias)
    if not x.device == weight.device == bias.device:
        devices = sorted({str(tensor.device) for tensor in (x, weight, bias)})
        reasons.append(f"tensors are on several devices: {', '.join(devices)}")
    channels = x.shape[1]
    if channels > _MOST_CHANNELS:
        reasons.append(f"at most {_MOST_CHANNELS} channels fit on the chip, not {channels}")
    if x.numel() // max(channels, 1) >= 2**31 - NUMBERS:
        reasons.append(f"{x.numel() // channels} positions are more than a kernel counts")
    if torch.bfloat16 in {x.dtype, weight.dtype, bias.dtype} and interpreted():
        reasons.append("triton's interpreter computes bfloat16 wrongly")
    return reasons


register(
    "channel_norm",
    "triton",
    Implementation(
        channel_norm,
        {
            torch.float32: Tolerance(atol=5e-6, rtol=5e-6),
            torch.float16: Tolerance(atol=1e-5, rtol=6e-4),
            torch.bfloat16: Tolerance(atol=1e-5, rtol=4.5e-3),
        },
        unsupported,
        gradient=channel_norm_gradient,
    ),
)
