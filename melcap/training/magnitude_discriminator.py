"""A discriminator of waves that sees log magnitudes alone, for codecs whose phases are constants.

With `ConstantPhase` the gradient of a wave reaches magnitudes only. A discriminator that sees
phases, by samples or by complex spectra, asks for changes that such a codec cannot make, and these
are noise in its gradient. Pictures of log magnitudes ask for fewer such changes. They still ask for
some, because a window that is not one of the codec's depends on the phases of several of those.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from melcap.training.discriminators import PictureDiscriminator, ScoresAndFeatures
from melcap.training.spectra import stft

FLOOR = 1e-4
"""Magnitude (-80 dB white noise) below which differences of logarithms fade out."""
_MEAN, _STD = -5.5, 2.0
"""Mean and deviation of ln magnitude in audio, about: pictures are brought near unit scale."""


class MagnitudeDiscriminator(nn.Module):
    """A discriminator of patches of log-magnitude spectra of several sizes.

    Each size has a `PictureDiscriminator`, whose patch is 31 bins by 31 frames: 0.7 kHz by 0.4 s at
    2048 samples, 2.7 kHz by 0.1 s at 512. Waves of equal magnitudes have equal scores.

    Args:
        sizes: the FFT sizes.
        base: the width, see `PictureDiscriminator`.
    """

    def __init__(self, sizes: Sequence[int] = (2048, 1024, 512), base: int = 32) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.members = nn.ModuleList(PictureDiscriminator(base) for _ in self.sizes)

    def forward(self, wave: Tensor) -> ScoresAndFeatures:
        """Return the scores and features of waves [batch, samples]."""
        found = [
            member(log_magnitudes(wave, size)[:, None])
            for member, size in zip(self.members, self.sizes, strict=True)
        ]
        return [score for score, _ in found], [features for _, features in found]


def log_magnitudes(wave: Tensor, n_fft: int) -> Tensor:
    """Return ln magnitudes of waves [batch, samples] near unit scale, [batch, bins, frames]."""
    power = torch.view_as_real(stft(wave, n_fft)).square().sum(-1)
    return ((power + FLOOR**2).log() / 2 - _MEAN) / _STD
