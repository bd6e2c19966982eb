"""Measure all candidates of a row exactly, and take the lowest index within a tie.

A score is in question ("alive") unless it is below the row's best by more than the error of two
scores and the width of a tie. In a share whose runner-up is alive all codes are candidates. In the
others, those of the best group of each slot whose best score is alive are.

A step measures STEP codes at once: one group for each slot in a part of a share. A part takes as
many steps as its share has tiles, one step for the best groups, or none.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from .distances import (
    EXCLUDED,
    TIE_IN_TRILLIONTHS,
    could_tie,
    measured,
    norms,
    scales_for,
    vectors_of,
)


class Nominated(NamedTuple):
    """The results of `nominate`, with the tiles of codes in a share."""

    best_ptr: tl.tensor
    tile_ptr: tl.tensor
    runner_up_ptr: tl.tensor
    share: tl.tensor


class Candidates(NamedTuple):
    """The candidates of one row.

    `threshold` is the lowest score alive; the steps of a part end before its number in `ends`.
    """

    row: tl.tensor
    threshold: tl.tensor
    ends: tl.tensor


@triton.jit
def _candidates(
    row,
    threshold,
    nominated,
    STEP: tl.constexpr,
    CODES: tl.constexpr,
    GROUP: tl.constexpr,
    SHARES: tl.constexpr,
):
    """Return the `Candidates` of a row."""
    SLOTS: tl.constexpr = CODES // GROUP
    PARTS: tl.constexpr = CODES // STEP
    part = tl.arange(0, SHARES * PARTS)
    slot = part[:, None] * (SLOTS // PARTS) + tl.arange(0, SLOTS // PARTS)[None, :]
    # Negated, so that a NaN (where numbers overflow) leaves everything alive.
    alive = ~(tl.load(nominated.best_ptr + row * (SHARES * SLOTS) + slot) < threshold)
    alive = tl.max(alive.to(tl.int32), axis=1)
    more = ~(tl.load(nominated.runner_up_ptr + row * SHARES + part // PARTS) < threshold)
    steps = tl.where(more, nominated.share, alive)
    return Candidates(row, threshold, tl.cumsum(steps, axis=0))


@triton.jit
def _step_of(
    step,
    candidates,
    nominated,
    codebook,
    DIM: tl.constexpr,
    WIDE: tl.constexpr,
    STEP: tl.constexpr,
    CODES: tl.constexpr,
    GROUP: tl.constexpr,
    SHARES: tl.constexpr,
):
    """Return the code indices [STEP] of a step, which of them are valid, and the codes."""
    SLOTS: tl.constexpr = CODES // GROUP
    PARTS: tl.constexpr = CODES // STEP
    done = candidates.ends <= step
    part = tl.sum(done.to(tl.int32), axis=0)
    share = part // PARTS
    place = tl.arange(0, STEP)
    slot = part % PARTS * (SLOTS // PARTS) + place // GROUP
    at = (candidates.row * SHARES + share) * SLOTS + slot
    alive = ~(tl.load(nominated.best_ptr + at) < candidates.threshold)
    more = ~(tl.load(nominated.runner_up_ptr + at // SLOTS) < candidates.threshold)
    ahead = step - tl.max(tl.where(done, candidates.ends, 0), axis=0)
    tile = tl.where(more, share * nominated.share + ahead, tl.load(nominated.tile_ptr + at))
    code = tile * CODES + slot + place % GROUP * SLOTS
    valid = (alive | more) & (code < codebook.codes)
    return code, valid, vectors_of(codebook, code, valid, DIM, WIDE)


@triton.jit
def lowest_of_the_nearest(
    x,
    row,
    threshold,
    nominated,
    codebook,
    DIM: tl.constexpr,
    WIDE: tl.constexpr,
    STEP: tl.constexpr,
    CODES: tl.constexpr,
    GROUP: tl.constexpr,
    SHARES: tl.constexpr,
):
    """Return the lowest index of the row x [1, WIDE] within a tie of its nearest code."""
    candidates = _candidates(row, threshold, nominated, STEP, CODES, GROUP, SHARES)
    steps = tl.max(candidates.ends, axis=0)
    nearest = float("inf")
    for step in range(steps):
        code, valid, vectors = _step_of(
            step, candidates, nominated, codebook, DIM, WIDE, STEP, CODES, GROUP, SHARES
        )
        distance = tl.where(valid, norms(x - vectors), float("inf"))
        nearest = tl.minimum(nearest, tl.min(distance, axis=0))
    limit = could_tie(nearest, DIM)
    scale_1, scale_2 = scales_for(nearest)
    smallest = tl.full((), EXCLUDED, tl.int64)
    for step in range(steps):
        code, valid, vectors = _step_of(
            step, candidates, nominated, codebook, DIM, WIDE, STEP, CODES, GROUP, SHARES
        )
        squares = measured(x, vectors, valid, limit, scale_1, scale_2)
        smallest = tl.minimum(smallest, tl.min(squares, axis=0))
    tied = smallest + smallest // 1000000 * TIE_IN_TRILLIONTHS // 1000000
    lowest = codebook.codes - 1
    for step in range(steps):
        code, valid, vectors = _step_of(
            step, candidates, nominated, codebook, DIM, WIDE, STEP, CODES, GROUP, SHARES
        )
        squares = measured(x, vectors, valid, limit, scale_1, scale_2)
        nearest_codes = tl.where(squares <= tied, code, codebook.codes)
        lowest = tl.minimum(lowest, tl.min(nearest_codes, axis=0))
    return lowest
