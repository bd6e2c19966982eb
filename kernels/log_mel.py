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

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from melcap.config import MelSpec
from melcap.ops.log_mel import mel_filters
from melcap.ops.numerics import hann_window
from melcap.ops.registry import Implementation, Tolerance, register

from . import fourier
from .launch import Launch, out_of_reach, run

GROUP = 32
"""The filters that are summed side by side."""
STEP = 16
"""The bins of each filter that are summed in one step."""
_FRAMES_EACH = 8
_ENOUGH_PROGRAMS = 4096


class Tables(NamedTuple):
    """The constants that depend on the front end alone.

    Attributes:
        window: the Hann window.
        roots: the twiddles of the transform, see `fourier.root_table`.
        untangle: cosines, then sines, that separate the spectra of even and odd samples.
        first: int32 [filters to a whole GROUP], the first bin of each filter.
        width: int32 [groups], the bins of the widest filter of each group.
        weight: [groups, bins, GROUP], the weight of bin `first + b` in filter f, zero behind its
            end.
    """

    window: Tensor
    roots: Tensor
    untangle: Tensor
    first: Tensor
    width: Tensor
    weight: Tensor


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
    ar, mr = tl.split(tl.permute(tl.reshape(real, [2, HALF]), [1, 0]))
    ai, mi = tl.split(tl.permute(tl.reshape(imaginary, [2, HALF]), [1, 0]))
    mirrored = (HALF - bins) & (HALF - 1)
    br = tl.gather(mr, mirrored, 0)
    bi = tl.gather(mi, mirrored, 0)
    evr, evi = 0.5 * (ar + br), 0.5 * (ai - bi)
    odr, odi = fourier.turned(
        0.5 * (ai + bi), 0.5 * (br - ar), tl.load(untangle + bins), tl.load(untangle + HALF + bins)
    )
    lower, upper = _length(evr + odr, evi + odi), _length(evr - odr, evi - odi)
    lower = tl.where(bins == 0, _length(br, bi), lower)
    return tl.reshape(tl.permute(tl.join(lower, upper), [1, 0]), [POINTS])


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


