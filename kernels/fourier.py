"""Compute a complex Fourier transform in registers, in radix 8.

`points` complex values are held in eight registers of `points // 8` threads. A stage is a DFT over
the register digit, then a twiddle. Between two stages the register digit changes places with the
next digit of the thread index, which the compiler turns into one pass through shared memory. Only
reshapes, permutes, splits and joins are used, so the same code runs in the interpreter.
(Decimation in frequency: Gentleman and Sande, 1966.)

The stages leave the digits of the thread index in reverse. To put them in order costs one more pass
through shared memory. What works on single bins and transforms back does without: it goes on with
`to_digit_reversed` and returns with `from_digit_reversed`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .butterflies import dft8, dft_last

RADIX = 8


@triton.jit
def registers(x):
    """Split [8, threads] into eight [threads]; each split stays within a thread."""
    low, high = tl.split(tl.permute(tl.reshape(x, [2, 2, 2, x.shape[1]]), [0, 1, 3, 2]))
    even, odd = tl.split(tl.permute(low, [0, 2, 1]))
    x0, x4 = tl.split(tl.permute(even, [1, 0]))
    x2, x6 = tl.split(tl.permute(odd, [1, 0]))
    even, odd = tl.split(tl.permute(high, [0, 2, 1]))
    x1, x5 = tl.split(tl.permute(even, [1, 0]))
    x3, x7 = tl.split(tl.permute(odd, [1, 0]))
    return x0, x1, x2, x3, x4, x5, x6, x7


@triton.jit
def together(x):
    """Join eight [threads] into [threads, 8]."""
    low = tl.join(tl.join(x[0], x[4]), tl.join(x[2], x[6]))
    high = tl.join(tl.join(x[1], x[5]), tl.join(x[3], x[7]))
    return tl.reshape(tl.join(low, high), [x[0].shape[0], 8])


@triton.jit
def exchange(x, DONE: tl.constexpr, DIGIT: tl.constexpr):
    """Exchange the register digit `low` with the digit `r` of the thread index.

    Threads (done, r, p) and registers (high, low) become threads (done, low, p) and registers
    (r, high). `low` and `r` have DIGIT values each: 8 between full stages, fewer before a last,
    smaller one.
    """
    threads: tl.constexpr = x[0].shape[0]
    rest: tl.constexpr = threads // (DONE * DIGIT)
    y = tl.reshape(together(x), [DONE, DIGIT, rest, 8 // DIGIT, DIGIT])
    return registers(tl.reshape(tl.permute(y, [1, 3, 0, 4, 2]), [8, threads]))


@triton.jit
def exchange_back(x, DONE: tl.constexpr, DIGIT: tl.constexpr):
    """Undo `exchange`."""
    threads: tl.constexpr = x[0].shape[0]
    rest: tl.constexpr = threads // (DONE * DIGIT)
    y = tl.reshape(together(x), [DONE, DIGIT, rest, DIGIT, 8 // DIGIT])
    return registers(tl.reshape(tl.permute(y, [4, 1, 0, 3, 2]), [8, threads]))


@triton.jit
def turned(r, i, cosine, sine):
    """Return a complex number multiplied by (cosine, sine)."""
    return r * cosine - i * sine, r * sine + i * cosine


@triton.jit
def twiddle(r, i, roots, SIZE: tl.constexpr, POINTS: tl.constexpr):
    """Multiply register k at remaining position p by exp(-2 pi j p k / SIZE); see `root_table`."""
    rest: tl.constexpr = SIZE // 8
    # The tables of the larger sizes come first: 2 (POINTS + POINTS / 8 + ... + 8 SIZE) values.
    place = roots + 16 * (POINTS - SIZE) // 7 + tl.arange(0, r[0].shape[0]) % rest
    sine: tl.constexpr = 7 * rest
    r1, i1 = turned(r[1], i[1], tl.load(place), tl.load(place + sine))
    r2, i2 = turned(r[2], i[2], tl.load(place + rest), tl.load(place + sine + rest))
    r3, i3 = turned(r[3], i[3], tl.load(place + 2 * rest), tl.load(place + sine + 2 * rest))
    r4, i4 = turned(r[4], i[4], tl.load(place + 3 * rest), tl.load(place + sine + 3 * rest))
    r5, i5 = turned(r[5], i[5], tl.load(place + 4 * rest), tl.load(place + sine + 4 * rest))
    r6, i6 = turned(r[6], i[6], tl.load(place + 5 * rest), tl.load(place + sine + 5 * rest))
    r7, i7 = turned(r[7], i[7], tl.load(place + 6 * rest), tl.load(place + sine + 6 * rest))
    return (r[0], r1, r2, r3, r4, r5, r6, r7), (i[0], i1, i2, i3, i4, i5, i6, i7)


@triton.jit
def natural_order(x, POINTS: tl.constexpr):
    """Return the values after the last stage as [POINTS], in the order of frequencies."""
    second: tl.constexpr = min(8, POINTS // 64)
    third: tl.constexpr = POINTS // (64 * second)
    digits = tl.reshape(together(x), [8, second, third, 8])
    return tl.reshape(tl.permute(digits, [3, 2, 1, 0]), [POINTS])


@triton.jit
def transform(r, i, roots, POINTS: tl.constexpr):
    """Return the transform as (real, imaginary), each [POINTS].

    Register k of thread t holds point k * POINTS / 8 + t.
    """
    r, i = to_digit_reversed(r, i, roots, POINTS)
    return natural_order(r, POINTS), natural_order(i, POINTS)


@triton.jit
def to_digit_reversed(r, i, roots, POINTS: tl.constexpr):
    """Return the transform in registers, as real and imaginary parts.

    Register k of thread t held point k * POINTS / 8 + t, and holds the frequency
    k * POINTS / 8 + `digit_reversed(POINTS)`[t] in the end. There are 64 points or more.
    """
    r, i = dft8(r, i)
    r, i = twiddle(r, i, roots, POINTS, POINTS)
    r, i = exchange(r, 1, 8), exchange(i, 1, 8)
    if POINTS >= 1024:
        r, i = dft8(r, i)
        r, i = twiddle(r, i, roots, POINTS // 8, POINTS)
        r, i = exchange(r, 8, 8), exchange(i, 8, 8)
    done: tl.constexpr = 64 if POINTS >= 1024 else 8
    last: tl.constexpr = POINTS // (8 * done)
    r, i = dft8(r, i)
    if last > 1:
        r, i = twiddle(r, i, roots, POINTS // done, POINTS)
        r, i = exchange(r, done, last), exchange(i, done, last)
        r, i = dft_last(r, i, last)
    return r, i


@triton.jit
def from_digit_reversed(r, i, roots, POINTS: tl.constexpr):
    """Return the transform of what is in the order in which `to_digit_reversed` leaves it.

    The result is in the order from which that function starts. The stages are the same, backwards:
    each of them is a symmetric matrix, and so is the whole transform. There are 128 points or more.
    """
    done: tl.constexpr = 64 if POINTS >= 1024 else 8
    last: tl.constexpr = POINTS // (8 * done)
    r, i = dft_last(r, i, last)
    r, i = exchange_back(r, done, last), exchange_back(i, done, last)
    r, i = twiddle(r, i, roots, POINTS // done, POINTS)
    r, i = dft8(r, i)
    if POINTS >= 1024:
        r, i = exchange_back(r, 8, 8), exchange_back(i, 8, 8)
        r, i = twiddle(r, i, roots, POINTS // 8, POINTS)
        r, i = dft8(r, i)
    r, i = exchange_back(r, 1, 8), exchange_back(i, 1, 8)
    r, i = twiddle(r, i, roots, POINTS, POINTS)
    return dft8(r, i)


def digit_reversed(points: int) -> Tensor:
    """Return which point of a register each thread holds after `to_digit_reversed`.

    It is int64 [points / 8]. Like `natural_order`, it reverses the digits of the thread index.
    """
    second = min(8, points // 64)
    digits = torch.arange(points // RADIX).view(points // (64 * second), second, 8)
    return digits.permute(2, 1, 0).flatten()


def root_table(points: int) -> Tensor:
    """Return the twiddles of every stage, float32, computed in float64 and rounded once.

    For each size s = points, points / 8, ... there are 7 x s / 8 cosines, then as many sines, of
    -2 pi p k / s for k = 1..7 and p < s / 8, padded to 2 s values.
    """
    parts = []
    size = points
    while size > RADIX:
        p = torch.arange(size // RADIX, dtype=torch.float64)
        k = torch.arange(1, RADIX, dtype=torch.float64)
        angle = -2 * torch.pi * k[:, None] * p / size
        values = torch.cat((angle.cos().flatten(), angle.sin().flatten()))
        parts.append(torch.nn.functional.pad(values, (0, 2 * size - len(values))))
        size //= RADIX
    return torch.cat(parts).float()
