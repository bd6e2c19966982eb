"""Compare griffin_lim with the same steps as a chain of cuFFT and PyTorch's operations."""

from __future__ import annotations

import torch
from torch import Tensor

from cases.case import Case, Contenders
from melcap.ops import griffin_lim
from melcap.ops.griffin_lim import griffin_lim_reference

_STEPS = 4


def cases() -> list[Case]:
    """Return the cases that are measured."""
    found = []
    for n_fft, hop, batch, seconds in (
        (1024, 256, 1, 0.1),
        (1024, 256, 1, 10),
        (1024, 256, 64, 10),
        (512, 128, 8, 10),
        (2048, 512, 8, 10),
    ):
        reach = n_fft // hop - 1
        frames = round(seconds * 44100 / hop) + 2 * _STEPS * reach
        channels = 2 * hop + n_fft // 2 + 1
        inside = sum(frames - (2 * step - 1) * reach for step in range(1, _STEPS + 1))
        found.append(
            Case(
                "griffin_lim",
                f"{n_fft}/{hop}, {_STEPS} steps, {batch} x {seconds:g} s",
                torch.float32,
                # each step reads two waves and the magnitudes once, and writes a wave
                4.0 * batch * inside * (channels + hop),
                5.0 * batch * inside * n_fft * (n_fft.bit_length() - 1),
                "float32 FLOP/s",
                lambda b=batch, f=frames, n=n_fft, h=hop: (_drawn(b, f, n, h), n, h, 0.9, _STEPS),
                lambda x, n, h, momentum, steps: griffin_lim(
                    x, n, h, momentum=momentum, steps=steps
                ),
                _peers,
                _truth,
            )
        )
    return found


def _drawn(batch: int, frames: int, n_fft: int, hop: int) -> Tensor:
    """Return two waves that differ by a tenth, and magnitudes near those of their windows."""
    wave, moved = torch.randn(2, batch, frames, hop, device="cuda")
    lift = torch.rand(batch, frames, n_fft // 2 + 1, device="cuda") + 0.5
    return torch.cat((wave, wave + 0.1 * moved, lift * (3 / 8 * n_fft) ** 0.5), dim=2)


def _truth(x: Tensor, *sizes: int) -> Tensor:
    return torch.cat([griffin_lim_reference(clip.double(), *sizes) for clip in x.split(1)])


def _peers(x: Tensor, *sizes: int) -> Contenders:
    compiled = torch.compile(griffin_lim_reference)
    return {"compiled": lambda: compiled(x, *sizes)}
