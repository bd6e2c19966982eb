"""Work on bins of a real frame's spectrum together with their mirrored ones, in registers.

The frame's even and odd samples are the real and imaginary parts of a transform of half the length
(see `real_frames`). Each of its lower bins is tangled with its mirrored bin. Thread t holds bins
k * T + p(t) in its registers k = 0 to 7, for T threads, where p puts threads in any order with
p(0) = 0. The mirrored bin of register k is in register 7 - k of the thread that holds T - p(t). The
thread whose p is 0 has its mirrored bins itself, in registers 8 - k; its bin 0 mirrors itself, and
so does the middle bin, in register 4. Four registers in a row are handled as one [T, 4], which
takes no instruction.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import fourier


@triton.jit
def row(a, b, c, d):
    """Join four registers [T] into [T, 4]; the inverse of `row_registers`."""
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [a.shape[0], 4])


@triton.jit
def row_registers(x):
    """Split [T, 4] into four registers."""
    even, odd = tl.split(tl.reshape(x, [x.shape[0], 2, 2]))
    a, c = tl.split(even)
    b, d = tl.split(odd)
    return a, b, c, d


@triton.jit
def mirrored(r, i, opposite):
    """Return both parts [T, 4] as the opposite threads hold them, in one pass."""
    THREADS: tl.constexpr = r.shape[0]
    # One dimension: the compiler would gather along one of two dimensions by shuffles.
    place = tl.reshape(opposite[None, :] + THREADS * tl.arange(0, 8)[:, None], [8 * THREADS])
    flat = tl.reshape(tl.permute(tl.join(r, i), [2, 1, 0]), [8 * THREADS])
    found = tl.reshape(tl.gather(flat, place, 0), [2, 4, THREADS])
    return tl.split(tl.permute(found, [2, 1, 0]))


@triton.jit
def tangled(lr, li, ur, ui, middle_r, middle_i, cosine, sine, opposite):
    """Return the transform of half the length, conjugated: eight registers of both parts.

    Args:
        lr: real parts of the frame's lower bins, [T, 4].
        li: their imaginary parts.
        ur: real parts of the mirrored bins, in the place of the bins that they mirror.
        ui: their imaginary parts, negated.
        middle_r: real part of the frame's middle bin.
        middle_i: its imaginary part.
        cosine: cosines that separate even and odd samples, in the order of the lower bins.
        sine: the sines.
        opposite: for each thread the one that holds its mirrored bins, [T].
    """
    first = tl.arange(0, lr.shape[0]) == 0
    evr, evi = 0.5 * (lr + ur), 0.5 * (li + ui)
    odr, odi = fourier.turned(0.5 * (lr - ur), 0.5 * (li - ui), cosine, -sine)
    r0, r1, r2, r3 = row_registers(evr - odi)
    i0, i1, i2, i3 = row_registers(-(evi + odr))
    br, bi = mirrored(evr + odi, evi - odr, opposite)
    r7, r6, r5, r4 = row_registers(br)
    i7, i6, i5, i4 = row_registers(bi)
    r4, r5, r6, r7 = (
        tl.where(first, middle_r, r4),
        tl.where(first, r4, r5),
        tl.where(first, r5, r6),
        tl.where(first, r6, r7),
    )
    i4, i5, i6, i7 = (
        tl.where(first, middle_i, i4),
        tl.where(first, i4, i5),
        tl.where(first, i5, i6),
        tl.where(first, i6, i7),
    )
    return (r0, r1, r2, r3, r4, r5, r6, r7), (i0, i1, i2, i3, i4, i5, i6, i7)
