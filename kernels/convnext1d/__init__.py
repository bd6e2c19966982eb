"""convnext1d on Triton: a norm and two products of float16 halves, or two kernels in 16 bits."""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.ops.convnext1d import Parameters
from melcap.ops.registry import Implementation, Tolerance, register

from ..conv2d.launches import Halves
from ..conv2d.sizes import ROOMY, width_of
from ..launch import interpreted, out_of_reach, run, shared_memory
from .launches import plan_norm, plan_products
from .mlp import plan_mlp, scratch
from .shipped import shipped
from .weights import tables_of, taps_of

__all__ = ["convnext1d", "shipped", "unsupported"]

_MOST_CHANNELS = 4096
_MOST_IN_16_BITS = 512


def convnext1d(x: Tensor, *parameters: Tensor) -> Tensor:
    """Compute `melcap.ops.convnext1d`: float32 on float16 halves, 16 bits with float32 sums."""
    p = Parameters(*parameters)
    batch, channels, length = x.shape
    kernel = p.depthwise_weight.shape[2]
    out = x.new_empty((batch, length - kernel + 1, channels))
    if out.numel():
        fill = _in_float32 if x.dtype == torch.float32 else _in_16_bits
        fill(channels_last(x), kernel // 2, p, out)
    return out.transpose(1, 2)


def _in_float32(x: Tensor, cut: int, p: Parameters, out: Tensor) -> None:
    """Fill out [batch, steps, channels] from x [batch, cut + steps + cut, channels]."""
    batch, steps, channels = out.shape
    tables = tables_of(p)
    normed = Halves.empty(batch, 1, steps, channels, tables.normed)
    hidden = Halves.empty(batch, 1, steps, len(tables.expand_bias), tables.hidden)
    run(plan_norm(x, taps_of(p.depthwise_weight), p.depthwise_bias.contiguous(), None, normed))
    roomy = shared_memory(x.device) >= ROOMY
    for launch in plan_products(x[:, cut:], tables, normed, hidden, out, roomy):
        run(launch)


def _in_16_bits(x: Tensor, cut: int, p: Parameters, out: Tensor) -> None:
    """Fill out [batch, steps, channels] from x [batch, cut + steps + cut, channels]."""
    given = Parameters(*(parameter.contiguous() for parameter in p))
    normed = scratch(out)
    norm = given.norm_weight, given.norm_bias
    run(plan_norm(x, taps_of(p.depthwise_weight), given.depthwise_bias, norm, normed))
    run(plan_mlp(x[:, cut:], given, normed, out))


def channels_last(x: Tensor) -> Tensor:
    """Return x [batch, channels, steps] as [batch, steps, channels] with consecutive steps.

    Clips may lie apart by any number of steps. Anything else is copied.
    """
    channels = x.shape[1]
    last = x.transpose(1, 2)
    apart, step, channel = last.stride()
    return last if (step, channel, apart % channels) == (channels, 1, 0) else last.contiguous()


def unsupported(x: Tensor, *parameters: Tensor) -> list[str]:
    """Return why the kernels cannot run on these arguments; [] if they can."""
    reasons = out_of_reach(x, *parameters)
    devices = {str(tensor.device) for tensor in (x, *parameters)}
    if len(devices) > 1:
        reasons.append(f"tensors are on several devices: {', '.join(sorted(devices))}")
    if any(parameter.dtype != x.dtype for parameter in parameters):
        reasons.append("x and all parameters must have one dtype")
    channels, hidden = x.shape[1], len(Parameters(*parameters).expand_bias)
    if not hidden:
        reasons.append("there are no hidden channels")
    most = _MOST_CHANNELS if x.dtype == torch.float32 else _MOST_IN_16_BITS
    if channels > most:
        reasons.append(f"at most {most} channels of {x.dtype} fit on the chip, not {channels}")
    for name, number, width in (
        ("steps in a clip", x.shape[2], width_of(max(channels, hidden))),
        ("hidden channels", hidden, width_of(channels)),
    ):
        most = 2**31 // width - 128  # the last tile may go beyond them
        if number > most:
            reasons.append(f"at most {most} {name} can be counted, not {number}")
    if x.dtype == torch.bfloat16 and interpreted():
        reasons.append("triton's interpreter computes bfloat16 wrongly")
    return reasons


register(
    "convnext1d",
    "triton",
    Implementation(
        convnext1d,
        {
            torch.float32: Tolerance(atol=2e-5, rtol=2e-5),
            # Relative to the largest output: terms that are rounded to 16 bits may cancel.
            torch.float16: Tolerance(atol=2e-3, rtol=2e-3),
            torch.bfloat16: Tolerance(atol=2e-2, rtol=2e-2),
        },
        unsupported,
    ),
)
