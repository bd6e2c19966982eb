"""Compute the Fourier transform of 2, 4 or 8 complex values that a thread holds in registers."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def dft4(r0, i0, r1, i1, r2, i2, r3, i3):
    """Return the DFT of four complex registers."""
    ar, ai, br, bi = r0 + r2, i0 + i2, r0 - r2, i0 - i2
    cr, ci, dr, di = r1 + r3, i1 + i3, r1 - r3, i1 - i3
    return ar + cr, ai + ci, br + di, bi - dr, ar - cr, ai - ci, br - di, bi + dr


@triton.jit
def dft8(r, i):
    """Return the DFT of eight complex registers, real parts and imaginary parts."""
    half: tl.constexpr = 0.7071067811865476
    e0r, e0i, e1r, e1i, e2r, e2i, e3r, e3i = dft4(
        r[0] + r[4],
        i[0] + i[4],
        r[1] + r[5],
        i[1] + i[5],
        r[2] + r[6],
        i[2] + i[6],
        r[3] + r[7],
        i[3] + i[7],
    )
    d1r, d1i, d2r, d2i = r[1] - r[5], i[1] - i[5], r[2] - r[6], i[2] - i[6]
    d3r, d3i = r[3] - r[7], i[3] - i[7]
    o0r, o0i, o1r, o1i, o2r, o2i, o3r, o3i = dft4(
        r[0] - r[4],
        i[0] - i[4],
        (d1r + d1i) * half,
        (d1i - d1r) * half,
        d2i,
        -d2r,
        (d3i - d3r) * half,
        -(d3r + d3i) * half,
    )
    return (
        (e0r, o0r, e1r, o1r, e2r, o2r, e3r, o3r),
        (e0i, o0i, e1i, o1i, e2i, o2i, e3i, o3i),
    )


@triton.jit
def dft_last(r, i, DIGIT: tl.constexpr):
    """Return the DFT of DIGIT (8, 4 or 2) points over the upper part of the register index."""
    if DIGIT == 8:
        r, i = dft8(r, i)
    elif DIGIT == 4:
        r0, i0, r2, i2, r4, i4, r6, i6 = dft4(r[0], i[0], r[2], i[2], r[4], i[4], r[6], i[6])
        r1, i1, r3, i3, r5, i5, r7, i7 = dft4(r[1], i[1], r[3], i[3], r[5], i[5], r[7], i[7])
        r = (r0, r1, r2, r3, r4, r5, r6, r7)
        i = (i0, i1, i2, i3, i4, i5, i6, i7)
    else:
        r = (
            r[0] + r[4],
            r[1] + r[5],
            r[2] + r[6],
            r[3] + r[7],
            r[0] - r[4],
            r[1] - r[5],
            r[2] - r[6],
            r[3] - r[7],
        )
        i = (
            i[0] + i[4],
            i[1] + i[5],
            i[2] + i[6],
            i[3] + i[7],
            i[0] - i[4],
            i[1] - i[5],
            i[2] - i[6],
            i[3] - i[7],
        )
    return r, i
