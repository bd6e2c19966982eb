"""Measures of a decoded signal against its original, and of how a codebook is used.

Every measure of sound takes (reference, decoded, sample_rate): two finite float arrays [samples] of
one length, full scale at 1, and their rate in Hz. It resamples to the rate that it is defined at,
and raises `InputError` where the arrays do not fit. `nan` says that the measure is not defined for
this clip: a silent reference, or one too short. ViSQOL, STOI and PESQ need `melcap[eval]`; the
others need only what melcap itself needs.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from melcap import audio
from melcap.config import MelSpec
from melcap.errors import InputError, MelcapError
from melcap.ops import log_mel, use_backend

Wave: TypeAlias = npt.NDArray[np.floating[Any]]

DEFINITIONS = 1
"""Raise it when a definition below changes, so that old and new figures are never mixed."""

MEL = MelSpec(sample_rate=44100, n_fft=1024, hop=256, n_mels=96, floor=1e-3, mean=0.0, std=1.0)
"""The log-mel that the mel measures are defined on, whatever front end a codec has: natural log of
HTK-mel magnitudes at 44.1 kHz, no affine. The floor is about what rounding to 16 bits leaves in
silence (magnitude 2e-4 a bin, up to 30 bins a filter)."""

LSD_FLOOR = 1e-6
"""Power floor of `log_spectral_distance`. Rounding to 16 bits leaves 6e-8 in a bin: it counts for
nothing, and neither does digital silence against dither."""


def visqol_audio(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """ViSQOL v3 in audio mode at 48 kHz: MOS-LQO from 1 to 4.73 (what identical signals get).

    nan where the reference is silent or shorter than a second; 1 where only `decoded` is silent.
    """
    reference, decoded = _both_at(48000, reference, decoded, sample_rate)
    if not reference.any() or len(reference) < 48000:
        return math.nan
    if not decoded.any():
        return 1.0
    return float(_visqol().measure_from_arrays(reference, decoded, 48000).moslqo)


def stoi(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Short-time objective intelligibility of speech (pystoi, not extended), up to 1.

    nan where the reference is silent or has under 0.4 s of speech.
    """
    pystoi = import_extra("pystoi")
    reference, decoded = _both_at(10000, reference, decoded, sample_rate)
    if not reference.any() or len(reference) < 4000:
        return math.nan
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Not enough STFT frames", RuntimeWarning)
        value = float(pystoi.stoi(reference, decoded, 10000, extended=False))
    # What pystoi returns where too few frames of speech are left.
    return math.nan if value == 1e-5 else value


