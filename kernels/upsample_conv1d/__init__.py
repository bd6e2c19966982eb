"""upsample_conv1d on Triton: the launch of `polyphase`, and the layers that cuDNN runs."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.ops.activations import activate
from melcap.ops.registry import Implementation, Tolerance, register

from ..activations import snake_table
from ..launch import Launch, interpreted, launched, out_of_reach, run
from ..weight_cache import remembered
from .polyphase import upsample_conv1d_kernel
from .weights import Tiling, matrix


class Layer(NamedTuple):
    """The arguments of a call but for its input; see `melcap.ops.upsample_conv1d`."""

    weight: Tensor
    bias: Tensor | None
    stride: int
    activation: str
    alpha: Tensor | None
    residual: Tensor | None


def plan(x: Tensor, layer: Layer, out: Tensor) -> Launch:
    """Return the launch that fills `out`.

    x is contiguous in time; bias, residual and out are contiguous.
    """
    weight, stride, alpha = layer.weight, layer.stride, layer.alpha
    batch, channels_in, length = x.shape
    _, channels_out, kernel = weight.shape
    half = x.dtype != torch.float32
    tiling = Tiling.of(channels_in, channels_out, kernel, stride, half)
    rows = remembered(weight, (stride, x.dtype), lambda: matrix(weight, stride, x.dtype, tiling))
    snake = None if alpha is None else remembered(alpha, "snake", lambda: snake_table(alpha))
    # The crop does not begin with a phase: its first and last steps lie in half a column each.
    columns = length + ((kernel - stride) // 2 % stride > 0)
    tiles = -(-columns // tiling.steps)
    return Launch(
        upsample_conv1d_kernel,
        (batch * tiles * (len(rows) // tiling.rows),),
        {
            "x": x,
            "weight": rows,
            "bias": layer.bias,
            "snake": snake,
            "residual": layer.residual,
            "out": out,
            "length": length,
            "tiles": tiles,
            "batch_stride": x.stride(0),
            "channel_stride": x.stride(1),
        },
        {
            "ACTIVATION": layer.activation,
            "CHANNELS_IN": channels_in,
            "CHANNELS_OUT": channels_out,
            "STRIDE": stride,
            "TAPS": kernel // stride,
            "ROWS": tiling.rows,
            "PHASES": tiling.phases,
            "DEPTH": tiling.depth,
            "STEPS": tiling.steps,
            "CHUNKED": tiling.chunked,
        },
        warps=tiling.warps,
        stages=2,
        products="half" if half else "tf32",
        wide=128,
    )


def upsample_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    activation: str,
    alpha: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """Compute `melcap.ops.upsample_conv1d`."""
    batch, channels_in, length = x.shape
    channels_out = weight.shape[1]
    if uses_cudnn(channels_in, channels_out, x.dtype):
        return _by_cudnn(x, Layer(weight, bias, stride, activation, alpha, residual))
    out = torch.empty((batch, channels_out, length * stride), dtype=x.dtype, device=x.device)
    if out.numel():
        x = x if x.stride(2) == 1 else x.contiguous()
        bias, residual = (None if t is None else t.contiguous() for t in (bias, residual))
        run(plan(x, Layer(weight, bias, stride, activation, alpha, residual), out))
    return out


def uses_cudnn(channels_in: int, channels_out: int, dtype: torch.dtype) -> bool:
    """Return whether cuDNN runs a layer: 16 bits, and both channel counts 512 or more.

    There cuDNN is near the peak of the tensor cores, and fusion saves little beside the products.
    It never runs float32 layers: without TF32 it has the ordinary cores alone.
    """
    return dtype != torch.float32 and min(channels_in, channels_out) >= 512


def _by_cudnn(x: Tensor, layer: Layer) -> Tensor:
    """Compute the reference with a 16-bit convolution, which no TF32 setting changes."""
    stride, residual = layer.stride, layer.residual
    active = activate(x.float(), layer.activation, layer.alpha).to(x.dtype)
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    y = F.conv_transpose1d(active, layer.weight.to(x.dtype), bias, stride)
    front = (layer.weight.shape[2] - stride) // 2
    y = y[..., front : front + x.shape[2] * stride]
    launched["conv_transpose1d"] += 1
    return (y if residual is None else y + residual).to(x.dtype).contiguous()


def unsupported(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    activation: str,
    alpha: Tensor | None,
    residual: Tensor | None,
) -> list[str]:
    """Return why the kernel cannot run on these arguments; [] if it can."""
    reasons = out_of_reach(x, weight, bias, alpha, residual)
    devices = {str(t.device) for t in (x, weight, bias, alpha, residual) if t is not None}
    if len(devices) > 1:
        reasons.append(f"tensors are on several devices: {', '.join(sorted(devices))}")
    if stride > 16:
        reasons.append(f"strides of 1 to 16 are supported, not {stride}")
    if x.shape[2] * stride >= 2**30:
        reasons.append("a clip may have 2^30 output steps at most")
    if x.dtype == torch.bfloat16 and interpreted():
        reasons.append("triton's interpreter computes bfloat16 wrongly")
    return reasons


_LAYERS = {
    "lite": (256, 128, 8, 4, "snake"),
    "512 to 256": (512, 256, 16, 8, "snake"),
    "256 to 128": (256, 128, 16, 8, "leaky_relu"),
    "128 to 64": (128, 64, 4, 2, "snake"),
    "64 to 32": (64, 32, 4, 2, "leaky_relu"),
    "32 to 32": (32, 32, 10, 5, "gelu"),
    "1024 to 512": (1024, 512, 16, 8, "silu"),
    "3 to 1": (3, 1, 16, 16, "none"),
}
"""Channels in and out, kernel, stride, activation of the layers that benchmarks measure.

