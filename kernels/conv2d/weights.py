"""Lay out the weights of a convolution as the matrix that `kernels` multiplies, in two parts."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..halves import scale_of, split


class Matrix(NamedTuple):
    """The weights of a convolution, a row for each column of the output.

    Attributes:
        high: [columns, products], float16 halves or the parts of float32 that TF32 holds.
        low: what `high` leaves.
        factor: float32 [columns], which undoes the scale of a column's weights.
    """

    high: Tensor
    low: Tensor
    factor: Tensor


def matrix(weight: Tensor, *, width: int, depth: int, tile: int, halves: bool) -> Matrix:
    """Return the matrix of weight [channels out, channels in, rows, steps].

    Args:
        weight: as `F.conv2d` takes it.
        width: channels of a position of the input in memory, with those that fill it up.
        depth: products are filled up to a multiple of this in each row of the kernel.
        tile: columns are filled up to a multiple of this.
        halves: whether the parts are float16 halves.
    """
    columns, channels = weight.shape[:2]
    exact = weight.detach().double().permute(0, 2, 3, 1)
    run = F.pad(exact, (0, width - channels)).flatten(2)
    filled = F.pad(run, (0, -run.shape[2] % depth, 0, 0, 0, -columns % tile))
    rows = filled.flatten(1)
    if halves:
        scale = scale_of(rows.abs().amax(1))
        high, low = split(rows, scale[:, None])
    else:
        scale = rows.new_ones(len(rows)).float()
        single = rows.float()
        high = (single.view(torch.int32) & -8192).view(torch.float32)
        low = single - high
    return Matrix(high.contiguous(), low.contiguous(), 1 / scale)


def columns_of_transposed(weight: Tensor) -> Tensor:
    """Return weight [in, out, rows, steps] of a transposed convolution as [columns, in, 1, 1].

    Its kernel is as large as its stride, so each place of an input position is a 1 x 1 convolution
    of its own. Columns are ordered by row, step and channel.
    """
    return weight.permute(2, 3, 1, 0).flatten(0, 2)[..., None, None]
