"""Decide between the nominated codes by their distances, never by their scores.

Most rows have one group of candidates (see `candidates`), and float32 distances tell its nearest
code apart. The others are settled by exact distances in the same program, one row after another.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .candidates import Nominated, lowest_of_the_nearest
from .distances import TIE, Codebook, could_tie, norms, vectors_of
from .halves import two_to


@triton.jit
def narrowed(
    x,
    row,
    inside,
    nominated,
    codebook,
    exponent_and_reach_ptr,
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
    """Return for each row a code, whether it is surely the nearest, and the lowest score alive."""
    SLOTS: tl.constexpr = CODES // GROUP
    WIDTH: tl.constexpr = SHARES * SLOTS
    slot = tl.arange(0, WIDTH)
    at = row[:, None] * WIDTH + slot[None, :]
    score = tl.load(nominated.best_ptr + at, mask=inside[:, None], other=0.0)
    runner_up = tl.load(
        nominated.runner_up_ptr + row[:, None] * SHARES + tl.arange(0, SHARES)[None, :],
        mask=inside[:, None],
        other=float("-inf"),
    )
    tile = tl.load(nominated.tile_ptr + at, mask=inside[:, None], other=0)

    # The width within which scores cannot tell codes apart, or distances may tie.
    scaled = x * two_to(tl.load(exponent_and_reach_ptr).to(tl.int32))
    reach = tl.load(exponent_and_reach_ptr + 1)
    square = tl.sum(scaled * scaled, axis=1)
    norm = tl.sqrt(square)
    best = tl.max(score, axis=1)
    error = PRODUCT_ERROR * norm * reach + SQUARE_ERROR * reach * reach
    error += PLACE_ERROR * (norm + reach)
    tie = 1.1 * TIE * tl.maximum(1.00001 * square - 2 * best, 0.0)
    threshold = best - 2.01 * error - tie

    # Negated, so that a NaN (where numbers overflow) leaves everything alive.
    alive = ~(score < threshold[:, None])
    first_alive = tl.min(tl.where(alive, slot[None, :], WIDTH), axis=1)
    last_alive = tl.max(tl.where(alive, slot[None, :], -1), axis=1)
    more = tl.max(tl.where(runner_up < threshold[:, None], -1, WIDTH), axis=1)
    last_alive = tl.maximum(last_alive, more)
    chosen = slot[None, :] == first_alive[:, None]
    first = tl.sum(tl.where(chosen, tile, 0), axis=1) * CODES + first_alive % SLOTS
    nearest = tl.full((ROWS,), float("inf"), tl.float32)
    second = tl.full((ROWS,), float("inf"), tl.float32)
    found = first
    for member in tl.static_range(GROUP):
        code = first + member * SLOTS
        valid = inside & (code < codebook.codes)
        distance = norms(x - vectors_of(codebook, code, valid, DIM, WIDE))
        distance = tl.where(valid, distance, float("inf"))
        second = tl.minimum(second, tl.maximum(nearest, distance))
        found = tl.where(distance < nearest, code, found)
        nearest = tl.minimum(nearest, distance)
    clear = (first_alive == last_alive) & (second > could_tie(nearest, DIM))
    return found, clear, threshold


@triton.jit(do_not_specialize=["rows", "codes", "share"])
def decide(
    x_ptr,
    codebook_ptr,
    exponent_and_reach_ptr,
    best_ptr,
    tile_ptr,
    runner_up_ptr,
    found_ptr,
    rows,
    codes,
    share,
    DIM: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
    CODES: tl.constexpr,
    GROUP: tl.constexpr,
    SHARES: tl.constexpr,
    PRODUCT_ERROR: tl.constexpr,
    SQUARE_ERROR: tl.constexpr,
    PLACE_ERROR: tl.constexpr,
):
    """Find the index of each row from what `nominate` left."""
    start = tl.program_id(0).to(tl.int64) * ROWS
    local = tl.arange(0, ROWS)
    inside = start + local < rows
    place = tl.arange(0, WIDE)
    at = x_ptr + (start + local)[:, None] * DIM + place[None, :]
    x = tl.load(at, mask=inside[:, None] & (place < DIM)[None, :], other=0.0).to(tl.float32)
    codebook = Codebook(codebook_ptr, codes)
    nominated = Nominated(best_ptr, tile_ptr, runner_up_ptr, share)
    found, clear, threshold = narrowed(
        x,
        start + local,
        inside,
        nominated,
        codebook,
        exponent_and_reach_ptr,
        DIM,
        WIDE,
        ROWS,
        CODES,
        GROUP,
        SHARES,
        PRODUCT_ERROR,
        SQUARE_ERROR,
        PLACE_ERROR,
    )
    tl.store(found_ptr + start + local, found, mask=inside & clear)
    waiting = tl.where(inside & ~clear, local, ROWS)
    current = tl.min(waiting, axis=0)
    while current < ROWS:
        row = start + current
        x_of_row = tl.load(x_ptr + row * DIM + place, mask=place < DIM, other=0.0)
        lowest = lowest_of_the_nearest(
            x_of_row.to(tl.float32)[None, :],
            row,
            tl.sum(tl.where(local == current, threshold, 0.0), axis=0),
            nominated,
            codebook,
            DIM,
            WIDE,
            STEP,
            CODES,
            GROUP,
            SHARES,
        )
        tl.store(found_ptr + row, lowest)
        current = tl.min(tl.where(waiting > current, waiting, ROWS), axis=0)
