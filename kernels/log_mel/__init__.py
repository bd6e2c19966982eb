"""log_mel on Triton: the launch of the kernel in `kernels`."""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.config import MelSpec
from melcap.ops.registry import Implementation, Tolerance, register

from ..launch import out_of_reach, run
from .launches import plan, shipped

__all__ = ["log_mel", "shipped", "unsupported"]


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
