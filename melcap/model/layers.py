"""The layers of the tokenizer and the vocoder, each a `Stage` without padding in time.

2D layers work on [batch, channels, rows, steps] and pad the frequency axis with zeros. 1D layers
work on [batch, channels, steps]. Norms act on the channels of one position, so no result depends on
the rest of the clip.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcap.model.stages import Stage
from melcap.ops import channel_norm, conv2d, convnext1d, resblock2d, upsample_conv1d
from melcap.ops.convnext1d import Parameters, convnext1d_reference
from melcap.ops.numerics import kept
from melcap.ops.precision import without_autocast_for


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each position, [batch, channels, ...]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        """Return the normalised input, after an activation, "none" or "silu"."""
        return channel_norm(x, self.weight, self.bias, activation=activation)


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a layer in float32 or wider, even under autocast. bfloat16 is too coarse for phases."""
    with without_autocast_for(x):
        y: Tensor = layer(x.to(torch.promote_types(x.dtype, torch.float32)))
    return y


def linear_in_float32(layer: nn.Linear, x: Tensor) -> Tensor:
    """Run a linear layer on [batch, steps, channels] in float32 or wider, even under autocast.

    Without a gradient it is a 1 x 1 `conv2d`, which computes float32 on tensor cores.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return in_float32(layer, x)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return conv2d(x.mT.unsqueeze(2), layer.weight[:, :, None, None], layer.bias).squeeze(2).mT


@kept
def haar_kernel(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the kernel of the Haar transform of patches of 2 x 2, [4 bands, 1, 2, 2]."""
    bands = [[[1, 1], [1, 1]], [[1, -1], [1, -1]], [[1, 1], [-1, -1]], [[1, -1], [-1, 1]]]
    return torch.tensor(bands, dtype=dtype, device=device).unsqueeze(1) / 2


def is_a_convolution(x: Tensor) -> bool:
    """Return whether a Haar transform runs as `conv2d`, in one launch where a chain takes a dozen.

    A CPU takes the chain, whose bits are older, and so does training.
    """
    return x.device.type != "cpu" and not torch.is_grad_enabled()


class HaarSplit(Stage):
    """The orthonormal Haar transform of patches of 2 x 2: [B, C, F, T] -> [B, 4C, F / 2, T / 2]."""

    down = 2

    def forward(self, x: Tensor) -> Tensor:
        """Return the four bands of each patch, in channels-last memory."""
        if x.shape[1] == 1 and is_a_convolution(x):
            return conv2d(x, haar_kernel(x.dtype, x.device), stride=(2, 2))
        x = x[..., : x.shape[-1] // 2 * 2]
        a, b = x[..., 0::2, 0::2], x[..., 0::2, 1::2]
        c, d = x[..., 1::2, 0::2], x[..., 1::2, 1::2]
        bands = torch.cat((a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d), dim=1)
        return (bands / 2).contiguous(memory_format=torch.channels_last)


class HaarMerge(Stage):
    """The inverse of `HaarSplit`: [B, 4C, F, T] -> [B, C, 2F, 2T]."""

    up = 2

    def forward(self, x: Tensor) -> Tensor:
        """Return the patches of four bands."""
        if x.shape[1] == 4 and is_a_convolution(x):
            return conv2d(x, haar_kernel(x.dtype, x.device), stride=(2, 2), transposed=True)
        ll, lh, hl, hh = (x / 2).chunk(4, dim=1)
        top = torch.stack((ll + lh + hl + hh, ll - lh + hl - hh), dim=-1).flatten(-2)
        bottom = torch.stack((ll + lh - hl - hh, ll - lh - hl + hh), dim=-1).flatten(-2)
        return torch.stack((top, bottom), dim=-2).flatten(-3, -2)


class Conv2d(Stage):
    """A 3 x 3 convolution, with an embedding of the row of each position where `rows` is given."""

    left = right = 1

    def __init__(self, channels_in: int, channels_out: int, rows: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=(1, 0))
        self.rows = nn.Parameter(torch.zeros(channels_out, rows, 1)) if rows else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of [batch, channels, rows, steps], two steps shorter."""
        return self.convolved(x)

    def convolved(self, x: Tensor, norm: ChannelNorm | None = None) -> Tensor:
        """Return the convolution of x, behind a norm and SiLU where there is one."""
        return conv2d(
            x,
            self.conv.weight,
            self.conv.bias,
            padding=(1, 0),
            norm=None if norm is None else (norm.weight, norm.bias),
            activation="none" if norm is None else "silu",
            rows=self.rows,
        )


class Output2d(Conv2d):
    """The end of a residual network: norm, SiLU and a 3 x 3 convolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out)
        self.norm = ChannelNorm(channels_in)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for [batch, channels, rows, steps], two steps shorter."""
        return self.convolved(x, self.norm)


def to_unit(x: Tensor, dim: int) -> Tensor:
    """Return `x` with vectors along `dim` scaled to a mean square of 1."""
    return F.normalize(x, dim=dim) * x.shape[dim] ** 0.5


class UnitLatents(Stage):
    """A stage that scales the latent of each position to a mean square of 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled latents, [batch, channels, rows, columns]."""
        return to_unit(x, 1)


class ResBlock2d(Stage):
    """A residual block of two convolutions, 3 x 3 and 3 x 1.

    The second one spans only rows, which keeps the receptive field in time short.
    """

    left = right = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=(1, 0))
        self.norm2 = ChannelNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for [batch, channels, rows, steps], two steps shorter."""
        assert self.conv1.bias is not None
        assert self.conv2.bias is not None
        return resblock2d(
            x,
            norm1_weight=self.norm1.weight,
            norm1_bias=self.norm1.bias,
            conv1_weight=self.conv1.weight,
            conv1_bias=self.conv1.bias,
            norm2_weight=self.norm2.weight,
            norm2_bias=self.norm2.bias,
            conv2_weight=self.conv2.weight,
            conv2_bias=self.conv2.bias,
        )


