"""griffin_lim on Triton: the launches of the two kernels in `kernels`."""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.ops.griffin_lim import STEP
from melcap.ops.registry import Implementation, register

from ..launch import out_of_reach, run
from .launches import plan, shipped

__all__ = ["griffin_lim", "shipped", "unsupported"]


def griffin_lim(x: Tensor, n_fft: int, hop: int, momentum: float, steps: int) -> Tensor:
    """Compute `melcap.ops.griffin_lim`; the result is float32 whatever x's dtype."""
    x = x.float()
    x = x if x.stride(2) == 1 else x.contiguous()
    batch, frames, channels = x.shape
    reach = n_fft // hop - 1
    out = x.new_empty((batch, frames - 2 * steps * reach, channels))
    if not out.numel():
        return out
    wave, before, magnitude = x.tensor_split((hop, 2 * hop), dim=2)
    scratch = x.new_empty(batch * (frames - reach) * n_fft)
    for step in range(1, steps + 1):
        shape = batch, frames - (2 * step - 1) * reach, n_fft
        windows = scratch[: shape[0] * shape[1] * shape[2]].view(shape)
        rest = frames - 2 * step * reach
        made = out[..., :hop] if step == steps else x.new_empty((batch, rest, hop))
        for launch in plan(wave, before, magnitude, windows, made, momentum):
            run(launch)
        before, magnitude = wave[:, reach:-reach], magnitude[:, reach:-reach]
        wave = made
    out[..., hop : 2 * hop] = before
    out[..., 2 * hop :] = magnitude
    return out


def unsupported(x: Tensor, n_fft: int, hop: int, momentum: float, steps: int) -> list[str]:
    """Return why the kernels cannot run on these arguments; [] if they can."""
    reasons = out_of_reach(x)
    if n_fft not in (256, 512, 1024, 2048, 4096):
        reasons.append(f"n_fft must be a power of two from 256 to 4096, not {n_fft}")
    most = 2**31 // max(n_fft, x.shape[2], x.stride(1) if x.stride(2) == 1 else 0) - 1
    if x.shape[1] > most:
        reasons.append(f"a clip may have {most} frames, not {x.shape[1]}")
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
