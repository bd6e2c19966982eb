"""Compute `log_mel` and its gradient in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.config import MelSpec
from melcap.ops.numerics import hann_window, kept, working_dtype


@kept
def mel_filters(
    sample_rate: int, n_fft: int, n_mels: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return triangular HTK-mel filters from 0 to sample_rate / 2, [n_fft // 2 + 1, n_mels].

    Each filter has its peak at 1.
    """
    cpu = torch.device("cpu")
    nyquist = torch.tensor(sample_rate / 2, dtype=torch.float64, device=cpu)
    top = 2595 * torch.log10(1 + nyquist / 700)
    mels = torch.linspace(0, 1, n_mels + 2, dtype=torch.float64, device=cpu) * top
    edges = 700 * (10 ** (mels / 2595) - 1)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device=cpu)[:, None]
    bins = bins * sample_rate / n_fft
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters: Tensor = torch.minimum(rising, falling).clamp(min=0)
    return filters.to(device=device, dtype=dtype)


def log_mel_reference(
    wave: Tensor, spec: MelSpec, left: int, right: int, lengths: Tensor | None = None
) -> Tensor:
    """Compute `melcap.ops.log_mel` with `left` and `right` zeros around the wave."""
    mel, _ = _mel(_silence_after(wave, lengths), spec, left, right)
    scaled = (mel.clamp(min=spec.floor).log() - spec.mean) / spec.std
    return scaled.transpose(1, 2).contiguous()


def log_mel_gradient(
    upstream: Tensor,
    wave: Tensor,
    spec: MelSpec,
    left: int,
    right: int,
    lengths: Tensor | None = None,
) -> Tensor:
    """Return the gradient of `log_mel` with respect to the wave, written out step by step."""
    dtype, device = working_dtype(wave), wave.device
    mel, spectrum = _mel(_silence_after(wave, lengths), spec, left, right)
    d_mel = torch.where(mel > spec.floor, upstream.transpose(1, 2) / (spec.std * mel), 0)
    filters = mel_filters(spec.sample_rate, spec.n_fft, spec.n_mels, dtype, device)
    d_spectrum = spectrum.sgn() * (d_mel @ filters.t())
    d_spectrum[..., 1 : (spec.n_fft + 1) // 2] /= 2
    d_frames = torch.fft.irfft(d_spectrum, spec.n_fft, norm="forward")
    d_frames *= hann_window(spec.n_fft, dtype, device)
    padded = F.fold(
        d_frames.transpose(1, 2),
        (1, (mel.shape[1] - 1) * spec.hop + spec.n_fft),
        (1, spec.n_fft),
        stride=(1, spec.hop),
    ).flatten(1)
    cut = F.pad(padded, (-left, wave.shape[1] + left - padded.shape[1])).to(wave.dtype)
    return _silence_after(cut, lengths)


def _silence_after(wave: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the wave [batch, samples] with zeros from each clip's length on."""
    if lengths is None:
        return wave
    place = torch.arange(wave.shape[1], device=wave.device)
    return torch.where(place < lengths[:, None], wave, 0)


def _mel(wave: Tensor, spec: MelSpec, left: int, right: int) -> tuple[Tensor, Tensor]:
    """Return mel magnitudes [batch, frames, n_mels] and the complex spectrum they come from."""
    dtype, device = working_dtype(wave), wave.device
    frames = F.pad(wave.to(dtype), (left, right)).unfold(-1, spec.n_fft, spec.hop)
    spectrum = torch.fft.rfft(frames * hann_window(spec.n_fft, dtype, device))
    filters = mel_filters(spec.sample_rate, spec.n_fft, spec.n_mels, dtype, device)
    # `abs` of complex numbers guards against overflow and takes twice the time.
    squares = torch.view_as_real(spectrum).square()
    return (squares[..., 0] + squares[..., 1]).sqrt() @ filters, spectrum
