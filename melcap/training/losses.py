"""What training minimises: distances between waves, and the two sides of a hinge GAN.

The spectral losses take waves [batch, samples] that are aligned in time, or `Spectra` of them, so
that one STFT per size serves every loss:

    made, real = Spectra(output), Spectra(target)
    loss = multi_resolution_stft_loss(made, real) + complex_stft_loss(made, real)

Everything is computed in float32, whatever autocast is in force, is zero for equal waves, and has
finite gradients at silence. Spectra are scaled so that white noise of standard deviation s has a
mean power of s^2 in every bin at every size: one floor then fits all sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.errors import InputError
from melcap.ops.reference import hann_window, mel_filters

FFT_SIZES = (2048, 1024, 512, 256, 128)
COMPLEX_SIZES = (1024, 512, 256)
MEL_SCALES = ((2048, 160), (1024, 80), (512, 40), (256, 20))
"""(FFT size, bins): half of DAC's bins, so that few low filters fall between FFT bins."""
TEXTURE_SCALES = ((2048, 160), (1024, 96), (512, 64))

LOG_FLOOR = 1e-4
"""Magnitude (-80 dB white noise) below which differences of logarithms fade out."""
COMPRESSION_FLOOR = 1e-3
"""Magnitude below which power compression turns linear, which bounds its slope at silence."""
TEXTURE_FLOOR = 1e-2
"""Mean square of a Laplacian of ln mel below which a patch counts as smooth."""
TEXTURE_PATCH = 8
"""Bins, and frames, over which texture is averaged: a token's patch of the mel."""
LOUDNESS_FLOOR = 1e-3
"""Least mean magnitude that relative errors are measured against: near-silence weighs little."""


def stft(wave: Tensor, n_fft: int) -> Tensor:
    """Complex64 spectrum [batch, n_fft/2 + 1, samples*4/n_fft + 1] of a wave [batch, samples].

    Periodic Hann window, hop n_fft/4, silence on both sides, scaled as the module says.
    """
    if wave.ndim != 2 or not wave.is_floating_point():
        raise InputError(f"a wave must be floating point [batch, samples], not {list(wave.shape)}")
    window = hann_window(n_fft, torch.float32, wave.device) / (3 * n_fft / 8) ** 0.5
    return torch.stft(
        wave.float(), n_fft, n_fft // 4, window=window, pad_mode="constant", return_complex=True
    )


class Spectra:
    """A wave [batch, samples] and its STFTs, each computed when first asked for and then kept."""

    def __init__(self, wave: Tensor) -> None:
        self.wave = wave
        self._spectra: dict[int, Tensor] = {}
        self._powers: dict[int, Tensor] = {}

    def spectrum(self, n_fft: int) -> Tensor:
        """See `stft`."""
        if n_fft not in self._spectra:
            self._spectra[n_fft] = stft(self.wave, n_fft)
        return self._spectra[n_fft]

    def power(self, n_fft: int) -> Tensor:
        """Squared magnitudes, float32 [batch, n_fft/2 + 1, frames]."""
        if n_fft not in self._powers:
            self._powers[n_fft] = torch.view_as_real(self.spectrum(n_fft)).square().sum(-1)
        return self._powers[n_fft]


