"""How many floating-point operations a piece of the codec takes, two for each multiply-add.

Convolutions and matrix products by PyTorch's counter, the operations of melcap by the formulas
here, FFTs of n real numbers as 2.5 n log2 n. What touches every number a few times (norms,
activations, windows) is left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, ...]


def count(step: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Counter[str], Tensor]:
    """The operations of `step(x)` by kind, and its result; on the meta device without computing."""
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with torch.no_grad(), torch.device(x.device), counter:
        y = step(x)
    kinds = counter.get_flop_counts().get("Global", {})
    return Counter({str(kind): int(number) for kind, number in kinds.items()}), y


def _fft(n: int) -> float:
    return 2.5 * n * math.log2(n)


def _log_mel(
    wave: Shape, framing: list[int], scaling: list[float], lengths: None, *, out_shape: Shape
) -> int:
    _, n_fft, _, n_mels, _, _ = framing
    batch, _, frames = out_shape
    return round(batch * frames * (n_fft + _fft(n_fft) + 2 * (n_fft // 2 + 1) * n_mels))


def _nearest_code(x: Shape, codebook: Shape, *, out_shape: Shape) -> int:
    return 2 * x[0] * codebook[0] * codebook[1]


def _upsample_conv1d(x: Shape, weight: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    return 2 * x[0] * x[2] * math.prod(weight)


def _convnext1d(x: Shape, depthwise: Shape, *weights: Shape, out_shape: Shape) -> int:
    batch, channels, steps = out_shape
    return 2 * batch * steps * channels * (depthwise[2] + 2 * weights[3][0])


def _griffin_lim(
    x: Shape, n_fft: int, hop: int, momentum: float, steps: int, *, out_shape: Shape
) -> int:
    reach = n_fft // hop - 1
    frames = sum(x[1] - (2 * step - 1) * reach for step in range(1, steps + 1))
    return round(2 * x[0] * frames * _fft(n_fft))


def _inverse_fft(x: Shape, dims: Any, norm: Any, last: int, *, out_shape: Shape) -> int:
    return round(math.prod(x[:-1]) * _fft(last))


FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.melcap.log_mel: _log_mel,
    torch.ops.melcap.nearest_code: _nearest_code,
    torch.ops.melcap.upsample_conv1d: _upsample_conv1d,
    torch.ops.melcap.convnext1d: _convnext1d,
    torch.ops.melcap.griffin_lim: _griffin_lim,
    torch.ops.aten._fft_c2r: _inverse_fft,
}
