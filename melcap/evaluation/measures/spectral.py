"""Distances between spectra, and the over-smoothing of log-mel spectrograms.

Each takes (reference, decoded, sample_rate) as `metrics` describes, resamples both signals to
44.1 kHz and computes in float64. Signals of a lower rate have nothing above half their rate, so
only the bins and the mel filters below it count. docs/measures.md has the formulas side by side.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from melcap.config import MelSpec
from melcap.evaluation.measures.signals import Wave, both_at
from melcap.ops import log_mel, use_backend
from melcap.ops.log_mel import mel_filters

MEL = MelSpec(sample_rate=44100, n_fft=1024, hop=256, n_mels=96, floor=1e-3, mean=0.0, std=1.0)
"""The log-mel of the mel measures, the same for every codec: natural log of HTK-mel magnitudes at
44.1 kHz, without an affine normalisation. The floor is about the level of 16-bit rounding noise
(magnitude 2e-4 a bin, up to 30 bins a filter)."""

LSD_FLOOR = 1e-6
"""Power floor of `log_spectral_distance`. Rounding to 16 bits leaves 6e-8 in a bin, so neither it
nor dither in place of digital silence counts as a difference."""

STFT_FLOOR = 1e-7
"""Power floor of `multi_resolution_stft`."""

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""FFT size, hop and window of `multi_resolution_stft`, in samples."""


def log_spectral_distance(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Return the mean over frames of sqrt(mean over bins of (log10 P - log10 Q)^2); 0 is best.

    P and Q are max(|STFT|^2, 1e-6) of the two signals at 44.1 kHz: a periodic Hann window of 2048
    samples, not normalised, hop 512, frames centred on multiples of the hop, zeros outside the
    signal. All 1025 bins and all frames count; of signals under 44.1 kHz, the bins up to half their
    rate. The unit is log10 of power: 1 is 10 dB.
    """
    both = both_at(MEL.sample_rate, reference, decoded, sample_rate)
    magnitude = magnitudes(both, 2048, 512, 2048, pad_mode="constant")
    magnitude = _below_nyquist(magnitude, sample_rate)
    power = magnitude.square().clamp(min=LSD_FLOOR).log10()
    return float((power[0] - power[1]).square().mean(0).sqrt().mean())


def multi_resolution_stft(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Return the multi-resolution STFT distance of Parallel WaveGAN; 0 is best.

    Source: Yamamoto et al. 2020. It is the mean over `RESOLUTIONS` of the spectral convergence
    ||S - S'|| / ||S|| (Frobenius norms) plus the mean absolute difference of ln S and ln S'. S and
    S' are sqrt(max(|STFT|^2, 1e-7)) of the original and the decoded signal: periodic Hann windows,
    centred in the FFT, frames centred on multiples of the hop, the signal reflected at its ends.
    Of signals under 44.1 kHz, the bins up to half their rate count. The distance is nan where the
    reference is silent, or has no more than 1024 samples to reflect at 44.1 kHz.
    """
    both = both_at(MEL.sample_rate, reference, decoded, sample_rate)
    if not both[0].any() or len(both[0]) <= 1024:
        return math.nan
    distances = []
    for n_fft, hop, window in RESOLUTIONS:
        spectra = magnitudes(both, n_fft, hop, window, pad_mode="reflect")
        power = _below_nyquist(spectra, sample_rate).square()
        original, copy = power.clamp(min=STFT_FLOOR).sqrt()
        convergence = (original - copy).norm() / original.norm()
        distances.append(float(convergence + (original.log() - copy.log()).abs().mean()))
    return float(np.mean(distances))


def mel_l1(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Return the mean absolute difference of the log-mels (`MEL`), in natural log of magnitude."""
    original, copy = _log_mels(reference, decoded, sample_rate)
    return float(np.abs(original - copy).mean())


def mel_cepstral_distortion(
    reference: Wave, decoded: Wave, sample_rate: int, *, coefficients: int = 13
) -> float:
    """Return the mean over frames of 20 / ln 10 * sqrt(sum of (c_k - c'_k)^2 / n), in dB.

    The sum is over k = 1..13, and c_k is the orthonormal DCT-II over the n bins of the log-mel:
    the 96 of `MEL`, or fewer under 44.1 kHz. With all k from 0 to n - 1 it would be the RMS
    difference of the log-mel in dB; c_0, the loudness, does not count. Frames are compared one to
    one, without warping.
    """
    original, copy = _log_mels(reference, decoded, sample_rate)
    bins = len(original)
    order = np.arange(1, coefficients + 1)[:, None]
    cosine = np.cos(math.pi / bins * order * (np.arange(bins) + 0.5))
    cepstrum = math.sqrt(2 / bins) * cosine @ (original - copy)
    decibels = 20 / math.log(10) * np.sqrt((cepstrum**2).sum(0) / bins)
    return float(decibels.mean())


def over_smoothing(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Return the variance of the 2D Laplacian of the log-mel (`MEL`), decoded over original.

    1 is best. A blurred spectrogram is far below 1, and added noise is above. The Laplacian is the
    5-point one, at inner points only. The measure is nan where the original has no texture.
    """
    original, copy = (_laplacian(mel).var() for mel in _log_mels(reference, decoded, sample_rate))
    return float(copy / original) if original > 0 else math.nan


def magnitudes(
    both: tuple[Wave, Wave], n_fft: int, hop: int, window: int, *, pad_mode: str
) -> Tensor:
    """Return |STFT| of both signals, float64 [2, n_fft / 2 + 1, frames].

    Frames are centred on multiples of the hop.
    """
    return torch.stft(
        torch.from_numpy(np.stack(both)),
        n_fft=n_fft,
        hop_length=hop,
        win_length=window,
        window=torch.hann_window(window, dtype=torch.float64),
        pad_mode=pad_mode,
        return_complex=True,
    ).abs()


def _log_mels(reference: Wave, decoded: Wave, sample_rate: int) -> npt.NDArray[np.float64]:
    """Return the log-mels (`MEL`) of both signals, [2, bins, frames].

    The bins are the 96 of `MEL`, less those whose filters reach above half of `sample_rate`.
    """
    waves = np.stack(both_at(MEL.sample_rate, reference, decoded, sample_rate))
    with use_backend("torch"):
        mels: npt.NDArray[np.float64] = log_mel(torch.from_numpy(waves), MEL).numpy()
    here = torch.device("cpu")
    filters = mel_filters(MEL.sample_rate, MEL.n_fft, MEL.n_mels, torch.float64, here)
    above = filters[_bins_below_nyquist(len(filters), sample_rate) :]
    return mels[:, : int((above == 0).all(0).sum())]


def _below_nyquist(spectra: Tensor, sample_rate: int) -> Tensor:
    """Return the bins of spectra at 44.1 kHz that signals of `sample_rate` have, [2, bins, ...]."""
    return spectra[:, : _bins_below_nyquist(spectra.shape[1], sample_rate)]


def _bins_below_nyquist(bins: int, sample_rate: int) -> int:
    """Return how many of the bins from 0 to 22.05 kHz lie at or below half of `sample_rate`."""
    return min(bins, (bins - 1) * sample_rate // MEL.sample_rate + 1)


def _laplacian(picture: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the Laplacian at inner points, [height, width] to [height - 2, width - 2]."""
    inner = picture[1:-1, 1:-1]
    across = picture[1:-1, :-2] + picture[1:-1, 2:]
    return picture[:-2, 1:-1] + picture[2:, 1:-1] + across - 4 * inner
