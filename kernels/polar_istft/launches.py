"""Plan the launch of a polar_istft from shapes alone."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..fourier import digit_reversed, root_table
from ..griffin_lim.launches import blocks_each
from ..launch import Launch
from ..real_frames import untangle_table
from .kernels import polar_istft_kernel


class Tables(NamedTuple):
    """The constants that depend on the length of the windows alone.

    Attributes:
        roots: the twiddles of the transform, see `fourier.root_table`.
        untangle: cosines, then sines, of the four lower bins of each thread.
        reverse: the point of a register that each thread holds in the end, int32.
    """

    roots: Tensor
    untangle: Tensor
    reverse: Tensor


@cache  # they are small, and a CUDA graph goes on reading those it was captured with
def tables_of(n_fft: int, device: torch.device) -> Tables:
    """Compute the tables in float64 and round them once."""
    points = n_fft // 2
    tables = Tables(
        roots=root_table(points),
        untangle=untangle_table(n_fft).view(2, 4, -1).mT.flatten(),
        reverse=digit_reversed(points).int(),
    )
    return Tables(*(table.to(device) for table in tables))


def plan(x: Tensor, window: Tensor, out: Tensor, hop: int, loudest: float) -> Launch:
    """Return the launch that fills `out` [batch, blocks * hop].

    Args:
        x: as for `melcap.ops.polar_istft`, contiguous like `out`.
        window: float32 [n_fft].
        out: the wave, float32.
        hop: samples of a block.
        loudest: the upper bound of the logarithms of magnitudes.
    """
    n_fft = len(window)
    batch, blocks = len(out), out.shape[1] // hop
    each = blocks_each(batch * blocks)
    tables = tables_of(n_fft, x.device)
    return Launch(
        polar_istft_kernel,
        (batch * -(-blocks // each),),
        {
            "x": x,
            "window": window,
            "out": out,
            "roots": tables.roots,
            "untangle": tables.untangle,
            "reverse": tables.reverse,
            "blocks": blocks,
            "blocks_each": each,
            "loudest": float(loudest),
        },
        {"N_FFT": n_fft, "HOP": hop},
        warps=max(1, n_fft // 512),
        wide=64 if n_fft > 256 else 0,  # an AMD wave has more threads than those few pairs
    )


def shipped() -> dict[str, Launch]:
    """Return the launches of the model and the benchmarks, and of other overlaps."""
    found = {}
    for n_fft, hop in (
        (1024, 256),
        (128, 32),
        (256, 64),
        (512, 128),
        (2048, 512),
        (4096, 1024),
        (1024, 512),
        (1024, 128),
    ):
        x = torch.empty(1, n_fft // hop, n_fft + 2, device="meta")
        out = x.new_empty(1, hop)
        found[f"{n_fft}/{hop}"] = plan(x, x.new_empty(n_fft), out, hop, 6.0)
    return found
