"""Plan the launch of a log-mel spectrogram from shapes alone."""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.config import MelSpec

from ..launch import Launch
from ..real_frames import frames_each
from .kernels import log_mel_kernel
from .tables import GROUP, STEP, tables_of


def plan(
    wave: Tensor, out: Tensor, spec: MelSpec, left: int, lengths: Tensor | None = None
) -> Launch:
    """Return the launch that fills `out` [batch, n_mels, frames] from `wave` [batch, samples].

    `lengths` [batch] is contiguous.
    """
    tables = tables_of(spec.sample_rate, spec.n_fft, spec.n_mels, wave.device)
    batch, _, frames = out.shape
    each = frames_each(batch * frames)
    return Launch(
        log_mel_kernel,
        (batch * -(-frames // each),),
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
