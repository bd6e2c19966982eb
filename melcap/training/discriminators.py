"""Discriminators: of waves, by period and by resolution, and of log-mel pictures.

Each takes a batch and returns (scores, features): one score map per member, any shape, high for
real; and per member the feature maps of its hidden layers, for feature matching. Widths are
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
from melcap.training.losses import compress, stft

Judgement = tuple[list[Tensor], list[list[Tensor]]]
"""Scores, one per member; features, one list of maps per member."""

_SLOPE = 0.1
_LEAST_PEAK = 1e-2


def _conv(
    inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)
) -> nn.Module:
    padding = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding)
    # PyTorch's default lets the signal die out over six layers: tens of steps go by undecided.
    nn.init.kaiming_normal_(conv.weight, _SLOPE)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    normed: nn.Module = weight_norm(conv)
    return normed


class _Stack(nn.Module):
    """Convolutions with leaky ReLUs between them, that keep what each of them says."""

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
    """Members that judge the same input, each (score, features) on its own."""

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Judgement:
        verdicts = [member(x) for member in self.members]
        return [score for score, _ in verdicts], [features for _, features in verdicts]


class PeriodDiscriminator(nn.Module):
    """One period of HiFi-GAN's discriminator: the wave folded into rows of `period` samples."""

    def __init__(self, period: int, base: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, base, 4 * base, 16 * base, 32 * base)
        layers = [_conv(a, b, (5, 1), (3, 1)) for a, b in pairwise(widths)]
        self.stack = _Stack([*layers, _conv(widths[-1], widths[-1], (5, 1))])
        self.score = _conv(widths[-1], 1, (3, 1))

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        padded = F.pad(wave[:, None], (0, -wave.shape[1] % self.period), mode="reflect")
        features: list[Tensor] = self.stack(padded.reshape(len(wave), 1, -1, self.period))
        return self.score(features[-1]), features


class MultiPeriodDiscriminator(_Group):
    """HiFi-GAN's multi-period discriminator: waves [batch, samples].

    Channels are base * (1, 4, 16, 32, 32): base 32 is the published width (41 M parameters),
    base 8 costs a sixteenth.
    """

    def __init__(self, periods: Sequence[int] = (2, 3, 5, 7, 11), base: int = 32) -> None:
        super().__init__(PeriodDiscriminator(period, base) for period in periods)


class BandDiscriminator(nn.Module):
    """One resolution of DAC's and Vocos' discriminator: a stack for each band of the STFT."""

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
    """Judges complex STFTs of waves [batch, samples], several sizes, each cut into bands.

    As in DAC and Vocos (base 32): mean removed, peak set to 0.8 (but silence is not blown up),
    bands with edges at `bands` of the Nyquist frequency. `power` below 1 compresses magnitudes,
    which lets the networks see quiet bands.
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
    """Judges patches of one log-mel picture; it is told the frequency of each row.

    A score looks at 31 x 31 pixels; the first layer keeps the resolution, where blur shows.
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
        rows = torch.linspace(-1, 1, picture.shape[2], device=picture.device, dtype=picture.dtype)
        rows = rows[:, None].expand_as(picture)
        features: list[Tensor] = self.stack(torch.cat([picture, rows], 1))
        return self.score(features[-1]), features


class MelDiscriminator(nn.Module):
    """Judges log-mel pictures [batch, 1, mels, frames] at full, half, quarter ... resolution.

    Stage 1's perceptual term: feature matching here stands in for ImageNet features. Raises
    InputError for pictures of another rank, or too small for the coarsest of the `scales`.
    """

    def __init__(self, scales: int = 3, base: int = 32) -> None:
        super().__init__()
        self.members = nn.ModuleList(PictureDiscriminator(base) for _ in range(scales))

    def forward(self, picture: Tensor) -> Judgement:
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