def multi_resolution_stft_loss(
    output: Tensor | Spectra,
    target: Tensor | Spectra,
    sizes: Sequence[int] = FFT_SIZES,
    log_weight: float = 1.0,
    linear_weight: float = 1.0,
    loudness: float = 0.0,
) -> Tensor:
    """Distance of magnitude spectra, averaged over `sizes`.

    Per size: `log_weight` times the `loudness_l1` of ln magnitude, which hears quiet detail, plus
    `linear_weight` times the L1 of the magnitude relative to the clip's mean magnitude (spectral
    convergence with L1 for L2), which puts the energy in place. Both are near 1 for an output that
    has little to do with its target, so equal weights are a fair start.
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
    """Distance of complex spectra, phase included: the codec is exact in time, so phase counts.

    Mean L1 of the real and imaginary parts of `compress`ed spectra, averaged over `sizes`. Alone it
    would mute whatever phase it cannot predict: use it beside a magnitude loss, with the lesser
    weight.
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
    """How far phases are off: mean of 1 - cos of the error, so that whole turns count for nothing.

    The mean of three errors, averaged over `sizes`: of the phase itself, of its step from bin to
    bin (group delay) and of its step from frame to frame (instantaneous frequency), as in APNet
    (arXiv 2305.07952). Bins are weighted by the target's magnitude to `loudness`, mean 1 in each
    clip. Between 0 and 2; about 0.8 for noise and other noise.
    """
    output, target = _pair(output, target)
    total = output.wave.new_zeros((), dtype=torch.float32)
    for n_fft in sizes:
        error = _turns(output.spectrum(n_fft) * target.spectrum(n_fft).conj())
        weight = (target.power(n_fft) + LOG_FLOOR**2) ** (loudness / 2)
        by_bin = _turns(error[:, 1:] * error[:, :-1].conj())
        by_frame = _turns(error[..., 1:] * error[..., :-1].conj())
        weights = (weight, weight[:, 1:], weight[..., 1:])
        for turned, heard in zip((error, by_bin, by_frame), weights, strict=True):
            share = heard / heard.mean((1, 2), keepdim=True)
            total = total + (share * (1 - turned.real)).mean() / 3
    return total / len(sizes)


def multi_scale_mel_loss(
    output: Tensor | Spectra,
    target: Tensor | Spectra,
    scales: Sequence[tuple[int, int]] = MEL_SCALES,
    sample_rate: int = 44_100,
    loudness: float = 0.0,
) -> Tensor:
    """`loudness_l1` of ln mel magnitudes, averaged over `scales`, each (FFT size, mel bins).

    Published vocoders weigh a mel loss 15 (DAC) to 45 (HiFi-GAN, Vocos) against GAN terms near 1.
    """
    pictures = _log_mels(output, target, scales, sample_rate)
    return torch.stack([loudness_l1(made, real, loudness) for made, real in pictures]).mean()


def texture_loss(
    output: Tensor | Spectra,
    target: Tensor | Spectra,
    scales: Sequence[tuple[int, int]] = TEXTURE_SCALES,
    sample_rate: int = 44_100,
) -> Tensor:
    """How far the roughness of the log-mel pictures is from what it should be, patch by patch.

    Losses that compare pixels are least for the median of all that might have been there, which is
    smooth. Here only the energy of a picture's 2D Laplacian in each patch of 8 x 8 counts, wherever
    in the patch it lies: mean L1 of ln RMS, averaged over `scales`, each (FFT size, mel bins). It
    plays the part of the Gram matrices of the paper (arXiv 2510.01903). Raises InputError for waves
    of fewer than three frames.
    """
    pictures = _log_mels(output, target, scales, sample_rate)
    return torch.stack([roughness_loss(made, real) for made, real in pictures]).mean()


def loudness_l1(output: Tensor, target: Tensor, power: float) -> Tensor:
    """L1 of log magnitudes [batch, bins, frames] that counts most where it is heard.

    A difference is weighted by the target's magnitude to `power` (0: not at all), and the weights
    of each picture have a mean of 1. Loudness goes about with a magnitude's power of 0.6 (Stevens
    1957); of faint noise below, no detail is heard, and it would take most of the bits.
    """
    weight = (power * (target - target.amax((1, 2), keepdim=True))).exp()
    weight = weight / weight.mean((1, 2), keepdim=True)
    return (weight * (output - target).abs()).mean()


def roughness_loss(output: Tensor, target: Tensor) -> Tensor:
    """`texture_loss` of pictures [batch, height, width], at their own resolution."""
    return F.l1_loss(_roughness(output), _roughness(target))


def compress(spectrum: Tensor, power: float, squared: Tensor | None = None) -> Tensor:
    """Raise magnitudes to `power`, keep phases: complex [...] -> real and imaginary [..., 2].

    Linear far below COMPRESSION_FLOOR. `squared` is |spectrum|^2, where it is at hand.
    """
    parts = torch.view_as_real(spectrum)
    if squared is None:
        squared = parts.square().sum(-1)
    gain = (squared + COMPRESSION_FLOOR**2) ** ((power - 1) / 2)
    return parts * gain[..., None]


