"""Decide between the nominated codes by their distances, never by their scores.

A distance is measured in float32 first, for numbers of any magnitude. Where that cannot tell codes
apart, squared distances are measured in 64-bit fixed point. A difference x - c is exact as the sum
of two float32. It is scaled so that the nearest distance lies in [2^58, 2^59), and cut off to
integers. The upper 64 bits of its square are kept, so `dim` squares err by dim / 2^52 in all.
Sums of integers are the same in any order: a pair has the same distance in every tiling and batch.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from melcap.ops.nearest_code import TIE as OPERATION_TIE

from .scores import exponent_of, two_to

TIE = tl.constexpr(OPERATION_TIE)
TIE_IN_TRILLIONTHS = tl.constexpr(round(((1 + OPERATION_TIE) ** 2 - 1) * 1e12))
"""The most that a tie adds to a squared distance, in trillionths of it."""
GROUPS_ALIVE, ALL_CODES = tl.constexpr(-1), tl.constexpr(-2)
"""In place of an index: which codes are to be measured."""
EXCLUDED = tl.constexpr(2**63 - 1)
"""Stands for the squared distance of a code that is no candidate."""


class Codebook(NamedTuple):
    """The codebook [codes, DIM] in memory.

    These structures hold run-time values only. Triton would turn a `constexpr` inside one into such
    a value, so constants are passed separately.
    """

    ptr: tl.tensor
    codes: tl.tensor


class Candidates(NamedTuple):
    """The codes that are to be measured for one row.

    They are the first `whole` codes, or those of the row's `groups` whose score is not below
    `threshold`.
    """

    best_ptr: tl.tensor
    tile_ptr: tl.tensor
    threshold: tl.tensor
    groups: tl.tensor
    whole: tl.tensor


@triton.jit
def _norms(rows):
    """Return the Euclidean norm of each row of [n, dim]; squares neither overflow nor vanish."""
    largest = tl.max(tl.abs(rows), axis=1)
    small, large = largest < 2.0**-50, largest > 2.0**40
    up = tl.where(small, 2.0**100, tl.where(large, 2.0**-80, 1.0))
    down = tl.where(small, 2.0**-100, tl.where(large, 2.0**80, 1.0))
    rows = rows * up[:, None]
    return tl.sqrt(tl.sum(rows * rows, axis=1)) * down


@triton.jit
def _could_tie(distance, DIM: tl.constexpr):
    """Return the largest float32 result for a distance that is within a tie of this one."""
    return distance * (1 + 1.01 * TIE + (DIM + 32) * 2.0**-23) + 1e-44


@triton.jit
def _vectors(codebook, code, valid, DIM: tl.constexpr, WIDE: tl.constexpr):
    """Return codes [n, WIDE] in float32; zeros where `valid` is false, and from DIM on."""
    place = tl.arange(0, WIDE)
    mask = valid[:, None] & (place < DIM)[None, :]
    at = codebook.ptr + code[:, None].to(tl.int64) * DIM + place[None, :]
    return tl.load(at, mask=mask, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["rows", "codes"])
def decide(
    x_ptr,
    codebook_ptr,
    exponent_and_reach_ptr,
    best_ptr,
    tile_ptr,
    runner_up_ptr,
    found_ptr,
    threshold_ptr,
    rows,
    codes,
    DIM: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
    GROUP: tl.constexpr,
    SHARES: tl.constexpr,
    PRODUCT_ERROR: tl.constexpr,
    SQUARE_ERROR: tl.constexpr,
    PLACE_ERROR: tl.constexpr,
):
    """Find the index of each row from what `nominate` left, or say what `settle` must measure."""
    SLOTS: tl.constexpr = CODES // GROUP
    WIDTH: tl.constexpr = SHARES * SLOTS
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    place = tl.arange(0, WIDE)
    x_mask = inside[:, None] & (place < DIM)[None, :]
    x = tl.load(x_ptr + row[:, None] * DIM + place[None, :], mask=x_mask, other=0.0)
    x = x.to(tl.float32)

    # The width within which scores cannot tell codes apart, or distances may tie.
    scaled = x * two_to(tl.load(exponent_and_reach_ptr).to(tl.int32))
    reach = tl.load(exponent_and_reach_ptr + 1)
    square = tl.sum(scaled * scaled, axis=1)
    norm = tl.sqrt(square)
    slot = tl.arange(0, WIDTH)
    at = row[:, None] * WIDTH + slot[None, :]
    score = tl.load(best_ptr + at, mask=inside[:, None], other=0.0)
    best = tl.max(score, axis=1)
    error = PRODUCT_ERROR * norm * reach + SQUARE_ERROR * reach * reach
    error += PLACE_ERROR * (norm + reach)
    tie = 1.1 * TIE * tl.maximum(1.00001 * square - 2 * best, 0.0)
    threshold = best - 2.01 * error - tie
    # Negated, so that a NaN (where numbers overflow) leaves everything alive.
    alive = ~(score < threshold[:, None])
    share = tl.arange(0, SHARES)
    runner_up = tl.load(
        runner_up_ptr + row[:, None] * SHARES + share[None, :],
        mask=inside[:, None],
        other=float("-inf"),
    )
    everything = tl.max((~(runner_up < threshold[:, None])).to(tl.int32), axis=1)

    tile = tl.load(tile_ptr + at, mask=inside[:, None], other=0)
    first_alive = tl.min(tl.where(alive, slot[None, :], WIDTH), axis=1)
    last_alive = tl.max(tl.where(alive, slot[None, :], -1), axis=1)
    chosen = slot[None, :] == first_alive[:, None]
    first = tl.sum(tl.where(chosen, tile, 0), axis=1) * CODES + first_alive % SLOTS
    nearest = tl.full((ROWS,), float("inf"), tl.float32)
    second = tl.full((ROWS,), float("inf"), tl.float32)
    found = first
    codebook = Codebook(codebook_ptr, codes)
    for member in tl.static_range(GROUP):
        code = first + member * SLOTS
        valid = inside & (code < codes)
        distance = _norms(x - _vectors(codebook, code, valid, DIM, WIDE))
        distance = tl.where(valid, distance, float("inf"))
        second = tl.minimum(second, tl.maximum(nearest, distance))
        found = tl.where(distance < nearest, code, found)
        nearest = tl.minimum(nearest, distance)
    clear = (first_alive == last_alive) & (everything == 0) & (second > _could_tie(nearest, DIM))
    unclear = tl.where(everything == 0, GROUPS_ALIVE, ALL_CODES)
    tl.store(found_ptr + row, tl.where(clear, found, unclear), mask=inside)
    tl.store(threshold_ptr + row, threshold, mask=inside)


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
def _step_of(
    step,
    candidates,
    codebook,
    DIM: tl.constexpr,
    WIDE: tl.constexpr,
    STEP: tl.constexpr,
    CODES: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Return the code indices [STEP] of a step, which of them are valid, and the codes."""
    SLOTS: tl.constexpr = CODES // GROUP
    position = step * STEP + tl.arange(0, STEP)
    group = position // GROUP
    score = tl.load(candidates.best_ptr + group, mask=group < candidates.groups, other=0.0)
    tile = tl.load(candidates.tile_ptr + group, mask=group < candidates.groups, other=0)
    of_group = tile * CODES + group % SLOTS + position % GROUP * SLOTS
    code = tl.where(position < candidates.whole, position, of_group)
    alive = (group < candidates.groups) & ~(score < candidates.threshold)
    valid = (alive | (position < candidates.whole)) & (code < codebook.codes)
    return code, valid, _vectors(codebook, code, valid, DIM, WIDE)


