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

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from melcap.ops.griffin_lim import LEAST_SHARE, QUIETEST_POWER, STEP, inverse_window
from melcap.ops.numerics import hann_window
from melcap.ops.registry import Implementation, register

from . import fourier
from .launch import Launch, out_of_reach, run

_FRAMES_EACH = 8
_ENOUGH_PROGRAMS = 4096
_ADDED = 2048
"""The samples that one program of `griffin_lim_overlap_add` writes."""


class Tables(NamedTuple):
    """The constants that depend on window and hop alone.

    Attributes:
        analysis: the window before the transform.
        synthesis: the window behind it, over the transform's length.
        roots: the twiddles of the transform, see `fourier.root_table`.
        untangle: cosines, then sines, that separate the spectra of even and odd samples.
    """

    analysis: Tensor
    synthesis: Tensor
    roots: Tensor
    untangle: Tensor


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
        ar, mr = _halves(real, HALF)
        ai, mi = _halves(imaginary, HALF)
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
            fourier.registers(tl.reshape(_whole(evr - odi, br, POINTS), [8, THREADS])),
            fourier.registers(tl.reshape(_whole(-(evi + odr), -bi, POINTS), [8, THREADS])),
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
def _halves(x, HALF: tl.constexpr):
    """Split [2 * HALF] into its lower and its upper half."""
    return tl.split(tl.permute(tl.reshape(x, [2, HALF]), [1, 0]))


@triton.jit
def _whole(lower, upper, POINTS: tl.constexpr):
    """Join a lower and an upper half into [POINTS]."""
    return tl.reshape(tl.permute(tl.join(lower, upper), [1, 0]), [POINTS])


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


def plan(
    wave: Tensor, before: Tensor, magnitude: Tensor, windows: Tensor, out: Tensor, momentum: float
) -> tuple[Launch, Launch]:
    """Return the two launches of a step.

    They fill `windows` [batch, frames, n_fft], which is contiguous, and from them `out` [batch,
    blocks, hop]. Each row of the other tensors is contiguous.
    """
    batch, frames, n_fft = windows.shape
    hop = out.shape[2]
    tables = _tables(n_fft, hop, wave.device)
    each = _FRAMES_EACH if batch * frames >= _ENOUGH_PROGRAMS * _FRAMES_EACH else 1
    rows = max(1, _ADDED // hop)
    impose = Launch(
        griffin_lim_windows,
        (batch * triton.cdiv(frames, each),),
        {
            "wave": wave,
            "before": before,
            "magnitude": magnitude[:, n_fft // hop // 2 :],
            "windows": windows,
            "analysis": tables.analysis,
            "synthesis": tables.synthesis,
            "roots": tables.roots,
            "untangle": tables.untangle,
            "frames": frames,
            "frames_each": each,
            "wave_clip": wave.stride(0),
            "wave_row": wave.stride(1),
            "before_clip": before.stride(0),
            "before_row": before.stride(1),
            "magnitude_clip": magnitude.stride(0),
            "magnitude_row": magnitude.stride(1),
            "momentum": momentum,
        },
        {
            "N_FFT": n_fft,
            "HOP": hop,
            "LEAST_POWER": LEAST_SHARE**2,
            "QUIETEST_POWER": QUIETEST_POWER,
        },
        # Fewer than two warps would gather bins by shuffles.
        warps=max(2, n_fft // 512),
    )
    overlap_add = Launch(
        griffin_lim_overlap_add,
        (batch * triton.cdiv(out.shape[1], rows),),
        {
            "windows": windows,
            "out": out,
            "frames": frames,
            "out_clip": out.stride(0),
            "out_row": out.stride(1),
        },
        {
            "N_FFT": n_fft,
            "HOP": hop,
            "ROWS": rows,
        },
        wide=128,
    )
    return impose, overlap_add


@cache  # they are small, and a CUDA graph goes on reading those it was captured with
def _tables(n_fft: int, hop: int, device: torch.device) -> Tables:
    """Compute the tables in float64 and round them once."""
    cpu, double = torch.device("cpu"), torch.float64
    angle = -2 * torch.pi * torch.arange(n_fft // 4, dtype=double) / n_fft
    tables = Tables(
        analysis=hann_window(n_fft, double, cpu),
        synthesis=inverse_window(n_fft, hop, double, cpu) / (n_fft // 2),
        roots=fourier.root_table(n_fft // 2),
        untangle=torch.cat((angle.cos(), angle.sin())),
    )
    return Tables(*(table.float().to(device) for table in tables))


def griffin_lim(x: Tensor, n_fft: int, hop: int, momentum: float, steps: int) -> Tensor:
    """Compute `melcap.ops.griffin_lim`; the result is float32 whatever x's dtype."""
    x = x.float()
    x = x if x.stride(2) == 1 else x.contiguous()
    batch, frames, channels = x.shape
    reach = n_fft // hop - 1
    out = x.new_empty((batch, frames - 2 * steps * reach, channels))
    if not out.numel():
        return out
    wave, before, magnitude = x.tensor_split((hop, 2 * hop), dim=2)
    scratch = x.new_empty(batch * (frames - reach) * n_fft)
    for step in range(1, steps + 1):
        shape = batch, frames - (2 * step - 1) * reach, n_fft
        windows = scratch[: shape[0] * shape[1] * shape[2]].view(shape)
        rest = frames - 2 * step * reach
        made = out[..., :hop] if step == steps else x.new_empty((batch, rest, hop))
        for launch in plan(wave, before, magnitude, windows, made, momentum):
            run(launch)
        before, magnitude = wave[:, reach:-reach], magnitude[:, reach:-reach]
        wave = made
    out[..., hop : 2 * hop] = before
    out[..., 2 * hop :] = magnitude
    return out


def unsupported(x: Tensor, n_fft: int, hop: int, momentum: float, steps: int) -> list[str]:
    """Return why the kernels cannot run on these arguments; [] if they can."""
    reasons = out_of_reach(x)
    if n_fft not in (256, 512, 1024, 2048, 4096):
        reasons.append(f"n_fft must be a power of two from 256 to 4096, not {n_fft}")
    most = 2**31 // max(n_fft, x.shape[2], x.stride(1) if x.stride(2) == 1 else 0) - 1
    if x.shape[1] > most:
        reasons.append(f"a clip may have {most} frames, not {x.shape[1]}")
    return reasons


def shipped() -> dict[str, Launch]:
    """Return the launches of the model and the benchmarks: a first step, and a later one."""
    found: dict[str, Launch] = {}
    for n_fft, hop in ((1024, 256), (256, 64), (512, 128), (2048, 512), (4096, 1024)):
        x = torch.empty(1, 40, 2 * hop + n_fft // 2 + 1, device="meta")
        reach = n_fft // hop - 1
        wave, before, magnitude = x.tensor_split((hop, 2 * hop), dim=2)
        windows = x.new_empty(1, 40 - reach, n_fft)
        made = x.new_empty(1, 40 - 2 * reach, hop)
        first = plan(wave, before, magnitude, windows, made, 0.99)
        later = plan(made, wave[:, reach:-reach], magnitude, windows, made[:, reach:], 0.99)
        name = f"{n_fft}/{hop}"
        found |= {f"{name}: first windows": first[0], f"{name}: windows": later[0]}
        found[f"{name}: overlap-add"] = first[1]
    return found


register(
    "griffin_lim",
    "triton",
    Implementation(
        griffin_lim,
        {torch.float32: STEP, torch.float16: STEP, torch.bfloat16: STEP},
        unsupported,
    ),
)
