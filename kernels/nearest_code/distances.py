"""Measure distances so that every pair has the same one in every tiling and batch.

A distance is measured in float32 first, for numbers of any magnitude. Where that cannot tell codes
apart, squared distances are measured in 64-bit fixed point. A difference x - c is exact as the sum
of two float32. It is scaled so that the nearest distance lies in [2^58, 2^59), and cut off to
integers. The upper 64 bits of its square are kept, so `dim` squares err by dim / 2^52 in all.
Sums of integers are the same in any order.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from melcap.ops.nearest_code import TIE as OPERATION_TIE

from .halves import exponent_of, two_to

TIE = tl.constexpr(OPERATION_TIE)
TIE_IN_TRILLIONTHS = tl.constexpr(round(((1 + OPERATION_TIE) ** 2 - 1) * 1e12))
"""The most that a tie adds to a squared distance, in trillionths of it."""
EXCLUDED = tl.constexpr(2**63 - 1)
"""Stands for the squared distance of a code that is no candidate."""


class Codebook(NamedTuple):
    """The codebook [codes, DIM] in memory.

    Such structures hold run-time values only. Triton would turn a `constexpr` inside one into such
    a value, so constants are passed separately.
    """

    ptr: tl.tensor
    codes: tl.tensor


@triton.jit
def norms(rows):
    """Return the Euclidean norm of each row of [n, dim]; squares neither overflow nor vanish."""
    largest = tl.max(tl.abs(rows), axis=1)
    small, large = largest < 2.0**-50, largest > 2.0**40
    up = tl.where(small, 2.0**100, tl.where(large, 2.0**-80, 1.0))
    down = tl.where(small, 2.0**-100, tl.where(large, 2.0**80, 1.0))
    rows = rows * up[:, None]
    return tl.sqrt(tl.sum(rows * rows, axis=1)) * down


@triton.jit
def could_tie(distance, DIM: tl.constexpr):
    """Return the largest float32 result for a distance that is within a tie of this one."""
    return distance * (1 + 1.01 * TIE + (DIM + 32) * 2.0**-23) + 1e-44


@triton.jit
def vectors_of(codebook, code, valid, DIM: tl.constexpr, WIDE: tl.constexpr):
    """Return codes [n, WIDE] in float32; zeros where `valid` is false, and from DIM on."""
    place = tl.arange(0, WIDE)
    mask = valid[:, None] & (place < DIM)[None, :]
    at = codebook.ptr + code[:, None].to(tl.int64) * DIM + place[None, :]
    return tl.load(at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def scales_for(nearest):
    """Return the two factors that bring the nearest distance to [2^58, 2^59)."""
    tiny = nearest < 2.0**-60
    exponent = exponent_of(tl.where(tiny, nearest * 2.0**60, nearest)) - tl.where(tiny, 60, 0)
    exponent = 58 - tl.maximum(exponent, -149)
    return two_to(exponent // 2), two_to(exponent - exponent // 2)


@triton.jit
def _squared_distances(x, codes, scale_1, scale_2):
    """Return scaled squared distances of x [1, dim] and codes [n, dim].

    They are multiplied by (scale_1 * scale_2)^2 / 2^64. The product of both may be beyond float32.
    """
    difference = x - codes
    back = difference - x
    error = (x - (difference - back)) - (codes + back)
    fixed = (difference * scale_1 * scale_2).to(tl.int64) + (error * scale_1 * scale_2).to(tl.int64)
    fixed = tl.abs(fixed).to(tl.uint64)
    return tl.sum(tl.umulhi(fixed, fixed).to(tl.int64), axis=1)


@triton.jit
def measured(x, vectors, valid, limit, scale_1, scale_2):
    """Return the squared distances of the codes whose float32 distance is within `limit`."""
    near = valid & (norms(x - vectors) <= limit)
    squares = tl.full(near.shape, EXCLUDED, tl.int64)
    if tl.max(near.to(tl.int32), axis=0) > 0:
        squares = tl.where(near, _squared_distances(x, vectors, scale_1, scale_2), squares)
    return squares
