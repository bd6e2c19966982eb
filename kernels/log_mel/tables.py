"""Compute the constant tables that the kernel reads: window, twiddles and mel filters."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from melcap.ops.log_mel import mel_filters
from melcap.ops.numerics import hann_window

from ..fourier import root_table
from ..real_frames import untangle_table

GROUP = 32
"""The filters that are summed side by side."""
STEP = 16
"""The bins of each filter that are summed in one step."""


class Tables(NamedTuple):
    """The constants that depend on the front end alone.

    Attributes:
        window: the Hann window.
        roots: the twiddles of the transform, see `fourier.root_table`.
        untangle: cosines, then sines, that separate the spectra of even and odd samples.
        first: int32 [filters to a whole GROUP], the first bin of each filter.
        width: int32 [groups], the bins of the widest filter of each group.
        weight: [groups, bins, GROUP], the weight of bin `first + b` in filter f, zero after its
            last bin.
    """

    window: Tensor
    roots: Tensor
    untangle: Tensor
    first: Tensor
    width: Tensor
    weight: Tensor


@cache  # they are small, and a CUDA graph goes on reading those it was captured with
def tables_of(sample_rate: int, n_fft: int, n_mels: int, device: torch.device) -> Tables:
    """Compute the tables in float64 and round them once."""
    cpu, double = torch.device("cpu"), torch.float64
    filters = mel_filters(sample_rate, n_fft, n_mels, double, cpu).t()
    groups = -(-n_mels // GROUP)
    covered = filters > 0
    first = torch.zeros(groups * GROUP, dtype=torch.int32)
    first[:n_mels] = covered.int().argmax(1)
    widths = torch.zeros(groups * GROUP, dtype=torch.int32)
    widths[:n_mels] = covered.sum(1)
    width = widths.view(groups, GROUP).amax(1).to(torch.int32)
    longest = -(-int(width.max()) // STEP) * STEP
    weight = torch.zeros(groups, longest, GROUP, dtype=double)
    for index, (begin, count) in enumerate(zip(first.tolist(), widths.tolist(), strict=True)):
        if count:
            weight[index // GROUP, :count, index % GROUP] = filters[index, begin : begin + count]
    tables = Tables(
        window=hann_window(n_fft, torch.float32, cpu),
        roots=root_table(n_fft // 2),
        untangle=untangle_table(n_fft),
        first=first,
        width=width,
        weight=weight.float(),
    )
    return Tables(*(table.to(device) for table in tables))
