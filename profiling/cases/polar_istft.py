"""Compare polar_istft with the same inverse STFT as a chain of cuFFT and PyTorch's operations."""

from __future__ import annotations

import torch
from torch import Tensor

from cases.case import Case, Contenders
from melcap.ops import polar_istft
from melcap.ops.polar_istft import polar_istft_reference

_LOUDEST = 6.0


def cases() -> list[Case]:
    """Return the cases that are measured."""
    found = []
    for n_fft, hop, batch, seconds in (
        (1024, 256, 1, 0.1),
        (1024, 256, 1, 10),
        (1024, 256, 64, 10),
        (256, 64, 8, 10),
        (2048, 512, 8, 10),
    ):
        steps = round(seconds * 44100 / hop) + n_fft // hop - 1
        found.append(
            Case(
                "polar_istft",
                f"{n_fft}/{hop}, {batch} x {seconds:g} s",
                torch.float32,
                4.0 * batch * steps * (n_fft + 2 + hop),
                2.5 * batch * steps * n_fft * (n_fft.bit_length() - 1),
                "float32 FLOP/s",
                lambda b=batch, s=steps, n=n_fft, h=hop: (_drawn(b, s, n), _window(n), h, _LOUDEST),
                lambda x, window, hop, loudest: polar_istft(x, window, hop, loudest=loudest),
                _peers,
                _truth,
            )
        )
    return found


def _drawn(batch: int, steps: int, n_fft: int) -> Tensor:
    """Return magnitudes of about 1 and phases of some turns."""
    x = torch.randn(batch, steps, n_fft + 2, device="cuda")
    x[..., n_fft // 2 + 1 :] *= 10
    return x


def _window(n_fft: int) -> Tensor:
    return torch.hann_window(n_fft, device="cuda")


def _truth(x: Tensor, window: Tensor, hop: int, loudest: float) -> Tensor:
    exact = window.double()
    return torch.cat(
        [polar_istft_reference(clip.double(), exact, hop, loudest) for clip in x.split(1)]
    )


def _peers(x: Tensor, *others: Tensor) -> Contenders:
    compiled = torch.compile(polar_istft_reference)
    return {"compiled": lambda: compiled(x, *others)}