def pesq_wb(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """PESQ of speech, wide band, at 16 kHz (ITU-T P.862.2): MOS-LQO from 1.04 to 4.64.

    nan where PESQ finds no utterance in the reference, or either signal is silent.
    """
    pesq = import_extra("pesq")
    reference, decoded = _both_at(16000, reference, decoded, sample_rate)
    if not reference.any() or not decoded.any():
        return math.nan
    try:
        return float(pesq.pesq(16000, reference, decoded, "wb"))
    except (pesq.NoUtterancesError, pesq.BufferTooShortError):
        return math.nan


def log_spectral_distance(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Mean over frames of sqrt(mean over bins of (log10 P - log10 Q)^2); 0 is best.

    P and Q are max(|STFT|^2, 1e-6) of the two signals at 44.1 kHz: periodic Hann window of 2048
    samples, not normalised, hop 512, frames centred on multiples of the hop, zeros outside the
    signal; all 1025 bins and all frames count. The unit is log10 of power: 1 is 10 dB.
    """
    both = _both_at(44100, reference, decoded, sample_rate)
    spectrum = torch.stft(
        torch.from_numpy(np.stack(both)),
        n_fft=2048,
        hop_length=512,
        window=torch.hann_window(2048, dtype=torch.float64),
        pad_mode="constant",
        return_complex=True,
    )
    power = spectrum.abs().square().clamp(min=LSD_FLOOR).log10()
    return float((power[0] - power[1]).square().mean(0).sqrt().mean())


def mel_l1(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Mean absolute difference of the two log-mels (`MEL`), in natural log of magnitude."""
    original, copy = _log_mels(reference, decoded, sample_rate)
    return float(np.abs(original - copy).mean())


def mel_cepstral_distortion(
    reference: Wave, decoded: Wave, sample_rate: int, *, coefficients: int = 13
) -> float:
    """Mean over frames of 20 / ln 10 * sqrt(sum of (c_k - c'_k)^2 / 96), k = 1..13, in dB.

    c_k is the orthonormal DCT-II over the 96 bins of the log-mel (`MEL`). With all k from 0 to 95
    this would be the RMS difference of the log-mel in dB; c_0, the loudness, does not count. Frames
    are compared as they stand, without warping.
    """
    original, copy = _log_mels(reference, decoded, sample_rate)
    order = np.arange(1, coefficients + 1)[:, None]
    cosine = np.cos(math.pi / MEL.n_mels * order * (np.arange(MEL.n_mels) + 0.5))
    cepstrum = math.sqrt(2 / MEL.n_mels) * cosine @ (original - copy)
    decibels = 20 / math.log(10) * np.sqrt((cepstrum**2).sum(0) / MEL.n_mels)
    return float(decibels.mean())


def over_smoothing(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Variance of the 2D Laplacian of the log-mel (`MEL`), decoded over original.

    1 is right, a blurred picture is far under it, added grain above. The Laplacian is the 5-point
    one, at the inner points only. nan where the original has no texture at all.
    """
    original, copy = (_laplacian(mel).var() for mel in _log_mels(reference, decoded, sample_rate))
    return float(copy / original) if original > 0 else math.nan


@dataclass(frozen=True)
class CodebookStatistics:
    """`usage`: the fraction of entries met at least once. `entropy`: bits per token, at most
    log2(size), of the entries' frequencies."""

    usage: float
    entropy: float


def codebook_statistics(tokens: npt.NDArray[np.integer[Any]], size: int) -> CodebookStatistics:
    """Usage and entropy of a codebook of `size` entries over `tokens` (any shape, 0 <= t < size).

    Raises `InputError` where there is no token, or one is out of range.
    """
    flat = np.asarray(tokens).reshape(-1)
    if not flat.size or flat.min() < 0 or flat.max() >= size:
        raise InputError(f"codebook_statistics: needs tokens, all of them in 0..{size - 1}")
    counts = np.bincount(flat, minlength=size)
    share = counts[counts > 0] / flat.size
    return CodebookStatistics(float((counts > 0).mean()), float(-(share * np.log2(share)).sum()))


def resample(wave: Wave, source: int, target: int) -> Wave:
    """[samples] at `source` Hz to `target` Hz, in float32; the same array where they are equal."""
    if source == target:
        return wave
    resampled: Wave = audio.resample(wave.astype(np.float32)[None], source, target)[0]
    return resampled


def import_extra(module: str) -> ModuleType:
    """A module of the `eval` extra; raises `MelcapError` with what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MelcapError(
            f'{module} is needed here and not installed: pip install "melcap[eval]"'
        ) from error


@cache
def _visqol() -> Any:
    api = import_extra("visqol").VisqolApi()
    api.create(mode="audio")
    return api


def _both_at(target: int, reference: Wave, decoded: Wave, sample_rate: int) -> tuple[Wave, Wave]:
    """The two signals, checked, at `target` Hz in float64."""
    if reference.ndim != 1 or reference.shape != decoded.shape or not reference.size:
        raise InputError(
            "reference and decoded must be two arrays [samples] of one length, "
            f"not {list(reference.shape)} and {list(decoded.shape)}"
        )
    if not (np.isfinite(reference).all() and np.isfinite(decoded).all()):
        raise InputError("reference and decoded must be finite: one has NaN or infinity")
    pair = (resample(wave, sample_rate, target) for wave in (reference, decoded))
    first, second = (wave.astype(np.float64) for wave in pair)
    return first, second


def _log_mels(reference: Wave, decoded: Wave, sample_rate: int) -> npt.NDArray[np.float64]:
    """[2, 96, frames]: the log-mels (`MEL`) of both."""
    waves = np.stack(_both_at(MEL.sample_rate, reference, decoded, sample_rate))
    with use_backend("torch"):
        mels: npt.NDArray[np.float64] = log_mel(torch.from_numpy(waves), MEL).numpy()
    return mels


def _laplacian(picture: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[height, width] to [height - 2, width - 2]."""
    inner = picture[1:-1, 1:-1]
    across = picture[1:-1, :-2] + picture[1:-1, 2:]
    return picture[:-2, 1:-1] + picture[2:, 1:-1] + across - 4 * inner
