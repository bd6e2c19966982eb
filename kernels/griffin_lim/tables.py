"""Compute the constant tables that the kernels read: both windows and the twiddles."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from melcap.ops.griffin_lim import inverse_window
from melcap.ops.numerics import hann_window

from ..fourier import root_table
from ..real_frames import untangle_table


class Tables(NamedTuple):
    """The constants that depend on window and hop alone.

    Attributes:
        analysis: the window before the transform.
        synthesis: the window after it, divided by the transform's length.
        roots: the twiddles of the transform, see `fourier.root_table`.
        untangle: cosines, then sines, that separate the spectra of even and odd samples.
    """

    analysis: Tensor
    synthesis: Tensor
    roots: Tensor
    untangle: Tensor


@cache  # they are small, and a CUDA graph goes on reading those it was captured with
def tables_of(n_fft: int, hop: int, device: torch.device) -> Tables:
    """Compute the tables in float64 and round them once."""
    cpu, double = torch.device("cpu"), torch.float64
    tables = Tables(
        analysis=hann_window(n_fft, double, cpu),
        synthesis=inverse_window(n_fft, hop, double, cpu) / (n_fft // 2),
        roots=root_table(n_fft // 2),
        untangle=untangle_table(n_fft),
    )
    return Tables(*(table.float().to(device) for table in tables))
