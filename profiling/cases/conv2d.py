"""Compare conv2d with cuDNN's convolutions in channels-last memory."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cases.case import Case, Contenders, with_tf32
from melcap.ops.library import run_exactly
from melcap.ops.numerics import EPSILON


class _Layer(NamedTuple):
    """A layer and its input: channels, rows, steps a second, and what surrounds it."""

    inputs: int
    outputs: int
    rows: int
    rate: float
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    transposed: bool = False
    norm: bool = True
    bound: float | None = None


_RATE = 44100 / 256
_LAYERS = {
    "lite first, 4 to 32": _Layer(4, 32, 48, _RATE / 2, norm=False),
    "lite down, 32 to 64": _Layer(32, 64, 48, _RATE / 2, (2, 2), (2, 2)),
    "lite last, 128 to 8": _Layer(128, 8, 12, _RATE / 8),
    "lite up, 128 to 64": _Layer(128, 64, 12, _RATE / 8, (2, 2), (2, 2), transposed=True),
    "base, 256 to 256": _Layer(256, 256, 64, _RATE / 2, norm=False, bound=1.0),
    "base, 512 to 512": _Layer(512, 512, 32, _RATE / 4, norm=False, bound=1.0),
    "base, 512 to 512, unbounded": _Layer(512, 512, 32, _RATE / 4, norm=False),
}


def cases() -> list[Case]:
    """Return the cases that are measured; a batch of 64 for lite alone."""
    found = []
    for name, layer in _LAYERS.items():
        for batch, seconds in ((1, 1), (1, 10), (64, 10)):
            if batch > 1 and name.startswith("base"):
                continue
            steps = round(seconds * layer.rate)
            positions = batch * layer.rows * steps
            places = math.prod(layer.stride)
            products = layer.inputs * layer.outputs * math.prod(layer.kernel)
            made = positions * places if layer.transposed else positions / places
            computed = positions if layer.transposed else positions / places
            found.append(
                Case(
                    "conv2d",
                    f"{name}, {batch} x {seconds} s, float32",
                    torch.float32,
                    4.0 * (positions * layer.inputs + made * layer.outputs + products),
                    2.0 * computed * products,
                    "float16 FLOP/s",  # of which an exact product takes three
                    lambda b=batch, t=steps, one=layer: _drawn(b, t, one),
                    _call,
                    _peers,
                    _truth,
                )
            )
    return found


def _drawn(batch: int, steps: int, layer: _Layer) -> tuple[Any, ...]:
    """Return the arguments of the operation, x in channels-last memory."""

    def normal(*shape: int, fan_in: int = 1) -> Tensor:
        return torch.randn(shape, device="cuda") / fan_in**0.5

    x = normal(batch, layer.inputs, layer.rows, steps)
    x = x.contiguous(memory_format=torch.channels_last)
    x = x if layer.bound is None else x.tanh()
    fan_in = layer.inputs * (1 if layer.transposed else math.prod(layer.kernel))
    sizes = (layer.inputs, layer.outputs) if layer.transposed else (layer.outputs, layer.inputs)
    weight, bias = normal(*sizes, *layer.kernel, fan_in=fan_in), normal(layer.outputs)
    norm = (normal(layer.inputs), normal(layer.inputs)) if layer.norm else (None, None)
    activation = "silu" if layer.norm else "none"
    sizes_of = ([*layer.stride], [0, 0], layer.transposed, activation, layer.bound)
    return x, weight, bias, *norm, None, None, *sizes_of


def _call(*arguments: Any) -> Tensor:
    return run_exactly("conv2d", *arguments)


def _chain(x: Tensor, weight: Tensor, bias: Tensor, *others: Any) -> Tensor:
    gain, shift, _, _, stride, _, transposed, _, _ = others
    if gain is not None:
        last = F.layer_norm(x.movedim(1, -1), gain.shape, gain, shift, EPSILON)
        x = F.silu(last).movedim(-1, 1)
    convolve = F.conv_transpose2d if transposed else F.conv2d
    return convolve(x, weight, bias, stride)


def _truth(x: Tensor, *arguments: Any) -> Tensor:
    exact = [part.double() if isinstance(part, Tensor) else part for part in arguments]
    return torch.cat([_chain(clip.double(), *exact) for clip in x.split(1)])


def _peers(*arguments: Any) -> Contenders:
    """Return the chain as it is and compiled, and with one TF32 product, which is inexact."""
    chains = {"eager": _chain, "compiled": torch.compile(_chain)}
    exact = {name: lambda chain=chain: chain(*arguments) for name, chain in chains.items()}
    inexact = {f"{name}, TF32 (inexact)": with_tf32(call) for name, call in exact.items()}
    return exact | inexact
