"""Impose magnitudes on the spectrum of a real frame that is held in registers.

The frame's even and odd samples were transformed as the real and imaginary parts of one signal, and
the bins are in the order of `fourier.to_digit_reversed`: thread t holds bins k * T + p(t) in its
registers k = 0 to 7, for T threads. Each of the lower half is untangled together with its mirrored
bin, which is in register 7 - k of the thread that holds T - p(t). The thread whose p is 0 has its
mirrored bins itself, in registers 8 - k; its bin 0 mirrors itself, and so does the middle bin, in
register 4. Four registers in a row are handled as one [T, 4], which takes no instruction.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import fourier


@triton.jit
def imposed(
    r,
    i,
    wanted,
    untangle,
    opposite,
    LEAST_POWER: tl.constexpr,
    QUIETEST_POWER: tl.constexpr,
):
    """Return the conjugate of the spectrum with the wanted magnitudes, tangled again.

    Args:
        r: eight registers [T], real parts of the bins.
        i: their imaginary parts.
        wanted: row of magnitudes in the order of `Tables.order`.
        untangle: cosines, then sines, in the order of the lower bins, 4 for each thread.
        opposite: for each thread the one that holds its mirrored bins, [T].
        LEAST_POWER: see `melcap.ops.griffin_lim.LEAST_SHARE`, the square of it.
        QUIETEST_POWER: see there.
    """
    THREADS: tl.constexpr = r[0].shape[0]
    first = tl.arange(0, THREADS) == 0
    four = 4 * tl.arange(0, THREADS)[:, None] + tl.arange(0, 4)[None, :]
    ar, ai = _row(r[0], r[1], r[2], r[3]), _row(i[0], i[1], i[2], i[3])
    br, bi = _mirrored(
        tl.where(first[:, None], _row(r[0], r[7], r[6], r[5]), _row(r[7], r[6], r[5], r[4])),
        tl.where(first[:, None], _row(i[0], i[7], i[6], i[5]), _row(i[7], i[6], i[5], i[4])),
        opposite,
    )
    # The spectrum of the middle bin is its conjugate; its magnitude and its gain are the same.
    middle = _gain(r[4], i[4], tl.load(wanted + 8 * THREADS), LEAST_POWER, QUIETEST_POWER)
    cosine, sine = tl.load(untangle + four), tl.load(untangle + 4 * THREADS + four)
    evr, evi = 0.5 * (ar + br), 0.5 * (ai - bi)
    odr, odi = fourier.turned(0.5 * (ai + bi), 0.5 * (br - ar), cosine, sine)
    lr, li, ur, ui = evr + odr, evi + odi, evr - odr, evi - odi
    lower = _gain(lr, li, tl.load(wanted + four), LEAST_POWER, QUIETEST_POWER)
    upper = _gain(ur, ui, tl.load(wanted + 4 * THREADS + four), LEAST_POWER, QUIETEST_POWER)
    lr, li, ur, ui = lr * lower, li * lower, ur * upper, ui * upper
    evr, evi = 0.5 * (lr + ur), 0.5 * (li + ui)
    odr, odi = fourier.turned(0.5 * (lr - ur), 0.5 * (li - ui), cosine, -sine)
    r0, r1, r2, r3 = _registers(evr - odi)
    i0, i1, i2, i3 = _registers(-(evi + odr))
    br, bi = _mirrored(evr + odi, evi - odr, opposite)
    r7, r6, r5, r4 = _registers(br)
    i7, i6, i5, i4 = _registers(bi)
    r4, r5, r6, r7 = (
        tl.where(first, r[4] * middle, r4),
        tl.where(first, r4, r5),
        tl.where(first, r5, r6),
        tl.where(first, r6, r7),
    )
    i4, i5, i6, i7 = (
        tl.where(first, -i[4] * middle, i4),
        tl.where(first, i4, i5),
        tl.where(first, i5, i6),
        tl.where(first, i6, i7),
    )
    return (r0, r1, r2, r3, r4, r5, r6, r7), (i0, i1, i2, i3, i4, i5, i6, i7)


@triton.jit
def _row(a, b, c, d):
    """Join four registers [T] into [T, 4]; the inverse of `_registers`."""
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [a.shape[0], 4])


@triton.jit
def _registers(x):
    """Split [T, 4] into four registers."""
    even, odd = tl.split(tl.reshape(x, [x.shape[0], 2, 2]))
    a, c = tl.split(even)
    b, d = tl.split(odd)
    return a, b, c, d


@triton.jit
def _mirrored(r, i, opposite):
    """Return both parts [T, 4] as the opposite threads hold them, in one pass."""
    THREADS: tl.constexpr = r.shape[0]
    # One dimension: the compiler would gather along one of two dimensions by shuffles.
    place = tl.reshape(opposite[None, :] + THREADS * tl.arange(0, 8)[:, None], [8 * THREADS])
    flat = tl.reshape(tl.permute(tl.join(r, i), [2, 1, 0]), [8 * THREADS])
    found = tl.reshape(tl.gather(flat, place, 0), [2, 4, THREADS])
    return tl.split(tl.permute(found, [2, 1, 0]))


@triton.jit
def _gain(real, imaginary, wanted, LEAST_POWER: tl.constexpr, QUIETEST_POWER: tl.constexpr):
    """Return the factor that `melcap.ops.griffin_lim.gain` computes."""
    power = real * real + imaginary * imaginary
    return wanted * tl.rsqrt(power + LEAST_POWER * wanted * wanted + QUIETEST_POWER)
