"""Transform real frames as complex ones of half the length; `log_mel` and `griffin_lim` do.

A frame's even samples are the real parts and its odd samples the imaginary parts of a transform
(see `fourier`). Each bin of the frame's spectrum follows from a bin of that transform together with
its mirrored bin.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

FRAMES_EACH = 8
"""The frames that one program takes in large batches."""
ENOUGH_PROGRAMS = 4096
"""Batches that make fewer programs of `FRAMES_EACH` frames get a program for each frame."""


@triton.jit
def halves(x, HALF: tl.constexpr):
    """Split [2 * HALF] into its lower and its upper half."""
    return tl.split(tl.permute(tl.reshape(x, [2, HALF]), [1, 0]))


@triton.jit
def whole(lower, upper, POINTS: tl.constexpr):
    """Join a lower and an upper half into [POINTS]."""
    return tl.reshape(tl.permute(tl.join(lower, upper), [1, 0]), [POINTS])


def frames_each(frames: int) -> int:
    """Return how many frames one program takes, given those of all clips."""
    return FRAMES_EACH if frames >= ENOUGH_PROGRAMS * FRAMES_EACH else 1


def untangle_table(n_fft: int) -> Tensor:
    """Return the factors that separate the spectra of even and odd samples, float32 [n_fft / 2].

    These are the cosines, then the sines, of -2 pi k / n_fft for k < n_fft / 4, computed in float64
    and rounded once.
    """
    angle = -2 * torch.pi * torch.arange(n_fft // 4, dtype=torch.float64) / n_fft
    return torch.cat((angle.cos(), angle.sin())).float()
