"""Turn numbers in polar form into their real and imaginary parts.

Sines and cosines are computed here, because those of a device's library go through local memory for
large angles. The nearest multiple n of pi / 2 is subtracted in two parts. The first has 8 bits, so
that its product with n below 2^16 is exact, and so is the difference. Then come the polynomials of
the Cephes library (S. Moshier) for -pi / 4 to pi / 4. The error is at most 1e-7 for angles up to
1,000 and 2e-7 up to 8,000, where rounding an angle to float32 changes it by up to 2.4e-4. Beyond,
it grows with the angle, but no sine or cosine leaves -1 to 1 by more than rounding.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def cartesian(ln_magnitude, phase, loudest):
    """Return real and imaginary parts, with logarithms above `loudest` taken for it."""
    magnitude = tl.exp(tl.minimum(ln_magnitude, loudest, propagate_nan=tl.PropagateNan.ALL))
    cosine, sine = cosine_and_sine(phase)
    return magnitude * cosine, magnitude * sine


@triton.jit
def cosine_and_sine(angle):
    """Return the cosine and the sine of angles in radians."""
    quarters = tl.floor(angle * 0.6366197723675814 + 0.5)
    rest = angle - quarters * 1.5703125 - quarters * 4.838267948966e-4
    # Rounding may leave several turns of an angle above 10^7, on which the polynomials would grow.
    rest = tl.clamp(rest, -1.0, 1.0, propagate_nan=tl.PropagateNan.ALL)
    square = rest * rest
    cosine = -1.388731625493765e-3 + square * 2.443315711809948e-5
    cosine = 4.166664568298827e-2 + square * cosine
    cosine = 1.0 - 0.5 * square + square * square * cosine
    sine = 8.3321608736e-3 - square * 1.9515295891e-4
    sine = rest + rest * square * (-1.6666654611e-1 + square * sine)
    quarter = quarters.to(tl.int32)
    odd = (quarter & 1) != 0
    along, across = tl.where(odd, sine, cosine), tl.where(odd, cosine, sine)
    return (
        tl.where(((quarter + 1) & 2) != 0, -along, along),
        tl.where((quarter & 2) != 0, -across, across),
    )
