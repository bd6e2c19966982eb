"""Plan the two launches of a Griffin-Lim step from shapes alone."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from melcap.ops.griffin_lim import LEAST_SHARE, QUIETEST_POWER

from ..launch import Launch
from ..real_frames import frames_each
from .kernels import griffin_lim_overlap_add, griffin_lim_windows
from .tables import tables_of

ADDED = 2048
"""The samples that one program of `griffin_lim_overlap_add` writes."""


def plan(
    wave: Tensor, before: Tensor, magnitude: Tensor, windows: Tensor, out: Tensor, momentum: float
) -> tuple[Launch, Launch]:
    """Return the two launches of a step.

    They fill `windows` [batch, frames, n_fft], which is contiguous, and from them `out` [batch,
    blocks, hop]. Each row of the other tensors is contiguous.
    """
    batch, frames, n_fft = windows.shape
    hop = out.shape[2]
    tables = tables_of(n_fft, hop, wave.device)
    each = frames_each(batch * frames)
    rows = max(1, ADDED // hop)
    impose = Launch(
        griffin_lim_windows,
        (batch * triton.cdiv(frames, each),),
        {
            "wave": wave,
            "before": before,
            "magnitude": magnitude[:, n_fft // hop // 2 :],
            "windows": windows,
            "analysis": tables.analysis,
            "synthesis": tables.synthesis,
            "roots": tables.roots,
            "untangle": tables.untangle,
            "frames": frames,
            "frames_each": each,
            "wave_clip": wave.stride(0),
            "wave_row": wave.stride(1),
            "before_clip": before.stride(0),
            "before_row": before.stride(1),
            "magnitude_clip": magnitude.stride(0),
            "magnitude_row": magnitude.stride(1),
            "momentum": momentum,
        },
        {
            "N_FFT": n_fft,
            "HOP": hop,
            "LEAST_POWER": LEAST_SHARE**2,
            "QUIETEST_POWER": QUIETEST_POWER,
        },
        # Fewer than two warps would gather bins by shuffles.
        warps=max(2, n_fft // 512),
    )
    overlap_add = Launch(
        griffin_lim_overlap_add,
        (batch * triton.cdiv(out.shape[1], rows),),
        {
            "windows": windows,
            "out": out,
            "frames": frames,
            "out_clip": out.stride(0),
            "out_row": out.stride(1),
        },
        {
            "N_FFT": n_fft,
            "HOP": hop,
            "ROWS": rows,
        },
        wide=128,
    )
    return impose, overlap_add


def shipped() -> dict[str, Launch]:
    """Return the launches of the model and the benchmarks: a first step, and a later one."""
    found: dict[str, Launch] = {}
    for n_fft, hop in ((1024, 256), (256, 64), (512, 128), (2048, 512), (4096, 1024)):
        x = torch.empty(1, 40, 2 * hop + n_fft // 2 + 1, device="meta")
        reach = n_fft // hop - 1
        wave, before, magnitude = x.tensor_split((hop, 2 * hop), dim=2)
        windows = x.new_empty(1, 40 - reach, n_fft)
        made = x.new_empty(1, 40 - 2 * reach, hop)
        first = plan(wave, before, magnitude, windows, made, 0.99)
        later = plan(made, wave[:, reach:-reach], magnitude, windows, made[:, reach:], 0.99)
        name = f"{n_fft}/{hop}"
        found |= {f"{name}: first windows": first[0], f"{name}: windows": later[0]}
        found[f"{name}: overlap-add"] = first[1]
    return found
