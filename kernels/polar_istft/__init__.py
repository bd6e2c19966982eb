"""polar_istft on Triton: one launch of the kernel in `kernels`."""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.ops.polar_istft import TOLERANCE
from melcap.ops.registry import Implementation, register

from ..launch import out_of_reach, run
from .launches import plan, shipped

__all__ = ["polar_istft", "shipped", "unsupported"]


def polar_istft(x: Tensor, window: Tensor, hop: int, loudest: float) -> Tensor:
    """Compute `melcap.ops.polar_istft`; the result is float32 whatever x's dtype."""
    blocks = x.shape[1] - len(window) // hop + 1
    out = x.new_empty((x.shape[0], blocks * hop), dtype=torch.float32)
    if out.numel():
        run(plan(x.contiguous(), window.float().contiguous(), out, hop, loudest))
    return out


def unsupported(x: Tensor, window: Tensor, hop: int, loudest: float) -> list[str]:
    """Return why the kernel cannot run on these arguments; [] if it can."""
    reasons = out_of_reach(x, window)
    n_fft = len(window)
    if n_fft not in (128, 256, 512, 1024, 2048, 4096):
        reasons.append(f"n_fft must be a power of two from 128 to 4096, not {n_fft}")
    if n_fft // hop not in (2, 4, 8):
        reasons.append(f"n_fft must be 2, 4 or 8 hops, not {n_fft // hop}")
    return reasons


register(
    "polar_istft",
    "triton",
    Implementation(
        polar_istft,
        {torch.float32: TOLERANCE, torch.float16: TOLERANCE, torch.bfloat16: TOLERANCE},
        unsupported,
    ),
)
