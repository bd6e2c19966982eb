"""Discriminators of waves, by period and by resolution, and of log-mel pictures.

Each takes a batch and returns (scores, features). Scores are one map per member, of any shape, high
for targets. Features are the maps of each member's hidden layers, for feature matching. Widths are
parameters, so that the same networks fit a CPU (8 channels) and a large GPU (32).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from melcap.errors import InputError
from melcap.training.spectra import compress, stft

ScoresAndFeatures = tuple[list[Tensor], list[list[Tensor]]]
"""Scores, one map for each member; features, one list of maps for each member."""

_SLOPE = 0.1
_LEAST_PEAK = 1e-2


def _conv(
    inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)
) -> nn.Module:
    padding = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding)
    # With PyTorch's default the signal dies out over six layers, and tens of steps are lost.
    nn.init.kaiming_normal_(conv.weight, _SLOPE)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    normed: nn.Module = weight_norm(conv)
    return normed


class _Stack(nn.Module):
    """Convolutions with leaky ReLUs after them, which returns the map of each."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), _SLOPE)
            maps.append(x)
        return maps


class _Group(nn.Module):
    """Members that score the same input, each (score, features) on its own."""

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> ScoresAndFeatures:
        found = [member(x) for member in self.members]
        return [score for score, _ in found], [features for _, features in found]


class PeriodDiscriminator(nn.Module):
    """A discriminator of HiFi-GAN, which folds the wave into rows of `period` samples."""

    def __init__(self, period: int, base: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, base, 4 * base, 16 * base, 32 * base)
        layers = [_conv(a, b, (5, 1), (3, 1)) for a, b in pairwise(widths)]
        self.stack = _Stack([*layers, _conv(widths[-1], widths[-1], (5, 1))])
        self.score = _conv(widths[-1], 1, (3, 1))

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the score map and the features of waves [batch, samples]."""
        padded = F.pad(wave[:, None], (0, -wave.shape[1] % self.period), mode="reflect")
        features: list[Tensor] = self.stack(padded.reshape(len(wave), 1, -1, self.period))
        return self.score(features[-1]), features


class MultiPeriodDiscriminator(_Group):
    """The multi-period discriminator of HiFi-GAN (arXiv 2010.05646), for waves [batch, samples].

    Channels are base * (1, 4, 16, 32, 32). Base 32 is the published width, with 41 M parameters;
    base 8 costs a sixteenth.
    """

    def __init__(self, periods: Sequence[int] = (2, 3, 5, 7, 11), base: int = 32) -> None:
        super().__init__(PeriodDiscriminator(period, base) for period in periods)


class BandDiscriminator(nn.Module):
    """A discriminator of DAC and Vocos at one resolution, with a stack for each band."""

    def __init__(self, n_fft: int, base: int, bands: Sequence[float], power: float) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.power = power
        self.edges = [round(edge * (n_fft // 2 + 1)) for edge in bands]
        self.stacks = nn.ModuleList(
            _Stack(
                [
                    _conv(2, base, (3, 9)),
                    *(_conv(base, base, (3, 9), (1, 2)) for _ in range(3)),
                    _conv(base, base, (3, 3)),
                ]
            )
            for _ in self.edges[1:]
        )
        self.score = _conv(base, 1, (3, 3))

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the score map and the features of waves [batch, samples]."""
        wave = wave.float()
        wave = wave - wave.mean(1, keepdim=True)
        wave = wave * (0.8 / wave.abs().amax(1, keepdim=True).clamp(min=_LEAST_PEAK))
        picture = compress(stft(wave, self.n_fft), self.power).permute(0, 3, 2, 1)
        features: list[Tensor] = []
        last = []
        for stack, (low, high) in zip(self.stacks, pairwise(self.edges), strict=True):
            maps: list[Tensor] = stack(picture[..., low:high])
            features += maps
            last.append(maps[-1])
        return self.score(torch.cat(last, -1)), features


class MultiResolutionDiscriminator(_Group):
    """A discriminator of complex STFTs of waves [batch, samples], of several sizes, cut into bands.

    As in DAC and Vocos (base 32), the mean is removed and the peak set to 0.8, but silence is not
    amplified. Bands have edges at `bands` of the Nyquist frequency. A `power` below 1 compresses
    magnitudes, which makes quiet bands visible to the networks.
    """

    def __init__(
        self,
        sizes: Sequence[int] = (2048, 1024, 512),
        base: int = 32,
        bands: Sequence[float] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0),
        power: float = 1.0,
    ) -> None:
        super().__init__(BandDiscriminator(size, base, bands, power) for size in sizes)


class PictureDiscriminator(nn.Module):
    """A discriminator of patches of one log-mel picture, given the frequency of each row of it.

    A score depends on 31 x 31 pixels. The first layer keeps the resolution, where blur shows.
    """

    def __init__(self, base: int) -> None:
        super().__init__()
        self.stack = _Stack(
            [
                _conv(2, base, (3, 3)),
                _conv(base, 2 * base, (5, 5), (2, 2)),
                _conv(2 * base, 4 * base, (5, 5), (2, 2)),
                _conv(4 * base, 4 * base, (3, 3)),
            ]
        )
        self.score = _conv(4 * base, 1, (3, 3))

    def forward(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the score map and the features of pictures [batch, 1, mels, frames]."""
        rows = torch.linspace(-1, 1, picture.shape[2], device=picture.device, dtype=picture.dtype)
        rows = rows[:, None].expand_as(picture)
        features: list[Tensor] = self.stack(torch.cat([picture, rows], 1))
        return self.score(features[-1]), features


class MelDiscriminator(nn.Module):
    """A discriminator of log-mel pictures at full, half, quarter ... resolution.

    Its feature matching is the perceptual term of stage 1, in the place of ImageNet features.
    """

    def __init__(self, scales: int = 3, base: int = 32) -> None:
        super().__init__()
        self.members = nn.ModuleList(PictureDiscriminator(base) for _ in range(scales))

    def forward(self, picture: Tensor) -> ScoresAndFeatures:
        """Return the scores and features of pictures [batch, 1, mels, frames].

        Raises:
            InputError: for pictures of another rank, or too small for the coarsest scale.
        """
        least = 4 * 2 ** (len(self.members) - 1)
        if picture.ndim != 4 or picture.shape[1] != 1 or min(picture.shape[2:]) < least:
            raise InputError(
                f"a log-mel picture must be [batch, 1, mels, frames] with at least {least} mels "
                f"and frames, not {list(picture.shape)}"
            )
        scores: list[Tensor] = []
        features: list[list[Tensor]] = []
        for member in self.members:
            score, maps = member(picture)
            scores.append(score)
            features.append(maps)
            picture = F.avg_pool2d(picture, 2)
        return scores, features
