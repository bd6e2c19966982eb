"""Prepare a codebook for the kernels, and keep what was prepared."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..weight_cache import remembered

CODES = 128
"""Codes in a tile."""
GROUP = 8
"""Codes of a tile that are nominated together."""
SLOTS = CODES // GROUP


@dataclass(frozen=True)
class Table:
    """A codebook in the form that the kernels read.

    Attributes:
        codes: the codebook itself, contiguous.
        halves: float16 [codes padded to a tile, 2, dim padded to a chunk]; the largest number is
            scaled by a power of two to lie in [2^13, 2^14).
        offsets: -|c|^2 / 2 as scaled, float32 [codes padded]; -inf for padding, which never wins.
        exponent_and_reach: the scale's exponent, and the largest |c| as scaled; float32 [2].
    """

    codes: Tensor
    halves: Tensor
    offsets: Tensor
    exponent_and_reach: Tensor


def table_of(codebook: Tensor) -> Table:
    """Return the codebook's table, computed again when the codebook has changed in place."""
    return remembered(codebook, "nearest_code", lambda: build_table(codebook))


def build_table(codebook: Tensor) -> Table:
    """Compute a `Table` in float64, rounded once."""
    codes = codebook.detach().double()
    exponent = (14 - torch.frexp(codes.abs().amax()).exponent).clamp(-126, 126)
    codes = torch.ldexp(codes, exponent)
    padding = -len(codes) % CODES
    offsets = F.pad(codes.square().sum(1) / -2, (0, padding), value=-torch.inf)
    exponent_and_reach = torch.stack((exponent.double(), codes.norm(dim=1).amax()))
    chunk, chunks = chunks_of(codes.shape[1])
    codes = F.pad(codes, (0, chunk * chunks - codes.shape[1], 0, padding))
    high = codes.half()
    halves = torch.stack((high, (codes - high.double()).half()), dim=1)
    return Table(
        codebook.detach().contiguous(), halves, offsets.float(), exponent_and_reach.float()
    )


def chunks_of(dim: int) -> tuple[int, int]:
    """Return how many numbers of a vector one step multiplies, and the number of steps."""
    chunk = 16 if dim <= 16 else 32
    return chunk, -(-dim // chunk)
