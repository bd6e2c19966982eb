"""Compute `log_mel` with products of real matrices, as graph runtimes without an FFT can."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melcap.config import MelSpec
from melcap.ops.dft import RealDFT, windows_of
from melcap.ops.log_mel.reference import mel_filters
from melcap.ops.numerics import hann_window


class PortableLogMel(nn.Module):
    """The log-mel of waves without padding, for windows of a whole number of hops."""

    window: Tensor
    filters: Tensor

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        self.spec = spec
        cpu = torch.device("cpu")
        self.dft = RealDFT(spec.n_fft)
        window = hann_window(spec.n_fft, torch.float32, cpu)
        filters = mel_filters(spec.sample_rate, spec.n_fft, spec.n_mels, torch.float64, cpu)
        bins = self.dft.grid.bins
        # A bin that the grid holds twice counts half each time.
        filters = (filters / bins.bincount()[:, None])[bins]
        self.register_buffer("window", window[:, None], persistent=False)
        self.register_buffer("filters", filters.t().float(), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Return [batch, n_mels, frames] for float32 [batch, samples]."""
        spec = self.spec
        hops = wave[:, : wave.shape[1] // spec.hop * spec.hop].unflatten(1, (-1, spec.hop))
        windows = windows_of(hops.transpose(1, 2), spec.n_fft) * self.window
        real, imaginary = self.dft(windows).unbind(-3)
        magnitude = (real.square() + imaginary.square()).sqrt().flatten(1, 2)
        mel = self.filters @ magnitude
        return (mel.clamp(min=spec.floor).log() - spec.mean) / spec.std
