"""Impose magnitudes on the spectrum of a real frame that is held in registers.

The frame's even and odd samples were transformed as the real and imaginary parts of one signal, and
the bins are in the order of `fourier.to_digit_reversed`. Each of the lower half is untangled
together with its mirrored bin (see `mirrored_bins`).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import fourier
from ..mirrored_bins import mirrored, row, tangled


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
    ar, ai = row(r[0], r[1], r[2], r[3]), row(i[0], i[1], i[2], i[3])
    br, bi = mirrored(
        tl.where(first[:, None], row(r[0], r[7], r[6], r[5]), row(r[7], r[6], r[5], r[4])),
        tl.where(first[:, None], row(i[0], i[7], i[6], i[5]), row(i[7], i[6], i[5], i[4])),
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
    return tangled(
        lr * lower,
        li * lower,
        ur * upper,
        ui * upper,
        r[4] * middle,
        -i[4] * middle,
        cosine,
        sine,
        opposite,
    )


@triton.jit
def _gain(real, imaginary, wanted, LEAST_POWER: tl.constexpr, QUIETEST_POWER: tl.constexpr):
    """Return the factor that `melcap.ops.griffin_lim.gain` computes."""
    power = real * real + imaginary * imaginary
    return wanted * tl.rsqrt(power + LEAST_POWER * wanted * wanted + QUIETEST_POWER)
