"""Distances between waves and between log-mel pictures, which training minimises.

The spectral losses take waves [batch, samples] that are aligned in time, or `Spectra` of them, so
that one STFT per size serves every loss:

    made, real = Spectra(output), Spectra(target)
    loss = multi_resolution_stft_loss(made, real) + complex_stft_loss(made, real)

Everything is computed in float32, under autocast too. Every loss is zero for equal waves and has
finite gradients at silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.errors import InputError
from melcap.ops.log_mel import mel_filters
from melcap.training.spectra import Spectra, compress

FFT_SIZES = (2048, 1024, 512, 256, 128)
COMPLEX_SIZES = (1024, 512, 256)
MEL_SCALES = ((2048, 160), (1024, 80), (512, 40), (256, 20))
"""(FFT size, bins): half of DAC's bins, so that few low filters fall between FFT bins."""
TEXTURE_SCALES = ((2048, 160), (1024, 96), (512, 64))

LOG_FLOOR = 1e-4
"""Magnitude (-80 dB white noise) below which differences of logarithms fade out."""
TEXTURE_FLOOR = 1e-2
"""Mean square of a Laplacian of ln mel below which a patch counts as smooth."""
TEXTURE_PATCH = 8
"""Bins, and frames, over which texture is averaged: a token's patch of the mel."""
LOUDNESS_FLOOR = 1e-3
"""Least mean magnitude that relative errors are measured against: near-silence weighs little."""


def multi_resolution_stft_loss(
    output: Tensor | Spectra,
    target: Tensor | Spectra,
    sizes: Sequence[int] = FFT_SIZES,
    log_weight: float = 1.0,
    linear_weight: float = 1.0,
    loudness: float = 0.0,
) -> Tensor:
    """Return the distance of magnitude spectra, averaged over `sizes`.

    Per size there are two terms. The first, times `log_weight`, is the `loudness_l1` of ln
    magnitude, which weighs quiet detail. The second, times `linear_weight`, is the L1 of the
    magnitude relative to the clip's mean magnitude (spectral convergence with L1 for L2), which
    puts the energy in place. Both are near 1 for an output that has little to do with its target,
    so equal weights are a fair start.

    Args:
        output: waves [batch, samples], or their `Spectra`.
        target: waves of the same shape, or their `Spectra`.
        sizes: the FFT sizes.
        log_weight: the weight of differences of logarithms.
        linear_weight: the weight of differences of magnitudes.
        loudness: the power of magnitudes in `loudness_l1`.
    """
    output, target = _pair(output, target)
    total = output.wave.new_zeros((), dtype=torch.float32)
    for n_fft in sizes:
        made, real = output.power(n_fft), target.power(n_fft)
        if log_weight:
            total = total + log_weight * loudness_l1(_log(made), _log(real), loudness)
        if linear_weight:
            made, real = _magnitude(made), _magnitude(real)
            error = (made - real).abs().mean((1, 2))
            scale = real.mean((1, 2)).clamp(min=LOUDNESS_FLOOR)
            total = total + linear_weight * (error / scale).mean()
    return total / len(sizes)


def complex_stft_loss(
    output: Tensor | Spectra,
    target: Tensor | Spectra,
    sizes: Sequence[int] = COMPLEX_SIZES,
    power: float = 0.3,
) -> Tensor:
    """Return the distance of complex spectra, phase included.

    This is the mean L1 of the real and imaginary parts of `compress`ed spectra, averaged over
    `sizes`. The codec is exact in time, so phase counts. Alone this loss would mute any phase that
    cannot be predicted: use it with a magnitude loss, and give it the lesser weight.

    Args:
        output: waves [batch, samples], or their `Spectra`.
        target: waves of the same shape, or their `Spectra`.
        sizes: the FFT sizes.
        power: the power to which magnitudes are compressed.
    """
    output, target = _pair(output, target)
    total = output.wave.new_zeros((), dtype=torch.float32)
    for n_fft in sizes:
        made = compress(output.spectrum(n_fft), power, output.power(n_fft))
        real = compress(target.spectrum(n_fft), power, target.power(n_fft))
        total = total + F.l1_loss(made, real)
    return total / len(sizes)