def hinge_discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Mean over discriminators: scores of real audio up to 1, of made audio down to -1."""
    sides = [
        F.relu(1 - good.float()).mean() + F.relu(1 + bad.float()).mean()
        for good, bad in zip(real, fake, strict=True)
    ]
    return torch.stack(sides).mean()


def hinge_generator_loss(fake: Sequence[Tensor]) -> Tensor:
    """Mean over discriminators: scores of made audio up to 1, and no further (as in Vocos)."""
    return torch.stack([F.relu(1 - score.float()).mean() for score in fake]).mean()


def feature_matching_loss(
    real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]], relative: bool = True
) -> Tensor:
    """Mean L1 between discriminators' features of real and of made audio; real ones are detached.

    `relative` divides each layer's distance by the mean magnitude of its real features (as in
    EnCodec), so that the weight holds for any discriminator at any time; without it, as in Vocos.
    """
    distances = []
    for good, bad in zip(real, fake, strict=True):
        for wanted, made in zip(good, bad, strict=True):
            wanted = wanted.detach().float()
            distance = F.l1_loss(made.float(), wanted)
            if relative:
                distance = distance / wanted.abs().mean().clamp(min=1e-4)
            distances.append(distance)
    return torch.stack(distances).mean()


def _pair(output: Tensor | Spectra, target: Tensor | Spectra) -> tuple[Spectra, Spectra]:
    made = output if isinstance(output, Spectra) else Spectra(output)
    real = target if isinstance(target, Spectra) else Spectra(target)
    if made.wave.shape != real.wave.shape:
        raise InputError(
            f"output {list(made.wave.shape)} and target {list(real.wave.shape)} differ in shape"
        )
    return made, real


def _log_mels(
    output: Tensor | Spectra,
    target: Tensor | Spectra,
    scales: Sequence[tuple[int, int]],
    sample_rate: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each scale, (FFT size, mel bins), the pictures of both."""
    pair = _pair(output, target)
    for n_fft, bins in scales:
        made, real = (_log_mel(wave, n_fft, bins, sample_rate) for wave in pair)
        yield made, real


def _log_mel(wave: Spectra, n_fft: int, bins: int, sample_rate: int) -> Tensor:
    """[batch, frames, bins]: ln of mean magnitudes."""
    filters = mel_filters(sample_rate, n_fft, bins, torch.float32, wave.wave.device)
    filters = filters / filters.sum(0).clamp(min=1)  # mean magnitudes: one floor fits all bins
    with torch.autocast(wave.wave.device.type, enabled=False):
        mel = _magnitude(wave.power(n_fft)).transpose(1, 2) @ filters
    return (mel + LOG_FLOOR).log()


def _roughness(picture: Tensor) -> Tensor:
    """[batch, height, width] -> [batch, patches, patches]: ln RMS of the Laplacian in patches that
    overlap by half; a picture smaller than that is one patch."""
    if min(picture.shape[1:]) < 3:
        raise InputError(f"a picture of {list(picture.shape[1:])} is too small to have a texture")
    inner = picture[:, 1:-1, 1:-1]
    across = picture[:, 1:-1, :-2] + picture[:, 1:-1, 2:]
    laplacian = picture[:, :-2, 1:-1] + picture[:, 2:, 1:-1] + across - 4 * inner
    patch = [min(TEXTURE_PATCH, size) for size in laplacian.shape[1:]]
    energy = F.avg_pool2d(laplacian.square(), patch, TEXTURE_PATCH // 2)
    return (energy + TEXTURE_FLOOR).log() / 2


def _turns(product: Tensor) -> Tensor:
    """Complex numbers brought to length 1; far below what is audible they shrink to 0."""
    parts = torch.view_as_real(product)
    length = (parts.square().sum(-1, keepdim=True) + LOG_FLOOR**4).sqrt()
    return torch.view_as_complex(parts / length)


def _log(power: Tensor) -> Tensor:
    return (power + LOG_FLOOR**2).log() / 2


def _magnitude(power: Tensor) -> Tensor:
    # The square root's slope is infinite at 0; far below every floor it may as well be finite.
    return (power + 1e-12).sqrt()
