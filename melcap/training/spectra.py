"""Short-time spectra of waves for losses and discriminators.

Spectra are scaled so that white noise of standard deviation s has a mean power of s^2 in every bin
at every size. One floor then fits all sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.errors import InputError
from melcap.ops.numerics import hann_window

COMPRESSION_FLOOR = 1e-3
"""Magnitude below which power compression turns linear, which bounds its slope at silence."""


def stft(wave: Tensor, n_fft: int) -> Tensor:
    """Return the spectrum of a wave [batch, samples], in float32 whatever autocast is in force.

    The window is a periodic Hann window, the hop n_fft/4, and there is silence on both sides.

    Args:
        wave: floating point [batch, samples].
        n_fft: samples in a window.

    Returns:
        complex64 [batch, n_fft/2 + 1, samples*4/n_fft + 1], scaled as the module says.

    Raises:
        InputError: for a wave of another rank or type.
    """
    if wave.ndim != 2 or not wave.is_floating_point():
        raise InputError(f"a wave must be floating point [batch, samples], not {list(wave.shape)}")
    window = hann_window(n_fft, torch.float32, wave.device) / (3 * n_fft / 8) ** 0.5
    return torch.stft(
        wave.float(), n_fft, n_fft // 4, window=window, pad_mode="constant", return_complex=True
    )


class Spectra:
    """A wave [batch, samples] and its STFTs, each computed at first use and then kept."""

    def __init__(self, wave: Tensor) -> None:
        self.wave = wave
        self._spectra: dict[int, Tensor] = {}
        self._powers: dict[int, Tensor] = {}

    def spectrum(self, n_fft: int) -> Tensor:
        """Return the `stft` of a size."""
        if n_fft not in self._spectra:
            self._spectra[n_fft] = stft(self.wave, n_fft)
        return self._spectra[n_fft]

    def power(self, n_fft: int) -> Tensor:
        """Return the squared magnitudes of a size, float32 [batch, n_fft/2 + 1, frames]."""
        if n_fft not in self._powers:
            self._powers[n_fft] = torch.view_as_real(self.spectrum(n_fft)).square().sum(-1)
        return self._powers[n_fft]


def compress(spectrum: Tensor, power: float, squared: Tensor | None = None) -> Tensor:
    """Raise magnitudes to a power and keep phases; linear far below `COMPRESSION_FLOOR`.

    Args:
        spectrum: complex [...].
        power: the power.
        squared: |spectrum|^2, where the caller has it.

    Returns:
        Real and imaginary parts [..., 2].
    """
    parts = torch.view_as_real(spectrum)
    if squared is None:
        squared = parts.square().sum(-1)
    gain = (squared + COMPRESSION_FLOOR**2) ** ((power - 1) / 2)
    return parts * gain[..., None]
