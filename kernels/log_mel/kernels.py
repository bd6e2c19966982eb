"""log_mel on Triton, in one launch; frames, spectra and magnitudes are never written to memory.

A program turns consecutive frames of one clip into frames of log-mel, one after the other. Padding
and framing are index arithmetic. A frame's even samples are the real and its odd samples the
imaginary parts of a transform in registers (see `fourier`); except at the clip's edges one load
reads both, and they are windowed as they are read. The program untangles the spectrum of the real
frame, each bin together with its mirrored bin. Each filter sums the few bins that it covers, from
shared memory.

Traffic for a second of audio with 1024/256/96 at 44.1 kHz (172 frames): 0.18 MB of samples are read
from DRAM once (neighbouring frames share them in the cache) and 0.07 MB written, so the floor is
0.24 MB. Arithmetic is 172 x 36 kFLOP = 6.2 MFLOP: a 512-point complex FFT 25 k, window 1 k,
untangling and magnitudes 8 k, filters 2 k. Shared memory carries two exchanges (4 KiB out and in),
the mirrored half (2 KiB) and magnitudes (2 KiB out for each step of filters): about 172 x 36 KiB =
6 MB. The same transform as a 32 x 32 product on tensor cores takes 35 MFLOP, 105 with the three
products that float32 needs there. That is seventeen times the arithmetic, so butterflies have the
higher ceiling.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import fourier
from ..real_frames import halves, whole


@triton.jit(do_not_specialize=["samples", "frames", "frames_each"])
def log_mel_kernel(
    wave,
    lengths,
    out,
    window,
    roots,
    untangle,
    first,
    width,
    weight,
    samples,
    wave_stride,
    frames,
    left,
    frames_each,
    floor,
    mean,
    inverse_std,
    N_FFT: tl.constexpr,
    HOP: tl.constexpr,
    N_MELS: tl.constexpr,
    GROUP: tl.constexpr,
    STEP: tl.constexpr,
    LONGEST: tl.constexpr,
):
    """Fill out [clips, N_MELS, frames]."""
    POINTS: tl.constexpr = N_FFT // 2
    THREADS: tl.constexpr = POINTS // 8
    programs = tl.cdiv(frames, frames_each)
    clip = (tl.program_id(0) // programs).to(tl.int64)
    begin = (tl.program_id(0) % programs) * frames_each
    if lengths is not None:
        samples = tl.maximum(tl.minimum(samples, tl.load(lengths + clip)), 0).to(tl.int32)
    wave += clip * wave_stride
    out += clip * N_MELS * frames
    for frame in range(begin, tl.minimum(begin + frames_each, frames)):
        r0, i0 = _pair(wave, window, frame * HOP - left, 0, samples, THREADS, N_FFT)
        r1, i1 = _pair(wave, window, frame * HOP - left, 1, samples, THREADS, N_FFT)
        r2, i2 = _pair(wave, window, frame * HOP - left, 2, samples, THREADS, N_FFT)
        r3, i3 = _pair(wave, window, frame * HOP - left, 3, samples, THREADS, N_FFT)
        r4, i4 = _pair(wave, window, frame * HOP - left, 4, samples, THREADS, N_FFT)
        r5, i5 = _pair(wave, window, frame * HOP - left, 5, samples, THREADS, N_FFT)
        r6, i6 = _pair(wave, window, frame * HOP - left, 6, samples, THREADS, N_FFT)
        r7, i7 = _pair(wave, window, frame * HOP - left, 7, samples, THREADS, N_FFT)
        real, imaginary = fourier.transform(
            (r0, r1, r2, r3, r4, r5, r6, r7), (i0, i1, i2, i3, i4, i5, i6, i7), roots, POINTS
        )
        magnitudes = _magnitudes(real, imaginary, untangle, POINTS)
        for group in tl.static_range((N_MELS + GROUP - 1) // GROUP):
            mel = _filtered(
                magnitudes,
                first + group * GROUP,
                weight + group * GROUP * LONGEST,
                tl.load(width + group),
                POINTS,
                GROUP,
                STEP,
            )
            # A NaN among the samples must show in the result, as in the reference.
            mel = tl.maximum(mel, floor, propagate_nan=tl.PropagateNan.ALL)
            scaled = (tl.log(mel) - mean) * inverse_std
            bins = group * GROUP + tl.arange(0, GROUP)
            tl.store(out + bins * frames + frame, scaled, mask=bins < N_MELS)


@triton.jit
def _pair(
    wave,
    window,
    start,
    register: tl.constexpr,
    samples,
    THREADS: tl.constexpr,
    N_FFT: tl.constexpr,
):
    """Return the even and the odd samples of a register, windowed; zeros outside the clip."""
    tap = 2 * THREADS * register + 2 * tl.arange(0, THREADS)[:, None] + tl.arange(0, 2)[None, :]
    if (start >= 0) & (start + N_FFT <= samples):
        # Without a mask one load reads both samples.
        pair = tl.load(wave + start + tap)
    else:
        place = start + tap
        pair = tl.load(wave + place, mask=(place >= 0) & (place < samples), other=0.0)
    return tl.split(pair.to(tl.float32) * tl.load(window + tap))


@triton.jit
def _magnitudes(real, imaginary, untangle, POINTS: tl.constexpr):
    """Return magnitudes of a real frame, from the transform of its even and odd samples.

    Their order [POINTS] is: bins 0 to POINTS / 2 - 1, with bin POINTS / 2 in place of bin 0, which
    no filter covers; then bins POINTS, POINTS - 1, ... down to POINTS / 2 + 1.
    """
    HALF: tl.constexpr = POINTS // 2
    bins = tl.arange(0, HALF)
    ar, mr = halves(real, HALF)
    ai, mi = halves(imaginary, HALF)
    mirrored = (HALF - bins) & (HALF - 1)
    br = tl.gather(mr, mirrored, 0)
    bi = tl.gather(mi, mirrored, 0)
    evr, evi = 0.5 * (ar + br), 0.5 * (ai - bi)
    odr, odi = fourier.turned(
        0.5 * (ai + bi), 0.5 * (br - ar), tl.load(untangle + bins), tl.load(untangle + HALF + bins)
    )
    lower, upper = _length(evr + odr, evi + odi), _length(evr - odr, evi - odi)
    lower = tl.where(bins == 0, _length(br, bi), lower)
    return whole(lower, upper, POINTS)


@triton.jit
def _length(real, imaginary):
    """Return the magnitude of a complex number."""
    return tl.sqrt(real * real + imaginary * imaginary)


@triton.jit
def _filtered(
    magnitudes,
    first,
    weight,
    width,
    POINTS: tl.constexpr,
    GROUP: tl.constexpr,
    STEP: tl.constexpr,
):
    """Return the sums [GROUP] over each filter's own bins of weight times magnitude."""
    item = tl.arange(0, STEP * GROUP)
    start = tl.load(first + item % GROUP) + item // GROUP
    mel = tl.zeros([GROUP], tl.float32)
    for done in range(0, width, STEP):
        bins = start + done
        place = tl.where(bins < POINTS // 2, bins, POINTS + POINTS // 2 - bins) & (POINTS - 1)
        share = tl.gather(magnitudes, place, 0) * tl.load(weight + done * GROUP + item)
        mel += tl.sum(tl.reshape(share, [STEP, GROUP]), 0)
    return mel
