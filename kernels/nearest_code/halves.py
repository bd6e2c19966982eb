"""Split rows into pairs of float16, in a launch of their own or as they are read.

Few rows are split by the programs that multiply them: a launch would cost more, though each of the
programs that share a row's codes splits it again. Many rows are split beforehand, so that the loop
over tiles of codes keeps its registers for the tensor cores: of 8 warps, two programs fit on a
multiprocessor with 128 registers a thread, and one with the 168 that splitting in the loop takes.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def two_to(exponent):
    """Return 2^exponent, for exponents of -126 to 127."""
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def exponent_of(x):
    """Return floor(log2(x)) of a positive normal number; -127 for anything smaller."""
    return (x.to(tl.int32, bitcast=True) >> 23) - 127


@triton.jit
def _scales(wanted, largest):
    """Return exponents to scale rows by, and the factor that their scores then lack.

    Rows are scaled as the codebook is, but for rows that would then leave float16.
    """
    scale = tl.minimum(wanted, 13 - exponent_of(largest))
    return scale, two_to(tl.minimum(wanted - scale, 127))


@triton.jit
def _halves(x, scale):
    """Return rows, scaled, as two float16 numbers each: high and low."""
    x = x * two_to(scale)[:, None]
    high = x.to(tl.float16)
    return high, (x - high.to(tl.float32)).to(tl.float16)


@triton.jit
def _numbers(x_ptr, row, place, rows, DIM: tl.constexpr):
    """Return these places of rows in float32, and zeros where there are none."""
    mask = (row < rows)[:, None] & (place < DIM)[None, :]
    return tl.load(x_ptr + row[:, None] * DIM + place[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["rows"])
def split(
    x_ptr,
    exponent_and_reach_ptr,
    halves_ptr,
    score_factor_ptr,
    rows,
    DIM: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Write rows as float16 halves [rows, 2, DEPTH], and the factor that their scores lack."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    place = tl.arange(0, WIDE)
    inside = row < rows
    x = _numbers(x_ptr, row, place, rows, DIM)
    wanted = tl.load(exponent_and_reach_ptr).to(tl.int32)
    scale, score_factor = _scales(wanted, tl.max(tl.abs(x), axis=1))
    high, low = _halves(x, scale)
    mask = inside[:, None] & (place < DEPTH)[None, :]
    at = halves_ptr + row[:, None] * (2 * DEPTH) + place[None, :]
    tl.store(at, high, mask=mask)
    tl.store(at + DEPTH, low, mask=mask)
    tl.store(score_factor_ptr + row, score_factor, mask=inside)


@triton.jit
def scales_of(x_ptr, exponent_and_reach_ptr, row, rows, DIM: tl.constexpr, CHUNK: tl.constexpr):
    """Return `_scales` of rows, whose chunks are read one by one."""
    largest = tl.zeros(row.shape, tl.float32)
    for start in tl.static_range(0, DIM, CHUNK):
        x = _numbers(x_ptr, row, start + tl.arange(0, CHUNK), rows, DIM)
        largest = tl.maximum(largest, tl.max(tl.abs(x), axis=1))
    return _scales(tl.load(exponent_and_reach_ptr).to(tl.int32), largest)


@triton.jit
def halves_of(
    x_ptr,
    row,
    start,
    scale,
    rows,
    DIM: tl.constexpr,
    CHUNK: tl.constexpr,
    DEPTH: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """Return the halves of a chunk of rows: from memory if `split` has run, or split here."""
    place = start + tl.arange(0, CHUNK)
    if SPLIT:
        at = x_ptr + row[:, None] * (2 * DEPTH) + place[None, :]
        inside = (row < rows)[:, None]
        return tl.load(at, mask=inside, other=0.0), tl.load(at + DEPTH, mask=inside, other=0.0)
    else:
        return _halves(_numbers(x_ptr, row, place, rows, DIM), scale)
