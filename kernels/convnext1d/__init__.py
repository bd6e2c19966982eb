"""convnext1d on Triton: the launches of the two kernels in `block`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from melcap.ops.convnext1d import Parameters
from melcap.ops.numerics import EPSILON
from melcap.ops.registry import Implementation, Tolerance, register

from ..launch import Launch, interpreted, out_of_reach, run
from .block import convnext1d_mlp, convnext1d_norm

_MOST_CHANNELS = 512
_NORMED = 4096
"""The numbers that one program normalises, of up to 16 steps."""


@dataclass(frozen=True)
class Tiling:
    """The sizes into which `convnext1d_mlp` is cut.

    They depend on the layer's own dimensions and nothing else. A program holds `steps`, `hidden`
    and `channels` (a power of two) at a time, and reads `depth` channels at a time for the hidden
    layer.
    """

    channels: int
    steps: int
    hidden: int
    depth: int
    warps: int
    stages: int

    @staticmethod
    def of(channels: int, dtype: torch.dtype) -> Tiling:
        """Return the tiling of a layer."""
        c_tile = max(16, triton.next_power_of_2(channels))
        half = dtype != torch.float32
        return Tiling(
            channels=c_tile,
            steps=32 if c_tile > 256 else 64,
            hidden=(32 if c_tile > 256 else 64) if half else (32 if c_tile <= 128 else 16),
            depth=min(c_tile, 64) if half else (32 if 32 < c_tile <= 256 else 16),
            warps=8 if c_tile > 64 else 4,
            stages=3,
        )


def plan(x: Tensor, parameters: Parameters, normed: Tensor, out: Tensor) -> tuple[Launch, Launch]:
    """Return the launches that fill `normed` (from `scratch`), then `out`.

    `x` has consecutive steps; `parameters` and `out` [batch, channels, steps] are contiguous.
    """
    batch, channels, steps = out.shape
    kernel, hidden = parameters.depthwise_weight.shape[2], parameters.expand_weight.shape[0]
    tiling = Tiling.of(channels, x.dtype)
    c_tile = tiling.channels
    lengths = {"batch_stride": x.stride(0), "channel_stride": x.stride(1), "steps": steps}
    normed_steps = min(16, _NORMED // c_tile)
    norm = Launch(
        convnext1d_norm,
        (batch * normed.shape[1] // normed_steps,),
        {
            "x": x,
            "depthwise_weight": parameters.depthwise_weight,
            "depthwise_bias": parameters.depthwise_bias,
            "norm_weight": parameters.norm_weight,
            "norm_bias": parameters.norm_bias,
            "out": normed,
            **lengths,
        },
        {
            "CHANNELS": channels,
            "KERNEL": kernel,
            "EPSILON": EPSILON,
            "C_TILE": c_tile,
            "T_TILE": tiling.steps,
            "STEPS": normed_steps,
        },
        warps=max(1, normed_steps * c_tile // 512),
    )
    mlp = Launch(
        convnext1d_mlp,
        (batch * normed.shape[1] // tiling.steps,),
        {
            "x": x[..., kernel // 2 :],
            "normed": normed,
            "expand_weight": parameters.expand_weight,
            "expand_bias": parameters.expand_bias,
            "contract_weight": parameters.contract_weight,
            "contract_bias": parameters.contract_bias,
            "scale": parameters.scale,
            "out": out,
            **lengths,
        },
        {
            "CHANNELS": channels,
            "HIDDEN": hidden,
            "C_TILE": c_tile,
            "T_TILE": tiling.steps,
            "H_TILE": tiling.hidden,
            "DEPTH": tiling.depth,
        },
        warps=tiling.warps,
        stages=tiling.stages,
        products="tf32" if x.dtype == torch.float32 else "half",
        wide=128,
    )
    return norm, mlp


def scratch(out: Tensor) -> Tensor:
    """Allocate the normalised steps, [batch, steps to a whole tile, channels to a whole tile]."""
    batch, channels, steps = out.shape
    tiling = Tiling.of(channels, out.dtype)
    rows = triton.cdiv(steps, tiling.steps) * tiling.steps
    return torch.empty((batch, rows, tiling.channels), dtype=out.dtype, device=out.device)


def convnext1d(x: Tensor, *parameters: Tensor) -> Tensor:
    """Compute `melcap.ops.convnext1d`; sums, norm and GELU in float32, products of x's dtype."""
    batch, channels, length = x.shape
    out = x.new_empty((batch, channels, length - parameters[0].shape[2] + 1))
    if out.numel():
        x = x if x.stride(2) == 1 else x.contiguous()
        given = Parameters(*(parameter.contiguous() for parameter in parameters))
        for launch in plan(x, given, scratch(out), out):
            run(launch)
    return out


def unsupported(x: Tensor, *parameters: Tensor) -> list[str]:
    """Return why the kernels cannot run on these arguments; [] if they can."""
    reasons = out_of_reach(x, *parameters)
    devices = {str(tensor.device) for tensor in (x, *parameters)}
    if len(devices) > 1:
        reasons.append(f"tensors are on several devices: {', '.join(sorted(devices))}")
    if any(parameter.dtype != x.dtype for parameter in parameters):
        reasons.append("x and all parameters must have one dtype")
    if x.shape[1] > _MOST_CHANNELS:
        reasons.append(f"at most {_MOST_CHANNELS} channels fit on the chip, not {x.shape[1]}")
    apart = max(x.stride(1), x.shape[2])
    if apart * _MOST_CHANNELS >= 2**31:
        most = 2**31 // _MOST_CHANNELS - 1
        reasons.append(f"a clip may have {most} steps, and channels so many apart, not {apart}")
    if x.dtype == torch.bfloat16 and interpreted():
        reasons.append("triton's interpreter computes bfloat16 wrongly")
    return reasons


def shipped() -> dict[str, Launch]:
    """Return the launches of the model and the benchmarks, and the other tilings."""
    single, half, bfloat = torch.float32, torch.float16, torch.bfloat16
    cases = {
        "lite, 256/512": (256, 512, 7, single),
        "lite, 256/512, fp16": (256, 512, 7, half),
        "lite, 256/512, bf16": (256, 512, 7, bfloat),
        "lite, 128/256": (128, 256, 7, single),
        "lite, 128/256, fp16": (128, 256, 7, half),
        "lite, 128/256, bf16": (128, 256, 7, bfloat),
        "Vocos, 512/1536": (512, 1536, 7, single),
        "Vocos, 512/1536, bf16": (512, 1536, 7, bfloat),
        "51/77, 31 taps": (51, 77, 31, single),
        "51/77, 31 taps, fp16": (51, 77, 31, half),
    }
    found: dict[str, Launch] = {}
    for name, (channels, hidden, kernel, dtype) in cases.items():

        def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device="meta")

        out = empty(1, channels, 172)
        parameters = Parameters(
            depthwise_weight=empty(channels, 1, kernel),
            depthwise_bias=empty(channels),
            norm_weight=empty(channels),
            norm_bias=empty(channels),
            expand_weight=empty(hidden, channels),
            expand_bias=empty(hidden),
            contract_weight=empty(channels, hidden),
            contract_bias=empty(channels),
            scale=empty(channels),
        )
        launches = plan(empty(1, channels, 171 + kernel), parameters, scratch(out), out)
        for part, launch in zip(("norm", "mlp"), launches, strict=True):
            found[f"{name}: {part}"] = launch
    return found


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
