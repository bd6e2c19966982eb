"""Nominate codes by scores from the tensor cores, in half precision with a known error.

A row's nearest code has the largest score x.c - |c|^2 / 2. Rows and codes are scaled by powers of
two and split into two float16, x = x1 + x2 and c = c1 + c2. The sum x2.c1 + x1.c2 + x1.c1 has the
22 bits of three TF32 products, at twice their rate (Ootomo and Yokota, "Recovering single precision
accuracy from Tensor Cores", 2022).

Tiles of codes stream past a tile of rows; no score is ever written. The codes of a tile form groups
of GROUP codes, SLOTS = CODES / GROUP apart. For each row and slot the best group, its tile and the
value of the runner-up are kept, so that the loop reduces nothing across threads. A score costs
6 * dim operations of the tensor cores, a multiply-add, 7/8 of a maximum, and 5/8 of an instruction
to keep it. A tile of rows reads the codebook once, 4 bytes a number.

The error of a score has three parts, with u = 2^-23, X = |x|, R the largest |c|, all after scaling,
and dim as padded:
- halves rounded to 2^-22, and x2.c2 left out: 6 u X R; float16 that fall below its normal numbers,
  even if a device takes those for zero: 2^-14 sqrt(dim) (X + R), and for rows that are scaled by
  less than the codebook, as their largest number stays above 2^13, up to u X R more;
- sums of 16 products and the sum so far, where every addend may be cut off at the last bit of the
  largest (Fasi et al., "Numerical behavior of NVIDIA tensor cores", 2021): 17/16 dim u X R for
  x1.c1, and 2^-10 of that for the others, which come first; 51/16 dim u X R where they do not,
  because dim is taken in chunks;
- |c|^2 / 2 and the score are rounded: u (X R + R^2).
Scores that differ by more than the sum of their errors are in the order of the distances.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from .halves import halves_of, scales_of


@triton.jit(do_not_specialize=["rows", "tiles", "share"])
def nominate(
    x_ptr,
    exponent_and_reach_ptr,
    score_factor_ptr,
    codes_ptr,
    offset_ptr,
    best_ptr,
    tile_ptr,
    runner_up_ptr,
    rows,
    tiles,
    share,
    DIM: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
    GROUP: tl.constexpr,
    SHARES: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """Find the best group of each row and slot, its tile and the runner-up, in a share of tiles."""
    SLOTS: tl.constexpr = CODES // GROUP
    DEPTH: tl.constexpr = CHUNK * CHUNKS
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * share
    last = tl.minimum(first + share, tiles)
    place = tl.arange(0, CHUNK)
    code = tl.arange(0, CODES)
    codes_at = codes_ptr + code[None, :] * (2 * DEPTH) + place[:, None]
    if SPLIT:
        scale = 0  # `split` has scaled the rows
        score_factor = tl.load(score_factor_ptr + row, mask=row < rows, other=1.0)
    else:
        scale, score_factor = scales_of(x_ptr, exponent_and_reach_ptr, row, rows, DIM, CHUNK)
    score_factor = score_factor[:, None]
    if CHUNKS == 1:
        high, low = halves_of(x_ptr, row, 0, scale, rows, DIM, CHUNK, DEPTH, SPLIT)
    best = tl.full((ROWS, SLOTS), float("-inf"), tl.float32)
    runner_up = tl.full((ROWS, SLOTS), float("-inf"), tl.float32)
    best_tile = tl.zeros((ROWS, SLOTS), tl.int32)
    scores = tl.zeros((ROWS, CODES), tl.float32)
    # More than one accumulator would not fit in Blackwell's tensor memory.
    for step in tl.range(first * CHUNKS, last * CHUNKS, disallow_acc_multi_buffer=True):
        tile = step // CHUNKS
        start = step % CHUNKS * CHUNK
        at = codes_at + (tile.to(tl.int64) * (CODES * 2 * DEPTH) + start)
        codes_high = tl.load(at)
        codes_low = tl.load(at + DEPTH)
        if CHUNKS > 1:
            high, low = halves_of(x_ptr, row, start, scale, rows, DIM, CHUNK, DEPTH, SPLIT)
        scores = tl.dot(low, codes_high, scores)
        scores = tl.dot(high, codes_low, scores)
        scores = tl.dot(high, codes_high, scores)
        if step % CHUNKS == CHUNKS - 1:
            offset = tl.load(offset_ptr + tile * CODES + code)
            complete = scores * score_factor + offset[None, :]
            peak = tl.max(tl.reshape(complete, (ROWS, GROUP, SLOTS)), axis=1)
            runner_up = tl.maximum(runner_up, tl.minimum(best, peak))
            best_tile = tl.where(peak > best, tile, best_tile)
            best = tl.maximum(best, peak)
            scores = tl.zeros((ROWS, CODES), tl.float32)
    inside = (row < rows)[:, None]
    found = row * SHARES + tl.program_id(1)
    at = found[:, None] * SLOTS + tl.arange(0, SLOTS)[None, :]
    tl.store(best_ptr + at, best, mask=inside)
    tl.store(tile_ptr + at, best_tile, mask=inside)
    tl.store(runner_up_ptr + found, tl.max(runner_up, axis=1), mask=row < rows)


def error_bound(chunk: int, chunks: int) -> dict[str, float]:
    """Return the error's factors of X R, R^2 and X + R, with a little to spare; see the module."""
    unit, depth = 2.0**-23, chunk * chunks
    return {
        "PRODUCT_ERROR": ((1.1 if chunks == 1 else 3.3) * depth + 8) * unit,
        "SQUARE_ERROR": 1.01 * unit,
        "PLACE_ERROR": 1.01 * 2.0**-14 * math.sqrt(depth),
    }
