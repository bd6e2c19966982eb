"""Plan the launch of a Griffin-Lim step from shapes alone."""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.ops.griffin_lim import LEAST_SHARE, QUIETEST_POWER

from ..launch import Launch
from .kernels import griffin_lim_step
from .tables import tables_of

PROGRAMS = 768
"""The programs that keep a large GPU busy, about six for each of its multiprocessors."""
MOST_BLOCKS = 32
"""The most blocks of a program. It computes n_fft / hop - 1 frames more than it writes blocks."""


def plan(
    wave: Tensor, before: Tensor, magnitude: Tensor, out: Tensor, n_fft: int, momentum: float
) -> Launch:
    """Return the launch of a step, which fills `out` [batch, blocks, hop].

    Args:
        wave: [batch, blocks + 2 * (n_fft / hop - 1), hop], contiguous like `out`.
        before: the same blocks of the wave one step before. Its rows are contiguous, and a clip may
            have more of them in memory.
        magnitude: a row for each block of the wave, in the order of `Tables.order`; again a clip
            may have more of them in memory.
        out: the wave after the step.
        n_fft: the length of the windows.
        momentum: the momentum of the step.
    """
    batch, blocks, hop = out.shape
    tables = tables_of(n_fft, hop, wave.device)
    row = magnitude.shape[2]
    each = blocks_each(batch * blocks)
    return Launch(
        griffin_lim_step,
        (batch * -(-blocks // each),),
        {
            "wave": wave,
            "before": before,
            "magnitude": magnitude[:, n_fft // hop // 2 :],
            "out": out,
            "analysis": tables.analysis,
            "synthesis": tables.synthesis,
            "roots": tables.roots,
            "untangle": tables.untangle,
            "opposite": tables.opposite,
            "blocks": blocks,
            "blocks_each": each,
            "before_rows": before.stride(0) // hop,
            "magnitude_rows": magnitude.stride(0) // row,
            "momentum": momentum,
        },
        {
            "N_FFT": n_fft,
            "HOP": hop,
            "ROW": row,
            "LEAST_POWER": LEAST_SHARE**2,
            "QUIETEST_POWER": QUIETEST_POWER,
        },
        warps=max(1, n_fft // 512),
        wide=64,
    )


def blocks_each(blocks: int) -> int:
    """Return how many blocks one program writes, given those of all clips."""
    return min(-(-blocks // PROGRAMS), MOST_BLOCKS)


def shipped() -> dict[str, Launch]:
    """Return the launches of the model and the benchmarks, and of other overlaps."""
    found = {}
    for n_fft, hop in (
        (1024, 256),
        (256, 64),
        (512, 128),
        (2048, 512),
        (4096, 1024),
        (1024, 512),
        (1024, 128),
    ):
        reach = n_fft // hop - 1
        wave = torch.empty(1, 1 + 2 * reach, hop, device="meta")
        order = tables_of(n_fft, hop, wave.device).order
        magnitude = wave.new_empty(1, wave.shape[1], len(order))
        out = wave.new_empty(1, 1, hop)
        found[f"{n_fft}/{hop}"] = plan(wave, wave, magnitude, out, n_fft, 0.99)
    return found
