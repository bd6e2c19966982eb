"""Lay out the weights of a block for its kernels, once for as long as the weights live.

What surrounds the float32 products is linear and goes into their matrices: weight and bias of the
norm into the first, the scale of the block into the second. This is computed in float64. So the
first product takes a plain normalised vector, which is at most sqrt(C) long, and no norm weight,
however large, makes its halves coarse.

The scale of the hidden layer as halves is static as well. |gelu(y)| is at most |y|. By Cauchy and
Schwarz |y| is at most |w| * sqrt(C) + |b| for a row w of the first matrix and its bias b.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from melcap.ops.convnext1d import Parameters

from ..conv2d.sizes import Layer, tile_of
from ..conv2d.weights import Matrix, matrix
from ..halves import scale_table
from ..weight_cache import remembered

ROUNDED = 1.0001
"""The factor of bounds that covers the rounding of float32."""


class Tables(NamedTuple):
    """The linear layers of a block in float32.

    Attributes:
        normed: float32 [2], the scale of normalised vectors as halves, and its inverse.
        expand: the matrix of the first layer.
        expand_bias: float32 [hidden].
        hidden: float32 [2], the scale of the hidden layer as halves, and its inverse.
        contract: the matrix of the second layer.
        contract_bias: float32 [channels].
    """

    normed: Tensor
    expand: Matrix
    expand_bias: Tensor
    hidden: Tensor
    contract: Matrix
    contract_bias: Tensor


def tables_of(p: Parameters) -> Tables:
    """Return the tables of a block, which are kept with its first linear layer."""
    surroundings = p.norm_weight, p.norm_bias, p.expand_bias
    scaled = p.contract_weight, p.contract_bias, p.scale
    return remembered(p.expand_weight, "convnext1d", lambda: _tables(p), *surroundings, *scaled)


def taps_of(weight: Tensor) -> Tensor:
    """Return depthwise weights [channels, 1, kernel] as [kernel, channels], contiguous."""
    last = weight.detach()[:, 0].t()
    return remembered(
        weight, "convnext1d", lambda: last.clone(memory_format=torch.contiguous_format)
    )


@lru_cache(maxsize=64)
def layers_of(channels: int, hidden: int) -> tuple[Layer, Layer]:
    """Return both linear layers as convolutions of 1 x 1."""
    return Layer(channels, hidden, (1, 1)), Layer(hidden, channels, (1, 1))


def _tables(parameters: Parameters) -> Tables:
    p = Parameters(*(parameter.detach().double() for parameter in parameters))
    hidden, channels = p.expand_weight.shape
    expand = p.expand_weight * p.norm_weight
    expand_bias = p.expand_weight @ p.norm_bias + p.expand_bias
    longest = ROUNDED * channels**0.5
    bound = expand.norm(dim=1) * longest + ROUNDED * expand_bias.abs()
    first, second = layers_of(channels, hidden)
    return Tables(
        normed=scale_table(expand.new_tensor(longest)),
        expand=_matrix(first, expand),
        expand_bias=expand_bias.float(),
        hidden=scale_table(bound.amax()),
        contract=_matrix(second, p.scale[:, None] * p.contract_weight),
        contract_bias=(p.scale * p.contract_bias).float(),
    )


def _matrix(layer: Layer, weight: Tensor) -> Matrix:
    """Return weight [columns, channels] as the matrix of a layer."""
    return matrix(
        weight[..., None, None],
        width=layer.width,
        depth=layer.depth,
        tile=tile_of(layer.columns),
        halves=layer.halves,
    )