def phase_loss(
    output: Tensor | Spectra,
    target: Tensor | Spectra,
    sizes: Sequence[int] = COMPLEX_SIZES,
    loudness: float = 0.6,
) -> Tensor:
    """Return the error of phases: the mean of 1 - cos of it, so that whole turns count for nothing.

    This is the mean of three errors, averaged over `sizes`: of the phase itself, of its step from
    bin to bin (group delay) and of its step from frame to frame (instantaneous frequency), as in
    APNet (arXiv 2305.07952). Bins are weighted by the target's magnitude to `loudness`, mean 1 in
    each clip. The loss is between 0 and 2, and about 0.8 for noise and other noise.

    Args:
        output: waves [batch, samples], or their `Spectra`.
        target: waves of the same shape, or their `Spectra`.
        sizes: the FFT sizes.
        loudness: the power of magnitudes in the weights.
    """
    output, target = _pair(output, target)
    total = output.wave.new_zeros((), dtype=torch.float32)
    for n_fft in sizes:
        error = _unit(output.spectrum(n_fft) * target.spectrum(n_fft).conj())
        weight = (target.power(n_fft) + LOG_FLOOR**2) ** (loudness / 2)
        by_bin = _unit(error[:, 1:] * error[:, :-1].conj())
        by_frame = _unit(error[..., 1:] * error[..., :-1].conj())
        weights = (weight, weight[:, 1:], weight[..., 1:])
        for turned, magnitude in zip((error, by_bin, by_frame), weights, strict=True):
            share = magnitude / magnitude.mean((1, 2), keepdim=True)
            total = total + (share * (1 - turned.real)).mean() / 3
    return total / len(sizes)


def multi_scale_mel_loss(
    output: Tensor | Spectra,
    target: Tensor | Spectra,
    scales: Sequence[tuple[int, int]] = MEL_SCALES,
    sample_rate: int = 44_100,
    loudness: float = 0.0,
) -> Tensor:
    """Return the `loudness_l1` of ln mel magnitudes, averaged over (FFT size, mel bins) `scales`.

    Published vocoders weigh a mel loss 15 (DAC) to 45 (HiFi-GAN, Vocos) against GAN terms near 1.

    Args:
        output: waves [batch, samples], or their `Spectra`.
        target: waves of the same shape, or their `Spectra`.
        scales: the pairs of FFT size and mel bins.
        sample_rate: the sample rate in Hz.
        loudness: the power of magnitudes in `loudness_l1`.
    """
    pictures = _log_mels(output, target, scales, sample_rate)
    return torch.stack([loudness_l1(made, real, loudness) for made, real in pictures]).mean()


def texture_loss(
    output: Tensor | Spectra,
    target: Tensor | Spectra,
    scales: Sequence[tuple[int, int]] = TEXTURE_SCALES,
    sample_rate: int = 44_100,
) -> Tensor:
    """Return the difference in roughness between the log-mel pictures of output and target.

    Losses that compare pixels are least for the median of all possible pictures, which is smooth.
    Here only the energy of a picture's 2D Laplacian in each patch of 8 x 8 counts, at any place in
    the patch: mean L1 of ln RMS, averaged over `scales`, each (FFT size, mel bins). This loss takes
    the place of the Gram matrices of the paper (arXiv 2510.01903).

    Args:
        output: waves [batch, samples], or their `Spectra`.
        target: waves of the same shape, or their `Spectra`.
        scales: the pairs of FFT size and mel bins.
        sample_rate: the sample rate in Hz.

    Raises:
        InputError: for waves of fewer than three frames.
    """
    pictures = _log_mels(output, target, scales, sample_rate)
    return torch.stack([roughness_loss(made, real) for made, real in pictures]).mean()


