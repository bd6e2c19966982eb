"""Bounds for codecs: the original audio, and the best that a 96-bin mel allows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from melcap.evaluation.measures.signals import resample
from melcap.evaluation.measures.spectral import MEL
from melcap.evaluation.peers.base import Audio, Coded, Peer
from melcap.ops.log_mel import mel_filters


class Original(Peer):
    """The original audio, with the bytes of 16-bit PCM.

    Its figures are the best that each measure gives.
    """

    name = "original"
    identity = "pcm-16"
    bound = True

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        """Keep the audio as it is."""
        return Coded(wave, 2 * len(wave), len(wave), sample_rate)

    def decode(self, coded: Coded) -> Audio:
        """Return a copy of the audio."""
        wave: Audio = coded.payload.copy()
        return wave


class GriffinLimOracle(Peer):
    """An oracle: the true 96-bin mel, unquantised, with phases found by iteration.

    Its figures show how much a better way from mel to wave can still gain. It counts no bytes.
    """

    name = "griffin-lim"
    bound = True

    def __init__(self, iterations: int = 32) -> None:
        self.iterations = iterations
        self.identity = f"mel-{MEL.n_mels}-iterations-{iterations}"

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        """Compute mel magnitudes of [samples]."""
        source = torch.from_numpy(resample(wave, sample_rate, MEL.sample_rate).astype(np.float32))
        mel = _filters().t() @ _stft(source).abs()
        return Coded((mel, len(source)), 0, len(wave), sample_rate)

    def decode(self, coded: Coded) -> Audio:
        """Find a wave that has these mel magnitudes."""
        return coded.fitted(self.wave(*coded.payload).numpy(), MEL.sample_rate)

    def wave(self, mel: Tensor, samples: int) -> Tensor:
        """Find a wave for mel magnitudes.

        Args:
            mel: [n_mels, 1 + samples // hop], frames centred on multiples of the hop.
            samples: the length of the wave.

        Returns:
            The wave, [samples].
        """
        return self._wave(magnitude_from_mel(mel, _filters()), samples)

    def _wave(self, magnitude: Tensor, samples: int) -> Tensor:
        """Run fast Griffin-Lim (Perraudin et al. 2013), momentum 0.99, from random phases."""
        generator = torch.Generator().manual_seed(0)
        angle = 2 * torch.pi * torch.rand(magnitude.shape, generator=generator)
        guess, previous = torch.polar(magnitude, angle), torch.zeros(())
        for _ in range(self.iterations):
            consistent = _stft(_istft(guess, samples))
            guess = consistent + 0.99 * (consistent - previous)
            guess = magnitude * guess / guess.abs().clamp(min=1e-12)
            previous = consistent
        return _istft(guess, samples)


def magnitude_from_mel(mel: Tensor, filters: Tensor, steps: int = 50) -> Tensor:
    """Solve for magnitudes by non-negative least squares with multiplicative updates.

    Args:
        mel: mel magnitudes, [n_mels, frames].
        filters: the mel filterbank, [bins, n_mels].
        steps: number of updates.

    Returns:
        Magnitudes, [bins, frames], none of them negative.
    """
    target = filters @ mel
    magnitude = target.clone()
    for _ in range(steps):
        magnitude *= target / (filters @ (filters.t() @ magnitude)).clamp(min=1e-12)
    return magnitude


def _filters() -> Tensor:
    here = torch.device("cpu")
    return mel_filters(MEL.sample_rate, MEL.n_fft, MEL.n_mels, torch.float32, here)


def _stft(wave: Tensor) -> Tensor:
    return torch.stft(
        wave,
        MEL.n_fft,
        MEL.hop,
        window=torch.hann_window(MEL.n_fft),
        pad_mode="constant",
        return_complex=True,
    )


def _istft(spectrum: Tensor, samples: int) -> Tensor:
    return torch.istft(
        spectrum, MEL.n_fft, MEL.hop, window=torch.hann_window(MEL.n_fft), length=samples
    )
