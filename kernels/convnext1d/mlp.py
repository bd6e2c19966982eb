"""Plan the launch of both linear layers in 16 bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from melcap.ops.convnext1d import Parameters

from ..launch import Launch, power_of_two
from .kernels import convnext1d_mlp


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
    @lru_cache(maxsize=64)
    def of(channels: int) -> Tiling:
        """Return the tiling of a layer."""
        c_tile = max(16, power_of_two(channels))
        wide = c_tile > 256
        return Tiling(
            channels=c_tile,
            steps=32 if wide else 64,
            hidden=32 if wide else 64,
            depth=min(c_tile, 64),
            warps=8 if c_tile > 64 else 4,
            stages=3,
        )


def scratch(out: Tensor) -> Tensor:
    """Allocate the normalised steps, [batch, steps to a whole tile, channels to a whole tile]."""
    batch, steps, channels = out.shape
    tiling = Tiling.of(channels)
    rows = -(-steps // tiling.steps) * tiling.steps
    return torch.empty((batch, rows, tiling.channels), dtype=out.dtype, device=out.device)


def plan_mlp(skip: Tensor, p: Parameters, normed: Tensor, out: Tensor) -> Launch:
    """Return the launch of both linear layers in 16 bits.

    Args:
        skip: [batch, steps, channels], with consecutive steps.
        p: the weights, contiguous.
        normed: the normalised steps, from `scratch`.
        out: [batch, steps, channels], contiguous.
    """
    batch, steps, channels = out.shape
    tiling = Tiling.of(channels)
    return Launch(
        convnext1d_mlp,
        (batch * normed.shape[1] // tiling.steps,),
        {
            "x": skip,
            "normed_steps": normed,
            "expand_weight": p.expand_weight,
            "expand_bias": p.expand_bias,
            "contract_weight": p.contract_weight,
            "contract_bias": p.contract_bias,
            "scale": p.scale,
            "out": out,
            "clip_steps": skip.stride(0) // channels,
            "steps": steps,
        },
        {
            "CHANNELS": channels,
            "HIDDEN": len(p.expand_bias),
            "C_TILE": tiling.channels,
            "T_TILE": tiling.steps,
            "H_TILE": tiling.hidden,
            "DEPTH": tiling.depth,
        },
        warps=tiling.warps,
        stages=tiling.stages,
        products="half",
        wide=128,
        # Left to itself, ptxas takes 64 for sm_100 and spills.
        registers=128 if tiling.channels == 128 else 0,
    )