@triton.jit
def _measured(x, vectors, valid, limit, scale_1, scale_2):
    """Return the squared distances of the codes whose float32 distance is within `limit`."""
    near = valid & (_norms(x - vectors) <= limit)
    squares = tl.full(near.shape, EXCLUDED, tl.int64)
    if tl.max(near.to(tl.int32), axis=0) > 0:
        squares = tl.where(near, _squared_distances(x, vectors, scale_1, scale_2), squares)
    return squares


@triton.jit
def _lowest_of_the_nearest(
    x,
    candidates,
    codebook,
    DIM: tl.constexpr,
    WIDE: tl.constexpr,
    STEP: tl.constexpr,
    CODES: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Return the lowest index of the row x [1, WIDE] within a tie of its nearest code."""
    steps = tl.cdiv(tl.maximum(candidates.whole, candidates.groups * GROUP), STEP)
    nearest = float("inf")
    for step in range(steps):
        code, valid, vectors = _step_of(step, candidates, codebook, DIM, WIDE, STEP, CODES, GROUP)
        distance = tl.where(valid, _norms(x - vectors), float("inf"))
        nearest = tl.minimum(nearest, tl.min(distance, axis=0))
    limit = _could_tie(nearest, DIM)
    tiny = nearest < 2.0**-60
    exponent = exponent_of(tl.where(tiny, nearest * 2.0**60, nearest)) - tl.where(tiny, 60, 0)
    exponent = 58 - tl.maximum(exponent, -149)
    scale_1, scale_2 = two_to(exponent // 2), two_to(exponent - exponent // 2)
    smallest = tl.full((), EXCLUDED, tl.int64)
    for step in range(steps):
        code, valid, vectors = _step_of(step, candidates, codebook, DIM, WIDE, STEP, CODES, GROUP)
        squares = _measured(x, vectors, valid, limit, scale_1, scale_2)
        smallest = tl.minimum(smallest, tl.min(squares, axis=0))
    tied = smallest + smallest // 1000000 * TIE_IN_TRILLIONTHS // 1000000
    lowest = codebook.codes - 1
    for step in range(steps):
        code, valid, vectors = _step_of(step, candidates, codebook, DIM, WIDE, STEP, CODES, GROUP)
        squares = _measured(x, vectors, valid, limit, scale_1, scale_2)
        nearest_codes = tl.where(squares <= tied, code, codebook.codes)
        lowest = tl.minimum(lowest, tl.min(nearest_codes, axis=0))
    return lowest


@triton.jit(do_not_specialize=["rows", "codes"])
def settle(
    x_ptr,
    codebook_ptr,
    best_ptr,
    tile_ptr,
    threshold_ptr,
    found_ptr,
    rows,
    codes,
    DIM: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
    CODES: tl.constexpr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Find the index of each row that `decide` has left open, by exact distances."""
    start = tl.program_id(0).to(tl.int64) * ROWS
    local = tl.arange(0, ROWS)
    state = tl.load(found_ptr + start + local, mask=start + local < rows, other=0)
    waiting = tl.where(state < 0, local, ROWS)
    current = tl.min(waiting, axis=0)
    place = tl.arange(0, WIDE)
    codebook = Codebook(codebook_ptr, codes)
    while current < ROWS:
        row = start + current
        whole = tl.sum(tl.where((waiting == current) & (state == ALL_CODES), codes, 0), axis=0)
        x = tl.load(x_ptr + row * DIM + place, mask=place < DIM, other=0.0)
        candidates = Candidates(
            best_ptr=best_ptr + row * WIDTH,
            tile_ptr=tile_ptr + row * WIDTH,
            threshold=tl.load(threshold_ptr + row),
            groups=tl.where(whole == 0, WIDTH, 0),
            whole=whole,
        )
        lowest = _lowest_of_the_nearest(
            x.to(tl.float32)[None, :], candidates, codebook, DIM, WIDE, STEP, CODES, GROUP
        )
        tl.store(found_ptr + row, lowest)
        current = tl.min(tl.where(waiting > current, waiting, ROWS), axis=0)
