"""griffin_lim on Triton, in two launches a step; no spectrum is ever written to memory.

A program turns consecutive frames of one clip, one after the other, into windows with the wanted
magnitudes. It applies the momentum as it reads samples. A frame's even samples are the real and its
odd samples the imaginary parts of a transform in registers (see `fourier`). The program untangles
each bin together with its mirrored bin, scales and tangles them again, and transforms back: the
inverse is the transform of the conjugate. A second launch adds up the windows that overlap in a
block.

Traffic for windows of 1024 samples and a hop of 256: a frame of a step reads 1 KiB of each wave and
2 KiB of magnitudes, writes its 4 KiB window and reads that again, and writes 1 KiB of wave, 13 KiB
in all. PyTorch's chain of FFTs and operations on each bin moves about 100. Arithmetic is two
transforms of 25 kFLOP, two windows, and 10 kFLOP for the bins: 5 FLOP a byte.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import fourier
from ..real_frames import halves, whole


@triton.jit(do_not_specialize=["frames", "frames_each"])
def griffin_lim_windows(
    wave,
    before,
    magnitude,
    windows,
    analysis,
    synthesis,
    roots,
    untangle,
    frames,
    frames_each,
    wave_clip,
    wave_row,
    before_clip,
    before_row,
    magnitude_clip,
    magnitude_row,
    momentum,
    N_FFT: tl.constexpr,
    HOP: tl.constexpr,
    LEAST_POWER: tl.constexpr,
    QUIETEST_POWER: tl.constexpr,
):
    """Fill windows [clips, frames, N_FFT], each with the wanted magnitudes."""
    POINTS: tl.constexpr = N_FFT // 2
    THREADS: tl.constexpr = POINTS // 8
    HALF: tl.constexpr = POINTS // 2
    programs = tl.cdiv(frames, frames_each)
    clip = (tl.program_id(0) // programs).to(tl.int64)
    begin = (tl.program_id(0) % programs) * frames_each
    wave += clip * wave_clip
    before += clip * before_clip
    magnitude += clip * magnitude_clip
    windows += clip * frames * N_FFT
    bins = tl.arange(0, HALF)
    mirrored = (HALF - bins) & (HALF - 1)
    tap = 2 * tl.arange(0, POINTS)[:, None] + tl.arange(0, 2)[None, :]
    for frame in range(begin, tl.minimum(begin + frames_each, frames)):
        now, then = wave + frame * wave_row, before + frame * before_row
        r0, i0 = _pair(now, wave_row, then, before_row, analysis, momentum, 0, THREADS, HOP)
        r1, i1 = _pair(now, wave_row, then, before_row, analysis, momentum, 1, THREADS, HOP)
        r2, i2 = _pair(now, wave_row, then, before_row, analysis, momentum, 2, THREADS, HOP)
        r3, i3 = _pair(now, wave_row, then, before_row, analysis, momentum, 3, THREADS, HOP)
        r4, i4 = _pair(now, wave_row, then, before_row, analysis, momentum, 4, THREADS, HOP)
        r5, i5 = _pair(now, wave_row, then, before_row, analysis, momentum, 5, THREADS, HOP)
        r6, i6 = _pair(now, wave_row, then, before_row, analysis, momentum, 6, THREADS, HOP)
        r7, i7 = _pair(now, wave_row, then, before_row, analysis, momentum, 7, THREADS, HOP)
        real, imaginary = fourier.transform(
            (r0, r1, r2, r3, r4, r5, r6, r7), (i0, i1, i2, i3, i4, i5, i6, i7), roots, POINTS
        )
        wanted = magnitude + frame * magnitude_row
        ar, mr = halves(real, HALF)
        ai, mi = halves(imaginary, HALF)
        br, bi = tl.gather(mr, mirrored, 0), tl.gather(mi, mirrored, 0)
        # Bin 0 mirrors itself; in its place is the middle bin, whose spectrum is its conjugate.
        alone = bins == 0
        middle = _gain(br, bi, tl.load(wanted + HALF), LEAST_POWER, QUIETEST_POWER)
        cr, ci = br * middle, bi * middle
        br, bi = tl.where(alone, ar, br), tl.where(alone, ai, bi)
        cosine, sine = tl.load(untangle + bins), tl.load(untangle + HALF + bins)
        evr, evi = 0.5 * (ar + br), 0.5 * (ai - bi)
        odr, odi = fourier.turned(0.5 * (ai + bi), 0.5 * (br - ar), cosine, sine)
        lr, li, ur, ui = evr + odr, evi + odi, evr - odr, evi - odi
        lower = _gain(lr, li, tl.load(wanted + bins), LEAST_POWER, QUIETEST_POWER)
        upper = _gain(ur, ui, tl.load(wanted + POINTS - bins), LEAST_POWER, QUIETEST_POWER)
        lr, li, ur, ui = lr * lower, li * lower, ur * upper, ui * upper
        evr, evi = 0.5 * (lr + ur), 0.5 * (li + ui)
        odr, odi = fourier.turned(0.5 * (lr - ur), 0.5 * (li - ui), cosine, -sine)
        br = tl.gather(tl.where(alone, cr, evr + odi), mirrored, 0)
        bi = tl.gather(tl.where(alone, ci, odr - evi), mirrored, 0)
        real, imaginary = fourier.transform(
            fourier.registers(tl.reshape(whole(evr - odi, br, POINTS), [8, THREADS])),
            fourier.registers(tl.reshape(whole(-(evi + odr), -bi, POINTS), [8, THREADS])),
            roots,
            POINTS,
        )
        made = tl.join(real, -imaginary) * tl.load(synthesis + tap)
        tl.store(windows + frame * N_FFT + tap, made)


@triton.jit
def _pair(
    now,
    now_row,
    then,
    then_row,
    analysis,
    momentum,
    register: tl.constexpr,
    THREADS: tl.constexpr,
    HOP: tl.constexpr,
):
    """Return the even and the odd samples of a register, with momentum, windowed."""
    tap = 2 * THREADS * register + 2 * tl.arange(0, THREADS)[:, None] + tl.arange(0, 2)[None, :]
    row, column = tap // HOP, tap % HOP
    new = tl.load(now + row * now_row + column)
    moved = new + momentum * (new - tl.load(then + row * then_row + column))
    return tl.split(moved * tl.load(analysis + tap))


@triton.jit
def _gain(real, imaginary, wanted, LEAST_POWER: tl.constexpr, QUIETEST_POWER: tl.constexpr):
    """Return the factor that `melcap.ops.griffin_lim.gain` computes."""
    power = real * real + imaginary * imaginary
    return wanted * tl.rsqrt(power + LEAST_POWER * wanted * wanted + QUIETEST_POWER)


@triton.jit(do_not_specialize=["frames"])
def griffin_lim_overlap_add(
    windows,
    out,
    frames,
    out_clip,
    out_row,
    N_FFT: tl.constexpr,
    HOP: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Fill out [clips, blocks, HOP] with the sums of the windows that overlap in each block."""
    BLOCKS: tl.constexpr = N_FFT // HOP
    whole = frames - BLOCKS + 1
    tiles = tl.cdiv(whole, ROWS)
    clip = (tl.program_id(0) // tiles).to(tl.int64)
    row = (tl.program_id(0) % tiles) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, HOP)[None, :]
    windows += clip * frames * N_FFT + row * N_FFT + column
    total = tl.zeros([ROWS, HOP], tl.float32)
    for k in tl.static_range(BLOCKS):
        place = windows + k * N_FFT + (BLOCKS - 1 - k) * HOP
        total += tl.load(place, mask=row < whole, other=0.0)
    tl.store(out + clip * out_clip + row * out_row + column, total, mask=row < whole)
