"""nearest_code on Triton: scores nominate codes, exact distances decide between them.

Few rows take two launches, many three.

1. `split` writes many rows as pairs of float16 (see `halves`).
2. `nominate` splits few rows itself, and streams the codebook past the rows on the tensor cores
   (see `scores`). It leaves 8 bytes for each row and slot.
3. `decide` finds the groups of codes that are alive: their score is within the error of two
   scores, and the width of a tie, of the row's best. Where one group is alive, and float32
   distances tell its nearest code apart, the row is done (see `decisions`). For other rows it
   measures all codes of the groups that are alive, or of a share where even a runner-up is alive,
   and takes the lowest index within a tie (see `candidates` and `distances`).

`decide` waits for all scores of a row, and `nominate` shares out the codes of few rows to fill a
device: so they are two launches. Of a thousand rows one or two need exact distances, unless codes
are equal or nearly so. No kernel uses float64. Distances must fit in float32; a row's index does
not depend on the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.ops.nearest_code import TIE
from melcap.ops.registry import Implementation, Tolerance, register

from ..launch import out_of_reach, run
from .launches import plan, shipped
from .table import table_of

__all__ = ["nearest_code", "shipped", "unsupported"]


def nearest_code(x: Tensor, codebook: Tensor) -> Tensor:
    """Compute `melcap.ops.nearest_code`."""
    found = torch.empty(len(x), dtype=torch.int32, device=x.device)
    if len(x):
        for launch in plan(x.contiguous(), table_of(codebook), found):
            run(launch)
    return found


def unsupported(x: Tensor, codebook: Tensor) -> list[str]:
    """Return why the kernels cannot run on these tensors; [] if they can."""
    reasons = out_of_reach(x, codebook)
    if x.device != codebook.device:
        reasons.append(f"x is on {x.device} and the codebook on {codebook.device}")
    if not 1 <= x.shape[1] <= 256:
        reasons.append(f"vectors of 1 to 256 numbers are compared, not of {x.shape[1]}")
    if len(codebook) > 2**20:
        reasons.append(f"a codebook may have 2^20 codes, not {len(codebook)}")
    return reasons


_TOLERANCE = Tolerance(atol=0.0, rtol=TIE)
register(
    "nearest_code",
    "triton",
    Implementation(
        nearest_code,
        {
            torch.float32: _TOLERANCE,
            torch.float16: _TOLERANCE,
            torch.bfloat16: _TOLERANCE,
        },
        unsupported,
    ),
)