The layer named lite is of a vocoder that the default codec had before it ended in an inverse STFT.
"""


def rule_table() -> tuple[tuple[str, str, str, str], ...]:
    """Return (layer, dtype, code that runs it, why) for the layers of the benchmarks."""
    table: list[tuple[str, str, str, str]] = []
    for name, (channels_in, channels_out, _, _, _) in _LAYERS.items():
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            cudnn = uses_cudnn(channels_in, channels_out, dtype)
            if cudnn:
                why = "16 bits and 512 channels or more on both sides"
            elif dtype == torch.float32:
                why = "float32 on tensor cores, activation, bias and residual fused"
            else:
                why = "fewer than 512 channels on a side: activation, bias and residual fused"
            kind = str(dtype).removeprefix("torch.")
            table.append((name, kind, "cuDNN" if cudnn else "Triton", why))
    return tuple(table)


def shipped() -> dict[str, Launch]:
    """Return the launches of the benchmarks, and of a layer at each edge of the tilings."""
    launches = {}
    for name, (channels_in, channels_out, kernel, stride, activation) in _LAYERS.items():
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            if uses_cudnn(channels_in, channels_out, dtype):
                continue
            x = torch.empty(1, channels_in, 172, dtype=dtype, device="meta")
            weight = torch.empty(channels_in, channels_out, kernel, dtype=dtype, device="meta")
            out = torch.empty(1, channels_out, 172 * stride, dtype=dtype, device="meta")
            alpha = x[0, :, 0] if activation == "snake" else None
            residual = None if name == "lite" else out
            layer = Layer(weight, out[0, :, 0], stride, activation, alpha, residual)
            launches[f"{name}, {str(dtype).removeprefix('torch.')}"] = plan(x, layer, out)
    return launches


register(
    "upsample_conv1d",
    "triton",
    Implementation(
        upsample_conv1d,
        {
            torch.float32: Tolerance(atol=2e-5, rtol=2e-5),
            torch.float16: Tolerance(atol=4e-3, rtol=4e-3),
            torch.bfloat16: Tolerance(atol=3e-2, rtol=3e-2),
        },
        unsupported,
        rule_table(),
    ),
)
