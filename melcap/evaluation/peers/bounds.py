"""What a codec is measured against: the audio as it is, and the best that a mel allows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from melcap.evaluation.measures.signals import resample
from melcap.evaluation.measures.spectral import MEL
from melcap.evaluation.peers.base import Audio, Codec, Coded
from melcap.ops.reference import mel_filters


class Original(Codec):
    """The audio as it is, with the bytes of 16-bit PCM: what each measure gives at best."""

    name = "original"
    identity = "pcm-16"
    bound = True

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        return Coded(wave, 2 * len(wave), len(wave), sample_rate)

    def decode(self, coded: Coded) -> Audio:
        wave: Audio = coded.payload.copy()
        return wave


class GriffinLim(Codec):
    """An oracle, no codec: the true 96-bin mel, unquantised, with phase found by iteration.

    What is left to gain on the way from mel to wave shows in its figures. It counts no bytes.
    """

    name = "griffin-lim"
    bound = True

    def __init__(self, iterations: int = 32) -> None:
        self.iterations = iterations
        self.identity = f"mel-{MEL.n_mels}-iterations-{iterations}"

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        source = torch.from_numpy(resample(wave, sample_rate, MEL.sample_rate).astype(np.float32))
        mel = _filters().t() @ _stft(source).abs()
        return Coded((mel, len(source)), 0, len(wave), sample_rate)

    def decode(self, coded: Coded) -> Audio:
        return coded.fitted(self.wave(*coded.payload).numpy(), MEL.sample_rate)

    def wave(self, mel: Tensor, samples: int) -> Tensor:
        """Mel magnitudes [n_mels, 1 + samples // hop], frames centred on multiples of the hop, to
        [samples]."""
        return self._wave(magnitude_from_mel(mel, _filters()), samples)

    def _wave(self, magnitude: Tensor, samples: int) -> Tensor:
        """Fast Griffin-Lim (Perraudin et al. 2013), momentum 0.99, from random phase."""
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
    """Non-negative least squares by multiplicative updates.

    mel [n_mels, frames], filters [bins, n_mels] to magnitudes [bins, frames] >= 0.
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
