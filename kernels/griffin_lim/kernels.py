"""Take a Griffin-Lim step on Triton, in one launch; neither windows nor spectra leave the chip.

A program walks over consecutive frames of one clip. It applies the momentum as it reads samples. A
frame's even samples are the real and its odd samples the imaginary parts of a transform in
registers (see `fourier`). The program imposes the wanted magnitudes (see `spectrum`) and transforms
back: the inverse is the transform of the conjugate. Register k of all threads then holds the k-th
eighth of the window, so that windows which overlap are summed in registers, and the sums move on by
a block of `hop` samples without an instruction. A block is written once, when its last window is
in. Before its first block is complete, a program computes n_fft / hop - 1 frames that the program
before it computes too. A block's windows are added in the order of their frames wherever programs
begin, so the result does not depend on how many blocks a program writes.

Traffic for windows of 1024 samples and a hop of 256: a frame of a step reads 1 KiB of each wave and
2 KiB of magnitudes and writes 1 KiB of wave, 5 KiB in all. What programs of 32 blocks read again
makes it 5.6. A call copies frames in and out, 16 KiB each, or 1 KiB for each of 16 steps. PyTorch's
chain of FFTs and operations on each bin moves about 100. Arithmetic is two transforms of 25 kFLOP,
two windows, the sums, and 10 kFLOP for the bins: 12 FLOP a byte. Shared memory carries two
exchanges for each transform and the mirrored bins there and back, 40 KiB in and out.

Each of the log2(n_fft / 2) levels of both transforms rounds once or twice, in float32. A bin far
below its wanted magnitude is scaled by up to 1 / LEAST_SHARE, and the error in it as well. On noise
of amplitude 1 with magnitudes near those wanted, the error against float64 is at most 1e-6 for each
window, as large as that of PyTorch's float32; the tolerance is `STEP`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import fourier
from .spectrum import imposed


@triton.jit(do_not_specialize=["blocks", "blocks_each", "before_rows", "magnitude_rows"])
def griffin_lim_step(
    wave,
    before,
    magnitude,
    out,
    analysis,
    synthesis,
    roots,
    untangle,
    opposite,
    blocks,
    blocks_each,
    before_rows,
    magnitude_rows,
    momentum,
    N_FFT: tl.constexpr,
    HOP: tl.constexpr,
    ROW: tl.constexpr,
    LEAST_POWER: tl.constexpr,
    QUIETEST_POWER: tl.constexpr,
):
    """Fill out [clips, blocks, HOP] from wave [clips, blocks + 2 * (N_FFT / HOP - 1), HOP].

    A clip of `before` has as many blocks of the wave one step before, and a clip of `magnitude`
    N_FFT / HOP - 1 rows more than blocks. In memory both may have more rows.
    """
    POINTS: tl.constexpr = N_FFT // 2
    THREADS: tl.constexpr = POINTS // 8
    REACH: tl.constexpr = N_FFT // HOP - 1
    DONE: tl.constexpr = 8 * HOP // N_FFT  # registers of a block
    programs = tl.cdiv(blocks, blocks_each)
    clip = (tl.program_id(0) // programs).to(tl.int64)
    begin = (tl.program_id(0) % programs) * blocks_each
    wave += (clip * (blocks + 2 * REACH) + begin) * HOP
    before += (clip * before_rows + begin) * HOP
    magnitude += (clip * magnitude_rows + begin) * ROW
    out += (clip * blocks + begin) * HOP
    mirrored = tl.load(opposite + tl.arange(0, THREADS))
    tap = 2 * tl.arange(0, THREADS)[:, None] + tl.arange(0, 2)[None, :]
    zero = tl.zeros([THREADS, 2], tl.float32)
    empty = zero, zero, zero, zero
    sums = empty + empty
    for frame in range(0, tl.minimum(blocks_each, blocks - begin) + REACH):
        now, then = wave + frame * HOP + tap, before + frame * HOP + tap
        r0, i0 = _pair(now, then, analysis + tap, momentum, 0, THREADS)
        r1, i1 = _pair(now, then, analysis + tap, momentum, 1, THREADS)
        r2, i2 = _pair(now, then, analysis + tap, momentum, 2, THREADS)
        r3, i3 = _pair(now, then, analysis + tap, momentum, 3, THREADS)
        r4, i4 = _pair(now, then, analysis + tap, momentum, 4, THREADS)
        r5, i5 = _pair(now, then, analysis + tap, momentum, 5, THREADS)
        r6, i6 = _pair(now, then, analysis + tap, momentum, 6, THREADS)
        r7, i7 = _pair(now, then, analysis + tap, momentum, 7, THREADS)
        r, i = fourier.to_digit_reversed(
            (r0, r1, r2, r3, r4, r5, r6, r7), (i0, i1, i2, i3, i4, i5, i6, i7), roots, POINTS
        )
        r, i = imposed(
            r, i, magnitude + frame * ROW, untangle, mirrored, LEAST_POWER, QUIETEST_POWER
        )
        r, i = fourier.from_digit_reversed(r, i, roots, POINTS)
        sums = (
            sums[0] + _made(r, i, synthesis + tap, 0, THREADS),
            sums[1] + _made(r, i, synthesis + tap, 1, THREADS),
            sums[2] + _made(r, i, synthesis + tap, 2, THREADS),
            sums[3] + _made(r, i, synthesis + tap, 3, THREADS),
            sums[4] + _made(r, i, synthesis + tap, 4, THREADS),
            sums[5] + _made(r, i, synthesis + tap, 5, THREADS),
            sums[6] + _made(r, i, synthesis + tap, 6, THREADS),
            sums[7] + _made(r, i, synthesis + tap, 7, THREADS),
        )
        block = out + (frame - REACH) * HOP + tap
        for register in tl.static_range(DONE):
            tl.store(block + 2 * THREADS * register, sums[register], mask=frame >= REACH)
        sums = sums[DONE:] + empty[:DONE]


@triton.jit
def _pair(now, then, analysis, momentum, register: tl.constexpr, THREADS: tl.constexpr):
    """Return the even and the odd samples of a register, with momentum, windowed."""
    place: tl.constexpr = 2 * THREADS * register
    new = tl.load(now + place)
    moved = new + momentum * (new - tl.load(then + place))
    return tl.split(moved * tl.load(analysis + place))


@triton.jit
def _made(r, i, synthesis, register: tl.constexpr, THREADS: tl.constexpr):
    """Return the samples [THREADS, 2] of a register, of the conjugate's transform, windowed."""
    return tl.join(r[register], -i[register]) * tl.load(synthesis + 2 * THREADS * register)
