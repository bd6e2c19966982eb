"""Lay out the weights of a transposed convolution as the matrix that `polyphase` multiplies.

With q the input step and r < stride, step stride * q + r of the full result is the sum over taps j
and input channels i of x[i, q - j] * weight[i, o, r + j * stride]. That is a matrix with a row for
each (o, r), the output's channel and phase, and a column for each (i, j).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..launch import power_of_two

DEEP = 512
"""Sums of more products than this are closed in chunks, see `Tiling.chunked`.

On an H200 sums of 1024 products were outside of the tolerance, sums of 512 inside.
"""


@dataclass(frozen=True)
class Tiling:
    """The sizes into which a layer is cut; they never depend on its input's length or batch.

    Attributes:
        rows: rows of the matrix that a program takes, all phases of rows / phases output channels.
        phases: the stride, filled up to a power of two with rows of zeros.
        depth: input channels that one step multiplies.
        steps: input steps that a program takes.
        warps: warps of a program.
        chunked: whether sums are closed after each chunk. Tensor cores cut off, rather than round,
            the sum so far: up to 2^-23 of it each time, always towards zero. Deep float32 sums are
            therefore closed after each chunk and added up in true float32. That takes twice the
            registers, so the tile is narrower.
    """

    rows: int
    phases: int
    depth: int
    steps: int
    warps: int
    chunked: bool

    @staticmethod
    @lru_cache(maxsize=64)
    def of(channels_in: int, channels_out: int, kernel: int, stride: int, half: bool) -> Tiling:
        """Return the tiling of a layer, for 16-bit or float32 operands."""
        phases = power_of_two(stride)
        chunked = not half and channels_in * (kernel // stride) > DEEP
        # Interleaving two phases, or phases that are not all real, takes registers too.
        most = 64 if chunked or phases != stride or phases == 2 else 128
        rows = min(most, max(16, power_of_two(channels_out * phases)))
        depth = min(32, max(16, power_of_two(channels_in)))
        steps, warps = (64, 4) if rows == 128 or phases == 2 else (128, 4 if half else 8)
        return Tiling(rows, phases, depth, steps, warps, chunked)


def matrix(weight: Tensor, stride: int, dtype: torch.dtype, tiling: Tiling) -> Tensor:
    """Return weight [in, out, kernel] as contiguous [rows, columns], both filled up with zeros.

    Columns are ordered by blocks of input channels, then taps, then the channels of the block: the
    taps of a block read the same input, one step apart.
    """
    channels_in, channels_out, _ = weight.shape
    group = tiling.rows // tiling.phases
    taps = weight.detach().to(dtype).unflatten(2, (-1, stride))
    filled = F.pad(
        taps,
        (0, tiling.phases - stride, 0, 0, 0, -channels_out % group, 0, -channels_in % tiling.depth),
    )
    blocks = filled.unflatten(0, (-1, tiling.depth))
    return blocks.permute(2, 4, 0, 3, 1).flatten(2).flatten(0, 1).contiguous()
