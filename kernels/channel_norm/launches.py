"""Plan the launches of both passes from shapes alone."""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.ops.numerics import EPSILON

from ..launch import Launch, power_of_two
from .kernels import channel_norm_gradient_kernel, channel_norm_kernel

NUMBERS = 4096
"""The numbers of one tensor that a program of the forward pass holds at a time."""
PROGRAMS = 1024
"""The most programs that sum up the gradients of weight and bias."""


def plan(x: Tensor, weight: Tensor, bias: Tensor, activation: str, out: Tensor) -> Launch:
    """Return the launch that fills out [clips, steps, channels], contiguous.

    x is [clips, steps, channels] too, and contiguous, or contiguous with its last two axes swapped.
    """
    clips, steps, channels = out.shape
    c_tile = power_of_two(channels)
    tile = max(1, NUMBERS // max(c_tile, 16))
    packed = x.is_contiguous()
    return Launch(
        channel_norm_kernel,
        (clips * -(-steps // tile),),
        {
            "x": x,
            "weight": weight,
            "bias": bias,
            "out": out,
            "steps": steps,
        },
        {
            "CHANNELS": channels,
            "EPSILON": EPSILON,
            "ACTIVATION": activation,
            "PACKED": packed,
            "C_TILE": c_tile,
            "STEPS": tile,
        },
        wide=128 if packed and channels % 16 == 0 else 0,
    )


def plan_gradient(
    upstream: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    activation: str,
    out: Tensor,
    sums: Tensor,
) -> Launch:
    """Return the launch that fills out [steps, channels] and sums [programs, 2, channels].

    `upstream` and x are of out's shape; all are contiguous.
    """
    steps, channels = out.shape
    c_tile = power_of_two(channels)
    aligned = channels % 16 == 0
    return Launch(
        channel_norm_gradient_kernel,
        (len(sums),),
        {
            "upstream": upstream,
            "x": x,
            "weight": weight,
            "bias": bias,
            "out": out,
            "sums": sums,
            "steps": steps,
        },
        {
            "CHANNELS": channels,
            "EPSILON": EPSILON,
            "ACTIVATION": activation,
            "C_TILE": c_tile,
            "STEPS": _gradient_steps(channels),
        },
        # With 4 warps a thread holds 16 numbers of each tensor. That is too many where rows are
        # long, or are read in narrow pieces, each with a mask of its own.
        warps=4 if aligned and c_tile <= 128 else 8,
        registers=128 if c_tile <= 2048 else 255,
        wide=128 if aligned else 0,
    )


def scratch(steps: int, channels: int, device: torch.device) -> Tensor:
    """Allocate [programs, 2, channels] for the sums of the programs."""
    programs = min(PROGRAMS, -(-steps // _gradient_steps(channels)))
    return torch.empty((programs, 2, channels), dtype=torch.float32, device=device)


def _gradient_steps(channels: int) -> int:
    return max(1, NUMBERS // 2 // max(power_of_two(channels), 16))


def shipped() -> dict[str, Launch]:
    """Return the launches of the model, its training and the benchmarks, and the other tilings."""
    single, half, bfloat = torch.float32, torch.float16, torch.bfloat16
    found: dict[str, Launch] = {}
    for name, channels, dtype, activation, packed in (
        ("32, SiLU", 32, single, "silu", True),
        ("32, SiLU, fp16", 32, half, "silu", True),
        ("32, SiLU, bf16", 32, bfloat, "silu", True),
        ("64, SiLU", 64, single, "silu", True),
        ("128, SiLU", 128, single, "silu", True),
        ("128", 128, single, "none", True),
        ("128, SiLU, bf16", 128, bfloat, "silu", True),
        ("256, channels apart", 256, single, "none", False),
        ("256, channels apart, bf16", 256, bfloat, "none", False),
        ("51, SiLU", 51, single, "silu", True),
        ("66, SiLU", 66, single, "silu", True),
        ("256, SiLU", 256, single, "silu", True),
        ("4096, SiLU", 4096, single, "silu", True),
    ):
        x = torch.empty((1, 1000, channels), dtype=dtype, device="meta")
        weight = torch.empty(channels, device="meta")
        given = x if packed else x.mT.contiguous().mT
        found[name] = plan(given, weight, weight, activation, x)
        sums = scratch(1000, channels, x.device)
        if packed:
            found[f"{name}: gradient"] = plan_gradient(
                x[0], x[0], weight, weight, activation, x[0], sums
            )
    return found
