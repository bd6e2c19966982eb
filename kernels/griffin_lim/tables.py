"""Compute the tables that the kernel reads: windows, twiddles, and which thread has which bin."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from melcap.ops.griffin_lim import inverse_window
from melcap.ops.numerics import hann_window

from ..fourier import digit_reversed, root_table
from ..real_frames import untangle_table


class Tables(NamedTuple):
    """The constants that depend on window and hop alone.

    Attributes:
        analysis: the window before the transform.
        synthesis: the window after it, divided by the transform's length.
        roots: the twiddles of the transform, see `fourier.root_table`.
        untangle: cosines, then sines, that separate the spectra of even and odd samples, in the
            order of threads.
        opposite: for each thread the one that holds its mirrored bins, int32.
        order: the bins of a row of magnitudes as the kernel reads it, int64: four lower ones for
            each thread, their mirrored ones, and the middle one, four times so that each row begins
            at a multiple of 16 bytes.
    """

    analysis: Tensor
    synthesis: Tensor
    roots: Tensor
    untangle: Tensor
    opposite: Tensor
    order: Tensor


@cache  # they are small, and a CUDA graph goes on reading those it was captured with
def tables_of(n_fft: int, hop: int, device: torch.device) -> Tables:
    """Compute the tables in float64 and round them once."""
    cpu, double = torch.device("cpu"), torch.float64
    points = n_fft // 2
    own = digit_reversed(points)
    lower = (own[:, None] + len(own) * torch.arange(4)).flatten()
    tables = Tables(
        analysis=hann_window(n_fft, double, cpu).float(),
        synthesis=(inverse_window(n_fft, hop, double, cpu) / points).float(),
        roots=root_table(points),
        untangle=untangle_table(n_fft)[torch.cat((lower, points // 2 + lower))],
        opposite=own.argsort()[-own % len(own)].int(),
        order=torch.cat((lower, points - lower, torch.full((4,), points // 2))),
    )
    return Tables(*(table.to(device) for table in tables))
