"""The layers of the published tokenizer: residual blocks, attention, and changes of resolution.

All work on images [batch, channels, mel bins, frames]. Convolutions pad both axes with zeros, norms
take their statistics over the whole image, and attention sees all of it. So a result depends on the
whole image, unlike that of a `Stage`. The names of the parts are those of the published
checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcap.config.base import GROUPS
from melcap.ops import conv2d


class Norm(nn.GroupNorm):
    """A group norm over the channels of a group, mel bins and frames, and an activation."""

    def __init__(self, channels: int, activation: str = "none") -> None:
        super().__init__(GROUPS, channels, eps=1e-6)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised image after the activation, "none", "tanh" or "silu"."""
        x = super().forward(x)
        if self.activation == "tanh":
            return x.tanh_()
        return F.silu(x, inplace=True) if self.activation == "silu" else x


class Conv2d(nn.Conv2d):
    """A convolution that pads both axes with zeros."""

    def forward(
        self, x: Tensor, residual: Tensor | None = None, bound: float | None = None
    ) -> Tensor:
        """Return the convolution of an image, plus `residual`; no |x| exceeds `bound`."""
        return conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            residual=residual,
            bound=bound,
        )


class ResBlock(nn.Module):
    """A residual block of two 3 x 3 convolutions; a 1 x 1 convolution adapts the channels."""

    def __init__(self, channels_in: int, channels_out: int, activation: str) -> None:
        super().__init__()
        self.norm1 = Norm(channels_in, activation)
        self.conv1 = Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = Norm(channels_out, activation)
        self.conv2 = Conv2d(channels_out, channels_out, 3, padding=1)
        self.bound = 1.0 if activation == "tanh" else None
        same = channels_in == channels_out
        self.nin_shortcut = nn.Identity() if same else Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for an image, with `channels_out` channels."""
        y = self.conv1(self.norm1(x), bound=self.bound)
        out: Tensor = self.conv2(self.norm2(y), self.nin_shortcut(x), self.bound)
        return out


class Attention(nn.Module):
    """Attention of every position to every other, with one head, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = Norm(channels)
        self.q = Conv2d(channels, channels, 1)
        self.k = Conv2d(channels, channels, 1)
        self.v = Conv2d(channels, channels, 1)
        self.proj_out = Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for an image."""
        y = self.norm(x)
        # Contiguous, because PyTorch's fused attention takes nothing else.
        q, k, v = (part(y).flatten(2).mT.contiguous()[:, None] for part in (self.q, self.k, self.v))
        found = F.scaled_dot_product_attention(q, k, v)[:, 0].mT.reshape(x.shape)
        out: Tensor = self.proj_out(found, x)
        return out


class Downsample(nn.Module):
    """A 3 x 3 convolution of stride 2, which halves mel bins and frames."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the image at half the resolution."""
        y: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return y


class Upsample(nn.Module):
    """Each position repeated in a patch of 2 x 2, and a 3 x 3 convolution.

    It is computed at the lower resolution, as a 2 x 2 convolution for each of the four places in a
    patch: three weights fall on two different positions, along either axis. That takes 4 of 9
    products.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the image at twice the resolution."""
        batch, channels, bins, frames = x.shape
        out = x.new_empty(batch, bins, 2, frames, 2, channels)
        for row, by_row in enumerate(_halved(self.conv.weight, dim=2)):
            for step, kernel in enumerate(_halved(by_row, dim=3)):
                padded = F.pad(x, (1 - step, step, 1 - row, row))
                y = conv2d(padded, kernel, self.conv.bias)
                out[:, :, row, :, step] = y.movedim(1, -1)
        return out.view(batch, 2 * bins, 2 * frames, channels).movedim(-1, 1)


def _halved(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the weights of the first and the second place of a patch, two in place of three."""
    first, middle, last = weight.unbind(dim)
    return torch.stack((first, middle + last), dim), torch.stack((first + middle, last), dim)
