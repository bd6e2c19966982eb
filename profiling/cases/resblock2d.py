"""Compare resblock2d with the same block as a chain of PyTorch's operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cases.case import Case, Contenders, with_tf32
from melcap.ops import resblock2d
from melcap.ops.numerics import EPSILON

_LEVELS = {"lite 32 channels": (32, 48, 4), "lite 64 channels": (64, 24, 8),
           "lite 128 channels": (128, 12, 16)}  # fmt: skip
"""Channels, rows, and hops of the front end in a step."""


def cases() -> list[Case]:
    """Return the cases that are measured."""
    found = []
    for level, (channels, rows, hops) in _LEVELS.items():
        for batch, seconds in ((1, 1), (1, 10), (64, 10)):
            steps = round(seconds * 44100 / 256 / hops)
            numbers = batch * channels * rows * steps
            found.append(
                Case(
                    "resblock2d",
                    f"{level}, {batch} x {seconds} s, float32",
                    torch.float32,
                    8.0 * numbers,
                    2.0 * numbers * 12 * channels,
                    "float16 FLOP/s",  # of which an exact product takes three
                    lambda b=batch, c=channels, r=rows, t=steps: _drawn(b, c, r, t),
                    resblock2d,
                    _peers,
                    _truth,
                )
            )
    return found


def _drawn(batch: int, channels: int, rows: int, steps: int) -> tuple[Tensor, ...]:
    """Return arguments in channels-last memory that keep every layer's variance near one."""

    def normal(*shape: int, fan_in: int = 1) -> Tensor:
        return torch.randn(shape, device="cuda") / fan_in**0.5

    return (
        normal(batch, channels, rows, steps + 2).contiguous(memory_format=torch.channels_last),
        *(normal(channels) for _ in range(2)),
        normal(channels, channels, 3, 3, fan_in=9 * channels),
        *(normal(channels) for _ in range(3)),
        normal(channels, channels, 3, 1, fan_in=3 * channels),
        normal(channels),
    )


def _truth(x: Tensor, *parameters: Tensor) -> Tensor:
    exact = [parameter.double() for parameter in parameters]
    return torch.cat([_chain(clip.double(), *exact) for clip in x.split(1)])


def _chain(x: Tensor, *parameters: Tensor) -> Tensor:
    gain1, shift1, first, bias1, gain2, shift2, second, bias2 = parameters
    y = F.conv2d(_normed(x, gain1, shift1), first, bias1, padding=(1, 0))
    y = F.conv2d(_normed(y, gain2, shift2), second, bias2, padding=(1, 0))
    return x[..., 1:-1] + y


def _normed(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    last = x.movedim(1, -1)
    return F.silu(F.layer_norm(last, gain.shape, gain, shift, EPSILON)).movedim(-1, 1)


def _peers(x: Tensor, *parameters: Tensor) -> Contenders:
    """Return the chain as it is and compiled, and with one TF32 product, which is inexact."""
    chains = {"eager": _chain, "compiled": torch.compile(_chain)}
    exact = {name: lambda chain=chain: chain(x, *parameters) for name, chain in chains.items()}
    inexact = {f"{name}, TF32 (inexact)": with_tf32(call) for name, call in exact.items()}
    return exact | inexact
