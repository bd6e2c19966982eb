"""Share what operations have in common: working dtype, cached tables and windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec

import torch
from torch import Tensor

EPSILON = 1e-6
"""The number that the layer norms of `convnext1d` and `channel_norm` add to a variance."""

_P = ParamSpec("_P")


def working_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype to compute in: float64 for float64, float32 for everything else."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def kept(build: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """Cache the tables that `build` returns.

    They are built outside inference mode, so that code inside and outside of it can use them.
    """
    cached: Callable[_P, Tensor] = lru_cache(maxsize=32)(torch.inference_mode(False)(build))  # type: ignore[assignment]
    return cached


@kept
def hann_window(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the periodic Hann window, computed in float64 and rounded once."""
    window = torch.hann_window(length, dtype=torch.float64, device="cpu")
    return window.to(device=device, dtype=dtype)


def fft_flops(points: int) -> float:
    """Return the floating-point operations of an FFT of so many real numbers."""
    return 2.5 * points * math.log2(points)