def loudness_l1(output: Tensor, target: Tensor, power: float) -> Tensor:
    """Return the L1 of log magnitudes [batch, bins, frames], weighted by the target's loudness.

    A difference is weighted by the target's magnitude to `power` (0: not at all), and the weights
    of each picture have a mean of 1. Loudness goes about with a magnitude's power of 0.6 (Stevens
    1957). Detail of fainter noise is inaudible, and without the weights it would take most of the
    bits.
    """
    weight = (power * (target - target.amax((1, 2), keepdim=True))).exp()
    weight = weight / weight.mean((1, 2), keepdim=True)
    return (weight * (output - target).abs()).mean()


def roughness_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return the `texture_loss` of pictures [batch, height, width], at their own resolution.

    Raises:
        InputError: for pictures smaller than [3, 3].
    """
    return F.l1_loss(_roughness(output), _roughness(target))


def _pair(output: Tensor | Spectra, target: Tensor | Spectra) -> tuple[Spectra, Spectra]:
    made = output if isinstance(output, Spectra) else Spectra(output)
    real = target if isinstance(target, Spectra) else Spectra(target)
    if made.wave.shape != real.wave.shape:
        raise InputError(
            f"output {list(made.wave.shape)} and target {list(real.wave.shape)} differ in shape: "
            "give waves of one length"
        )
    return made, real


def _log_mels(
    output: Tensor | Spectra,
    target: Tensor | Spectra,
    scales: Sequence[tuple[int, int]],
    sample_rate: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the log-mel pictures of both for each scale, (FFT size, mel bins)."""
    pair = _pair(output, target)
    for n_fft, bins in scales:
        made, real = (_log_mel(wave, n_fft, bins, sample_rate) for wave in pair)
        yield made, real


def _log_mel(wave: Spectra, n_fft: int, bins: int, sample_rate: int) -> Tensor:
    """Return ln of mean magnitudes, [batch, frames, bins]."""
    filters = mel_filters(sample_rate, n_fft, bins, torch.float32, wave.wave.device)
    filters = filters / filters.sum(0).clamp(min=1)  # mean magnitudes: one floor fits all bins
    with torch.autocast(wave.wave.device.type, enabled=False):
        mel = _magnitude(wave.power(n_fft)).transpose(1, 2) @ filters
    return (mel + LOG_FLOOR).log()


def _roughness(picture: Tensor) -> Tensor:
    """Return ln RMS of the Laplacian in patches, [batch, height, width] -> [batch, rows, columns].

    Patches overlap by half. A picture smaller than a patch is one patch.
    """
    if min(picture.shape[1:]) < 3:
        raise InputError(
            f"a picture of {list(picture.shape[1:])} is too small to have a texture: it must be at "
            "least [3, 3]"
        )
    inner = picture[:, 1:-1, 1:-1]
    across = picture[:, 1:-1, :-2] + picture[:, 1:-1, 2:]
    laplacian = picture[:, :-2, 1:-1] + picture[:, 2:, 1:-1] + across - 4 * inner
    patch = [min(TEXTURE_PATCH, size) for size in laplacian.shape[1:]]
    energy = F.avg_pool2d(laplacian.square(), patch, TEXTURE_PATCH // 2)
    return (energy + TEXTURE_FLOOR).log() / 2


def _unit(product: Tensor) -> Tensor:
    """Return complex numbers brought to length 1; far below the audible they shrink to 0."""
    parts = torch.view_as_real(product)
    length = (parts.square().sum(-1, keepdim=True) + LOG_FLOOR**4).sqrt()
    return torch.view_as_complex(parts / length)


def _log(power: Tensor) -> Tensor:
    return (power + LOG_FLOOR**2).log() / 2


def _magnitude(power: Tensor) -> Tensor:
    # The square root's slope is infinite at 0. Far below every floor a finite one changes nothing.
    return (power + 1e-12).sqrt()