class Down2d(Stage):
    """A downsampling stage: a norm, and a convolution whose kernel is as large as its stride.

    `stride` is (rows, steps): (2, 2) halves frequency and time, (1, 2) halves only time.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: tuple[int, int] = (2, 2)
    ) -> None:
        super().__init__()
        self.stride = stride
        self.down = stride[1]
        self.norm = ChannelNorm(channels_in)
        self.conv = nn.Conv2d(channels_in, channels_out, stride, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the downsampled [batch, channels, rows, steps]."""
        norm = self.norm.weight, self.norm.bias
        return conv2d(x, self.conv.weight, self.conv.bias, stride=self.stride, norm=norm)


class Up2d(Stage):
    """An upsampling stage: a norm, and a transposed convolution with a kernel of its stride.

    `stride` is (rows, steps): (2, 2) doubles frequency and time, (1, 2) doubles only time.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: tuple[int, int] = (2, 2)
    ) -> None:
        super().__init__()
        self.stride = stride
        self.up = stride[1]
        self.norm = ChannelNorm(channels_in)
        self.conv = nn.ConvTranspose2d(channels_in, channels_out, stride, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the upsampled [batch, channels, rows, steps]."""
        norm = self.norm.weight, self.norm.bias
        weight, bias = self.conv.weight, self.conv.bias
        return conv2d(x, weight, bias, stride=self.stride, transposed=True, norm=norm)


class Conv1d(Stage):
    """A convolution over time, followed by a channel norm."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.left = self.right = kernel // 2
        self.conv = nn.Conv1d(channels_in, channels_out, kernel)
        self.norm = ChannelNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for [batch, channels, steps], shorter by `kernel` - 1 steps."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            y = self.conv(x)
        else:
            y = conv2d(x.unsqueeze(2), self.conv.weight.unsqueeze(2), self.conv.bias).squeeze(2)
        return in_float32(self.norm, y)  # float32, because all later blocks add to it


class ConvNeXt1d(Stage):
    """A ConvNeXt block as in Vocos: depthwise convolution, norm, two linear layers, scaled skip."""

    left = right = 3

    def __init__(self, channels: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, 7, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for [batch, channels, steps], six steps shorter."""
        assert self.depthwise.bias is not None
        parameters = Parameters(
            depthwise_weight=self.depthwise.weight,
            depthwise_bias=self.depthwise.bias,
            norm_weight=self.norm.weight,
            norm_bias=self.norm.bias,
            expand_weight=self.expand.weight,
            expand_bias=self.expand.bias,
            contract_weight=self.contract.weight,
            contract_bias=self.contract.bias,
            scale=self.scale,
        )
        # The operation ignores autocast, which training uses for speed. Its reference does not.
        training = torch.is_grad_enabled() and torch.is_autocast_enabled(x.device.type)
        block = convnext1d_reference if training else convnext1d
        return block(x, *parameters)


class Upsample1d(Stage):
    """Snake, a transposed convolution with a kernel of twice the stride, and a channel norm."""

    left = right = 1

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.up = stride
        self.alpha = nn.Parameter(torch.ones(channels_in))
        shape = (channels_in, channels_out, 2 * stride)
        self.weight = nn.Parameter(torch.randn(shape).div_((2 * channels_in) ** 0.5))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.norm = ChannelNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for [batch, channels, steps]: `stride` steps for each inner step."""
        y = upsample_conv1d(
            x, self.weight, self.bias, self.up, activation="snake", alpha=self.alpha
        )
        return in_float32(self.norm, y[..., self.up : -self.up])
