"""Find the nearest code with operations that every graph runtime has."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.ops.nearest_code.reference import TIE

CANDIDATES = 16
"""Number of codes that float32 scores nominate; exact distances decide between them."""


def nearest_code_portable(x: Tensor, codebook: Tensor) -> Tensor:
    """Compute `melcap.ops.nearest_code` for numbers whose squares are finite.

    The result is exact as long as no more than `CANDIDATES` codes lie within float32 rounding of
    the nearest.
    """
    scores = torch.addmm(-codebook.square().sum(1) / 2, x, codebook.t())
    codes = scores.topk(min(CANDIDATES, len(codebook)), dim=1).indices
    offsets = x[:, None].double() - F.embedding(codes, codebook).double()
    distance = offsets.square().sum(2).sqrt()
    tied = distance <= distance.amin(1, keepdim=True) * (1 + TIE)
    return torch.where(tied, codes, len(codebook) - 1).amin(1).to(torch.int32)
