"""Compare channel_norm, forward and backward, with PyTorch's operations."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cases.case import Case, Contenders
from melcap.ops import channel_norm
from melcap.ops.channel_norm import channel_norm_gradient, channel_norm_reference
from melcap.ops.numerics import EPSILON

_LEVELS = {"lite 32 channels": (32, 48, 4), "lite 128 channels": (128, 12, 16)}
"""Channels, rows, and hops of the front end in a step."""


def cases() -> list[Case]:
    """Return the cases that are measured."""
    found = []
    for level, (channels, rows, hops) in _LEVELS.items():
        for dtype in (torch.float32, torch.bfloat16):
            for batch, seconds in ((1, 1), (1, 10), (64, 10)):
                shape = (batch, channels, rows, round(seconds * 44100 / 256 / hops))
                numbers = batch * channels * rows * shape[3]
                clips = f"{level}, {batch} x {seconds} s, {str(dtype).removeprefix('torch.')}"
                for way, call, peers, truth, moved in (
                    ("", _forward, _peers, _truth, 2),
                    (", backward", _backward, _backward_peers, _backward_truth, 3),
                ):
                    found.append(
                        Case(
                            "channel_norm",
                            clips + way,
                            dtype,
                            dtype.itemsize * moved * numbers,
                            10.0 * numbers,
                            "float32 FLOP/s",
                            lambda s=shape, d=dtype: _drawn(s, d, "silu"),
                            call,
                            peers,
                            truth,
                        )
                    )
    for seconds in (1, 10):  # base's vocoder has no activation here, and takes a window at a time
        of_vocoder = (1, 512, round(seconds * 44100 / 256))
        found.append(
            Case(
                "channel_norm",
                f"base 512 channels, 1 x {seconds} s, float32",
                torch.float32,
                4.0 * 2 * math.prod(of_vocoder),
                10.0 * math.prod(of_vocoder),
                "float32 FLOP/s",
                lambda s=of_vocoder: _drawn(s, torch.float32, "none"),
                _forward,
                _peers,
                _truth,
            )
        )
    return found


def _drawn(
    shape: tuple[int, ...], dtype: torch.dtype, activation: str
) -> tuple[Tensor, Tensor, Tensor, str]:
    """Return arguments; images have their channels next to each other, as in the networks."""
    x = torch.randn(shape, device="cuda", dtype=dtype)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    weight, bias = (torch.randn(shape[1], device="cuda") for _ in range(2))
    return x, weight, bias, activation


def _forward(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    return channel_norm(x, weight, bias, activation=activation)


def _backward(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """Return the gradient of x, for x itself as the upstream gradient."""
    gradient: Tensor
    gradient, _, _ = torch.ops.melcap.channel_norm_gradient(x, x, weight, bias, activation)
    return gradient


def _truth(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    exact = weight.double(), bias.double()
    clips = [channel_norm_reference(clip.double(), *exact, activation) for clip in x.split(1)]
    return torch.cat(clips)


def _backward_truth(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    exact = weight.double(), bias.double()
    found = [
        channel_norm_gradient(clip.double(), clip.double(), *exact, activation)[0]
        for clip in x.split(1)
    ]
    return torch.cat(found)


def _chain(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """Return the norm as a chain of operations, in float32 as under autocast."""
    last = x.movedim(1, -1).float()
    y = F.layer_norm(last, weight.shape, weight, bias, EPSILON)
    y = F.silu(y) if activation == "silu" else y
    return y.to(x.dtype).movedim(-1, 1)


def _peers(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Contenders:
    compiled = torch.compile(_chain)
    return {
        "eager": lambda: _chain(x, weight, bias, activation),
        "compiled": lambda: compiled(x, weight, bias, activation),
    }


def _backward_peers(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Contenders:
    """Return contenders for the backward pass alone, of a forward pass that has been kept."""

    def kept(chain: Callable[..., Tensor]) -> Callable[[], Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in (x, weight, bias)]
        y = chain(*leaves, activation)
        return lambda: torch.autograd.grad(y, leaves, x, retain_graph=True)[0]

    return {"eager": kept(_chain), "compiled": kept(torch.compile(_chain))}