def plan(
    wave: Tensor, out: Tensor, spec: MelSpec, left: int, lengths: Tensor | None = None
) -> Launch:
    """Return the launch that fills `out` [batch, n_mels, frames] from `wave` [batch, samples].

    `lengths` [batch] is contiguous.
    """
    tables = _tables(spec.sample_rate, spec.n_fft, spec.n_mels, wave.device)
    batch, _, frames = out.shape
    each = _FRAMES_EACH if batch * frames >= _ENOUGH_PROGRAMS * _FRAMES_EACH else 1
    return Launch(
        log_mel_kernel,
        (batch * triton.cdiv(frames, each),),
        {
            "wave": wave,
            "lengths": lengths,
            "out": out,
            "window": tables.window,
            "roots": tables.roots,
            "untangle": tables.untangle,
            "first": tables.first,
            "width": tables.width,
            "weight": tables.weight,
            "samples": wave.shape[1],
            "wave_stride": wave.stride(0),
            "frames": frames,
            "left": left,
            "frames_each": each,
            "floor": spec.floor,
            "mean": spec.mean,
            "inverse_std": 1 / spec.std,
        },
        {
            "N_FFT": spec.n_fft,
            "HOP": spec.hop,
            "N_MELS": spec.n_mels,
            "GROUP": GROUP,
            "STEP": STEP,
            "LONGEST": tables.weight.shape[1],
        },
        # Fewer than two warps would gather magnitudes by shuffles, with ten times the instructions.
        warps=max(2, spec.n_fft // 512),
        wide=64,
    )


@cache  # they are small, and a CUDA graph goes on reading those it was captured with
def _tables(sample_rate: int, n_fft: int, n_mels: int, device: torch.device) -> Tables:
    """Compute the tables in float64 and round them once."""
    cpu, double = torch.device("cpu"), torch.float64
    filters = mel_filters(sample_rate, n_fft, n_mels, double, cpu).t()
    groups = -(-n_mels // GROUP)
    covered = filters > 0
    first = torch.zeros(groups * GROUP, dtype=torch.int32)
    first[:n_mels] = covered.int().argmax(1)
    widths = torch.zeros(groups * GROUP, dtype=torch.int32)
    widths[:n_mels] = covered.sum(1)
    width = widths.view(groups, GROUP).amax(1).to(torch.int32)
    longest = -(-int(width.max()) // STEP) * STEP
    weight = torch.zeros(groups, longest, GROUP, dtype=double)
    for index, (begin, count) in enumerate(zip(first.tolist(), widths.tolist(), strict=True)):
        if count:
            weight[index // GROUP, :count, index % GROUP] = filters[index, begin : begin + count]
    angle = -2 * torch.pi * torch.arange(n_fft // 4, dtype=double) / n_fft
    tables = Tables(
        window=hann_window(n_fft, torch.float32, cpu),
        roots=fourier.root_table(n_fft // 2),
        untangle=torch.cat((angle.cos(), angle.sin())).float(),
        first=first,
        width=width,
        weight=weight.float(),
    )
    return Tables(*(table.to(device) for table in tables))


def log_mel(
    wave: Tensor, spec: MelSpec, left: int, right: int, lengths: Tensor | None = None
) -> Tensor:
    """Compute `melcap.ops.log_mel`; the result is float32 whatever the wave's dtype."""
    frames = _frames(wave.shape[1], spec, left, right)
    out = torch.empty((wave.shape[0], spec.n_mels, frames), dtype=torch.float32, device=wave.device)
    if out.numel():
        wave = wave if wave.stride(1) == 1 else wave.contiguous()
        lengths = None if lengths is None else lengths.contiguous()
        run(plan(wave, out, spec, left, lengths))
    return out


def _frames(samples: int, spec: MelSpec, left: int, right: int) -> int:
    return (samples + left + right - spec.n_fft) // spec.hop + 1


def _largest_offset(samples: int, spec: MelSpec, left: int, right: int) -> int:
    """Return the largest number that the kernel computes in 32 bits for a row."""
    frames = _frames(samples, spec, left, right)
    start = (frames - 1) * spec.hop
    return max(samples, start, start - left + spec.n_fft, (spec.n_mels - 1) * frames)


def unsupported(
    wave: Tensor, spec: MelSpec, left: int, right: int, lengths: Tensor | None = None
) -> list[str]:
    """Return why the kernel cannot run on these arguments; [] if it can."""
    reasons = out_of_reach(wave)
    if spec.n_fft not in (256, 512, 1024, 2048, 4096):
        reasons.append(f"n_fft must be a power of two from 256 to 4096, not {spec.n_fft}")
    if spec.n_mels > 256:
        reasons.append(f"n_mels must be at most 256, not {spec.n_mels}")
    largest = _largest_offset(wave.shape[1], spec, left, right)
    if largest >= 2**31:
        reasons.append(
            f"offsets within a row must be below 2^31: {wave.shape[1]} samples between {left} and "
            f"{right} of padding need {largest}"
        )
    return reasons


def shipped() -> dict[str, Launch]:
    """Return the launches of the model and the benchmarks."""
    cases = {
        "lite, 1 x 0.1 s": (MelSpec(), 1, 17, torch.float32),
        "lite, 64 x 30 s": (MelSpec(), 64, 5168, torch.float32),
        "lite, bf16": (MelSpec(), 1, 17, torch.bfloat16),
        "256/64/20": (MelSpec(16000, 256, 64, 20), 1, 17, torch.float32),
        "512/128/80": (MelSpec(16000, 512, 128, 80), 1, 17, torch.float32),
        "2048/512/128": (MelSpec(44100, 2048, 512, 128), 1, 17, torch.float32),
        "4096/1024/256": (MelSpec(44100, 4096, 1024, 256), 1, 17, torch.float32),
    }
    found = {}
    for name, (spec, batch, frames, dtype) in cases.items():
        wave = torch.empty(batch, frames * spec.hop, dtype=dtype, device="meta")
        out = torch.empty(batch, spec.n_mels, frames, device="meta")
        found[name] = plan(wave, out, spec, spec.margin)
    lengths = torch.empty(3, dtype=torch.int64, device="meta")
    wave, out = wave.new_empty(3, 17 * 256), out.new_empty(3, 96, 17)
    found["lite, with lengths"] = plan(wave, out, MelSpec(), MelSpec().margin, lengths)
    return found


_TOLERANCE = Tolerance(atol=1e-3, rtol=0.0)
register(
    "log_mel",
    "triton",
    Implementation(
        log_mel,
        {torch.float32: _TOLERANCE, torch.float16: _TOLERANCE, torch.bfloat16: _TOLERANCE},
        unsupported,
    ),
)
