"""Invert spectra in polar form and add their windows, in one launch; only the wave is written.

A program walks over consecutive frames of one clip. Thread t reads bins k * T + t for k = 0 to 3,
for T threads, and the mirrored ones. So the threads of a warp read places next to each other, which
needs no alignment: rows of n_fft + 2 numbers have none. The program tangles each pair of bins (see
`mirrored_bins`) and transforms (see `fourier`); the inverse is the conjugate of the transform of
the conjugate. Register k of all threads then holds the k-th eighth of the window, so that windows
which overlap are summed in registers, as in `griffin_lim`, and the window's own values stay there
too. The order of threads is left reversed: a warp stores pieces of 8 bytes, which fill whole
sectors of 32 bytes for windows of up to 1024 samples.

A block of `hop` samples is written once, when its last window is in. Before its first block is
complete, a program computes n_fft / hop - 1 frames that the program before it computes too. A
block's windows are added in the order of their frames wherever programs begin, so the result does
not depend on how many blocks a program writes.

Traffic for windows of 1024 samples and a hop of 256: a frame reads 4 KiB and writes 1 KiB. What
programs of 32 blocks read again makes it 5.4 in all. PyTorch's chain of operations on each bin, FFT
and sums moves 66 in 14 launches and those of cuFFT. The error against float64 is that of PyTorch's
float32, some 1e-7 for magnitudes of about 1.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import fourier
from ..mirrored_bins import row, tangled
from .polar import cartesian


@triton.jit(do_not_specialize=["blocks", "blocks_each"])
def polar_istft_kernel(
    x,
    window,
    out,
    roots,
    untangle,
    reverse,
    blocks,
    blocks_each,
    loudest,
    N_FFT: tl.constexpr,
    HOP: tl.constexpr,
):
    """Fill out [clips, blocks * HOP] from x [clips, blocks + N_FFT / HOP - 1, N_FFT + 2]."""
    POINTS: tl.constexpr = N_FFT // 2
    THREADS: tl.constexpr = POINTS // 8
    REACH: tl.constexpr = N_FFT // HOP - 1
    DONE: tl.constexpr = 8 * HOP // N_FFT  # registers of a block
    programs = tl.cdiv(blocks, blocks_each)
    clip = (tl.program_id(0) // programs).to(tl.int64)
    begin = (tl.program_id(0) % programs) * blocks_each
    x += (clip * (blocks + REACH) + begin) * (N_FFT + 2)
    out += (clip * blocks + begin) * HOP
    thread = tl.arange(0, THREADS)
    opposite = (THREADS - thread) % THREADS
    four = 4 * thread[:, None] + tl.arange(0, 4)[None, :]
    SCALE: tl.constexpr = 1.0 / POINTS
    tap = 2 * tl.load(reverse + thread)[:, None] + tl.arange(0, 2)[None, :]
    w0 = tl.load(window + tap) * SCALE
    w1 = tl.load(window + 2 * THREADS + tap) * SCALE
    w2 = tl.load(window + 4 * THREADS + tap) * SCALE
    w3 = tl.load(window + 6 * THREADS + tap) * SCALE
    w4 = tl.load(window + 8 * THREADS + tap) * SCALE
    w5 = tl.load(window + 10 * THREADS + tap) * SCALE
    w6 = tl.load(window + 12 * THREADS + tap) * SCALE
    w7 = tl.load(window + 14 * THREADS + tap) * SCALE
    zero = tl.zeros([THREADS, 2], tl.float32)
    empty = zero, zero, zero, zero
    sums = empty + empty
    for frame in range(0, tl.minimum(blocks_each, blocks - begin) + REACH):
        spectrum = x + frame * (N_FFT + 2)
        cosine, sine = tl.load(untangle + four), tl.load(untangle + POINTS // 2 + four)
        r, i = _transform_of(spectrum, loudest, cosine, sine, opposite, POINTS)
        r, i = fourier.to_digit_reversed(r, i, roots, POINTS)
        sums = (
            sums[0] + tl.join(r[0], -i[0]) * w0,
            sums[1] + tl.join(r[1], -i[1]) * w1,
            sums[2] + tl.join(r[2], -i[2]) * w2,
            sums[3] + tl.join(r[3], -i[3]) * w3,
            sums[4] + tl.join(r[4], -i[4]) * w4,
            sums[5] + tl.join(r[5], -i[5]) * w5,
            sums[6] + tl.join(r[6], -i[6]) * w6,
            sums[7] + tl.join(r[7], -i[7]) * w7,
        )
        block = out + (frame - REACH) * HOP + tap
        for register in tl.static_range(DONE):
            tl.store(block + 2 * THREADS * register, sums[register], mask=frame >= REACH)
        sums = sums[DONE:] + empty[:DONE]


@triton.jit
def _transform_of(spectrum, loudest, cosine, sine, opposite, POINTS: tl.constexpr):
    """Return the conjugate of the half-length transform of a frame's row of x."""
    THREADS: tl.constexpr = POINTS // 8
    thread = tl.arange(0, THREADS)
    first = (thread == 0)[:, None] & (tl.arange(0, 4) == 0)[None, :]
    ln_magnitude, phase = spectrum, spectrum + POINTS + 1
    lr, li = cartesian(
        _four(ln_magnitude + thread, THREADS), _four(phase + thread, THREADS), loudest
    )
    ur, ui = cartesian(
        _four(ln_magnitude + POINTS - thread, -THREADS),
        _four(phase + POINTS - thread, -THREADS),
        loudest,
    )
    middle_r, middle_i = cartesian(
        tl.load(ln_magnitude + POINTS // 2).to(tl.float32),
        tl.load(phase + POINTS // 2).to(tl.float32),
        loudest,
    )
    # Bins 0 and n_fft / 2, which mirror each other, have no imaginary part.
    li, ui = tl.where(first, 0.0, li), tl.where(first, 0.0, ui)
    return tangled(lr, li, ur, -ui, middle_r, middle_i, cosine, sine, opposite)


@triton.jit
def _four(x, STEP: tl.constexpr):
    """Load four registers [T] that are `STEP` apart, as [T, 4]."""
    return row(
        tl.load(x).to(tl.float32),
        tl.load(x + STEP).to(tl.float32),
        tl.load(x + 2 * STEP).to(tl.float32),
        tl.load(x + 3 * STEP).to(tl.float32),
    )
