"""griffin_lim on Triton: a launch of the kernel in `kernels` for each step."""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.ops.griffin_lim import STEP
from melcap.ops.registry import Implementation, register

from ..launch import out_of_reach, run
from .launches import plan, shipped
from .tables import tables_of

__all__ = ["griffin_lim", "shipped", "unsupported"]


def griffin_lim(x: Tensor, n_fft: int, hop: int, momentum: float, steps: int) -> Tensor:
    """Compute `melcap.ops.griffin_lim`; the result is float32 whatever x's dtype.

    The three parts of a frame are copied once into tensors of their own, so that each row begins at
    a multiple of 16 bytes and the magnitudes are in the order in which the kernel reads them.
    """
    batch, frames, channels = x.shape
    reach = n_fft // hop - 1
    context = steps * reach
    rest = frames - 2 * context
    if not batch * rest:
        return x.new_empty((batch, rest, channels), dtype=torch.float32)
    wave, before, kept = x.tensor_split((hop, 2 * hop), dim=2)
    wave, before = wave.float().contiguous(), before.float().contiguous()
    magnitude = kept.index_select(2, tables_of(n_fft, hop, x.device).order).float()
    for _ in range(steps):
        made = wave.new_empty((batch, wave.shape[1] - 2 * reach, hop))
        run(plan(wave, before, magnitude, made, n_fft, momentum))
        before, magnitude = wave[:, reach:-reach], magnitude[:, reach:-reach]
        wave = made
    return torch.cat((wave, before, kept[:, context:-context]), dim=2)


def unsupported(x: Tensor, n_fft: int, hop: int, momentum: float, steps: int) -> list[str]:
    """Return why the kernel cannot run on these arguments; [] if it can."""
    reasons = out_of_reach(x)
    if n_fft not in (256, 512, 1024, 2048, 4096):
        reasons.append(f"n_fft must be a power of two from 256 to 4096, not {n_fft}")
    if n_fft // hop not in (2, 4, 8):
        reasons.append(f"n_fft must be 2, 4 or 8 hops, not {n_fft // hop}")
    return reasons


register(
    "griffin_lim",
    "triton",
    Implementation(
        griffin_lim,
        {torch.float32: STEP, torch.float16: STEP, torch.bfloat16: STEP},
        unsupported,
    ),
)
