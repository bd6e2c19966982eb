"""Compare convnext1d with the same block as a chain of PyTorch's operations, in both layouts."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from cases.case import Case, Contenders
from melcap.ops import convnext1d
from melcap.ops.convnext1d import convnext1d_reference
from melcap.ops.numerics import EPSILON

_KERNEL = 7
_LAYERS = {
    "lite 256/512": (256, 512, 44100 / 256),
    "lite 128/256": (128, 256, 44100 / 64),
    "Vocos 512/1536": (512, 1536, 24000 / 256),
    "base 512/1536": (512, 1536, 44100 / 256),
}
"""Channels, hidden channels, steps a second."""
_MEASURED = [
    *product(_LAYERS, (torch.float32,), ((1, 0.1), (1, 1), (1, 10), (64, 10))),
    *product(
        ("lite 256/512", "lite 128/256", "Vocos 512/1536"),
        (torch.float16, torch.bfloat16),
        ((1, 10), (64, 10)),
    ),
]
"""Layers, dtypes, and batches with seconds. The networks run in float32."""


def cases() -> list[Case]:
    """Return the cases that are measured."""
    found = []
    for layer, dtype, (batch, seconds) in _MEASURED:
        channels, hidden, rate = _LAYERS[layer]
        steps = round(seconds * rate)
        weights = channels * (2 * hidden + _KERNEL + 5) + hidden
        found.append(
            Case(
                "convnext1d",
                f"{layer}, {batch} x {seconds:g} s, {str(dtype).removeprefix('torch.')}",
                dtype,
                # Each number once; kernels/convnext1d/kernels.py has what launches move.
                dtype.itemsize * (batch * channels * (2 * steps + _KERNEL - 1) + weights),
                batch * steps * channels * (4.0 * hidden + 2 * _KERNEL),
                "float16 FLOP/s",  # of which an exact float32 product takes three
                lambda b=batch, c=channels, h=hidden, t=steps, d=dtype: _drawn(b, c, h, t, d),
                convnext1d,
                _peers,
                _truth,
            )
        )
    return found


def _drawn(
    batch: int, channels: int, hidden: int, steps: int, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Return arguments that keep every layer's variance near one.

    The channels of a step are next to each other in memory, as in the networks.
    """

    def normal(*shape: int, fan_in: int = 1) -> Tensor:
        return (torch.randn(shape, device="cuda") / fan_in**0.5).to(dtype)

    return (
        normal(batch, steps + _KERNEL - 1, channels).transpose(1, 2),
        normal(channels, 1, _KERNEL, fan_in=_KERNEL),
        *(normal(channels) for _ in range(3)),
        normal(hidden, channels, fan_in=channels),
        normal(hidden),
        normal(channels, hidden, fan_in=hidden),
        *(normal(channels) for _ in range(2)),
    )


def _truth(x: Tensor, *parameters: Tensor) -> Tensor:
    exact = [parameter.double() for parameter in parameters]
    return torch.cat([convnext1d_reference(clip.double(), *exact) for clip in x.split(1)])


def _peers(x: Tensor, *parameters: Tensor) -> Contenders:
    """Return the chain in x's own dtype; the reference computes in float32 at least.

    It runs in channels-last memory and in PyTorch's own layout, which it is given and returns.
    """
    apart = x.contiguous()

    def chain(x: Tensor) -> Tensor:
        return _chain(x, *parameters)

    def chain_apart(x: Tensor) -> Tensor:
        return chain(x).contiguous()

    compiled, compiled_apart = torch.compile(chain), torch.compile(chain_apart)
    return {
        "eager": lambda: chain_apart(apart),
        "compiled": lambda: compiled_apart(apart),
        "eager, channels last": lambda: chain(x),
        "compiled, channels last": lambda: compiled(x),
    }


def _chain(x: Tensor, *parameters: Tensor) -> Tensor:
    taps, bias, gain, shift, expand, expand_bias, contract, contract_bias, scale = parameters
    cut = taps.shape[2] // 2
    y = F.conv1d(x, taps, bias, groups=x.shape[1]).transpose(1, 2)
    y = F.layer_norm(y, gain.shape, gain, shift, EPSILON)
    y = F.gelu(F.linear(y, expand, expand_bias))
    y = F.linear(y, contract, contract_bias) * scale
    return (y + x[..., cut : x.shape[2] - cut].transpose(1, 2)).transpose(1, 2)
