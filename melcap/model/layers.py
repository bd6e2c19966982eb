"""The layers that the tokenizer and the vocoder are made of, each a `Stage`: no padding in time.

2D layers work on [batch, channels, rows, steps] and pad the frequency axis with zeros; 1D layers on
[batch, channels, steps]. Norms act on the channels of one position, so nothing depends on the clip.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcap.model.stages import Stage
from melcap.ops import channel_norm, convnext1d, reference, upsample_conv1d
from melcap.ops.precision import without_autocast_for


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each position; any number of axes after them.

    `forward` takes an activation, "none" or "silu", that comes after it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        return channel_norm(x, self.weight, self.bias, activation=activation)


def in_full(layer: nn.Module, x: Tensor) -> Tensor:
    """Run the layer in float32 or wider, even under autocast. bfloat16 is too coarse for phases."""
    with without_autocast_for(x):
        full: Tensor = layer(x.to(torch.promote_types(x.dtype, torch.float32)))
    return full


class HaarSplit(Stage):
    """Haar patches: [B, C, F, T] -> [B, 4C, F / 2, T / 2], orthonormal."""

    down = 2

    def forward(self, x: Tensor) -> Tensor:
        x = x[..., : x.shape[-1] // 2 * 2]
        a, b = x[..., 0::2, 0::2], x[..., 0::2, 1::2]
        c, d = x[..., 1::2, 0::2], x[..., 1::2, 1::2]
        bands = torch.cat((a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d), dim=1)
        return (bands / 2).contiguous(memory_format=torch.channels_last)


class HaarMerge(Stage):
    """The inverse of `HaarSplit`: [B, 4C, F, T] -> [B, C, 2F, 2T]."""

    up = 2

    def forward(self, x: Tensor) -> Tensor:
        ll, lh, hl, hh = (x / 2).chunk(4, dim=1)
        top = torch.stack((ll + lh + hl + hh, ll - lh + hl - hh), dim=-1).flatten(-2)
        bottom = torch.stack((ll + lh - hl - hh, ll - lh - hl + hh), dim=-1).flatten(-2)
        return torch.stack((top, bottom), dim=-2).flatten(-3, -2)


class Conv2d(Stage):
    """A 3 x 3 convolution; with `rows`, plus an embedding that says which row a position is in."""

    left = right = 1

    def __init__(self, channels_in: int, channels_out: int, rows: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=(1, 0))
        self.rows = nn.Parameter(torch.zeros(channels_out, rows, 1)) if rows else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.rows is None else x + self.rows


class Output2d(Conv2d):
    """Norm, SiLU and a 3 x 3 convolution: the end of a residual network."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out)
        self.norm = ChannelNorm(channels_in)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x, "silu"))


def to_unit(x: Tensor, dim: int) -> Tensor:
    """Vectors along `dim` with a mean square of 1."""
    return F.normalize(x, dim=dim) * x.shape[dim] ** 0.5


class UnitLatents(Stage):
    """[batch, channels, rows, columns]: each position a direction, its length always the same."""

    def forward(self, x: Tensor) -> Tensor:
        return to_unit(x, 1)


class ResBlock2d(Stage):
    """Residual block: 3 x 3, then 3 x 1 (frequency only, which keeps the reach in time short)."""

    left = right = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=(1, 0))
        self.norm2 = ChannelNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.norm1(x, "silu"))
        return x[..., 1:-1] + self.conv2(self.norm2(y, "silu"))


class Down2d(Stage):
    """Downsample by a norm and a convolution whose kernel is as large as its stride.

    `stride` is (rows, steps): (2, 2) halves frequency and time, (1, 2) halves time alone.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: tuple[int, int] = (2, 2)
    ) -> None:
        super().__init__()
        self.down = stride[1]
        self.norm = ChannelNorm(channels_in)
        self.conv = nn.Conv2d(channels_in, channels_out, stride, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))


class Up2d(Stage):
    """Upsample by a norm and a transposed convolution whose kernel is as large as its stride.

    `stride` is (rows, steps): (2, 2) doubles frequency and time, (1, 2) doubles time alone.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: tuple[int, int] = (2, 2)
    ) -> None:
        super().__init__()
        self.up = stride[1]
        self.norm = ChannelNorm(channels_in)
        self.conv = nn.ConvTranspose2d(channels_in, channels_out, stride, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))


class Conv1d(Stage):
    """A convolution over time with a channel norm behind it."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.left = self.right = kernel // 2
        self.conv = nn.Conv1d(channels_in, channels_out, kernel)
        self.norm = ChannelNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return in_full(self.norm, self.conv(x))  # what all blocks behind it add to


class ConvNeXt1d(Stage):
    """ConvNeXt block as in Vocos: depthwise convolution, norm, two linear layers, scaled skip."""

    left = right = 3

    def __init__(self, channels: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, 7, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        norm, expand, contract = self.norm, self.expand, self.contract
        assert self.depthwise.bias is not None
        # The operation itself is exact under autocast, which training uses to be faster.
        learns = torch.is_grad_enabled() and torch.is_autocast_enabled(x.device.type)
        block = reference.convnext1d if learns else convnext1d
        return block(
            x,
            self.depthwise.weight,
            self.depthwise.bias,
            norm.weight,
            norm.bias,
            expand.weight,
            expand.bias,
            contract.weight,
            contract.bias,
            self.scale,
        )


class Upsample1d(Stage):
    """Snake, then a transposed convolution twice the stride long, then a channel norm."""

    left = right = 1

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.up = stride
        self.alpha = nn.Parameter(torch.ones(channels_in))
        shape = (channels_in, channels_out, 2 * stride)
        self.weight = nn.Parameter(torch.randn(shape) / (2 * channels_in) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.norm = ChannelNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        y = upsample_conv1d(
            x, self.weight, self.bias, self.up, activation="snake", alpha=self.alpha
        )
        return in_full(self.norm, y[..., self.up : -self.up])
