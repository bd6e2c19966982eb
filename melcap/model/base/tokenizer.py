"""The published 2D tokenizer, an image network on log-mel: encoder and mel decoder."""

from __future__ import annotations

from torch import Tensor, nn

from melcap.config import BaseTokenizerConfig
from melcap.model.base.layers import Attention, Conv2d, Downsample, Norm, ResBlock, Upsample
from melcap.model.layers import HaarMerge, HaarSplit

BANDS = 4
"""Channels of a mel after the Haar transform of patches of 2 x 2."""


class Level(nn.Module):
    """The residual blocks of one resolution, with or without attention, and what follows them."""

    def __init__(self, blocks: list[ResBlock], attention: list[Attention]) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.attn = nn.ModuleList(attention)
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    @classmethod
    def of(cls, config: BaseTokenizerConfig, index: int, channels_in: int, blocks: int) -> Level:
        """Return level `index` of a tokenizer, with so many blocks."""
        channels, activation = config.widths[index], config.activation
        first = ResBlock(channels_in, channels, activation)
        others = [ResBlock(channels, channels, activation) for _ in range(blocks - 1)]
        count = blocks if index in config.attention_levels else 0
        return cls([first, *others], [Attention(channels) for _ in range(count)])

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for an image at this resolution."""
        for index, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[index](x)
        x = self.upsample(self.downsample(x))
        return x


class Middle(nn.Module):
    """The coarsest part of both networks: attention between two residual blocks."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels, activation)
        self.attn_1 = Attention(channels)
        self.block_2 = ResBlock(channels, channels, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for an image."""
        y: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return y


class Encoder(nn.Module):
    """The network from normalised log-mel [batch, n_mels, frames] to latents.

    Latents are [batch, codebook_dim, rows, columns]. `frames` is a multiple of `patch_frames`.
    """

    def __init__(self, config: BaseTokenizerConfig) -> None:
        super().__init__()
        self.split = HaarSplit()
        self.conv_in = Conv2d(BANDS, config.channels, 3, padding=1)
        inputs = (config.channels, *config.widths[:-1])
        levels = [
            Level.of(config, index, channels, config.encoder_blocks)
            for index, channels in enumerate(inputs)
        ]
        for level, channels in zip(levels, config.widths[:-1], strict=False):
            level.downsample = Downsample(channels)
        self.down = nn.ModuleList(levels)
        coarsest = config.widths[-1]
        self.mid = Middle(coarsest, config.activation)
        self.norm_out = Norm(coarsest, config.activation)
        self.conv_out = Conv2d(coarsest, config.z_channels, 3, padding=1)
        self.quant_conv = Conv2d(config.z_channels, config.codebook_dim, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """Return the latents of a mel."""
        x = self.conv_in(self.split(mel[:, None]))
        for level in self.down:
            x = level(x)
        latents: Tensor = self.quant_conv(self.conv_out(self.norm_out(self.mid(x))))
        return latents


class MelDecoder(nn.Module):
    """The network from latents [batch, codebook_dim, rows, columns] to normalised log-mel."""

    def __init__(self, config: BaseTokenizerConfig) -> None:
        super().__init__()
        coarsest = config.widths[-1]
        self.post_quant_conv = Conv2d(config.codebook_dim, config.z_channels, 1)
        self.conv_in = Conv2d(config.z_channels, coarsest, 3, padding=1)
        self.mid = Middle(coarsest, config.activation)
        inputs = (*config.widths[1:], coarsest)
        levels = [
            Level.of(config, index, channels, config.decoder_blocks)
            for index, channels in enumerate(inputs)
        ]
        for level, channels in zip(levels[1:], config.widths[1:], strict=True):
            level.upsample = Upsample(channels)
        self.up = nn.ModuleList(levels)
        self.norm_out = Norm(config.widths[0], config.activation)
        self.conv_out = Conv2d(config.widths[0], BANDS, 3, padding=1)
        self.merge = HaarMerge()

    def forward(self, latents: Tensor) -> Tensor:
        """Return the mel [batch, n_mels, frames] of latents."""
        x = self.mid(self.conv_in(self.post_quant_conv(latents)))
        for level in reversed(self.up):
            x = level(x)
        return self.merge(self.conv_out(self.norm_out(x)))[:, 0]
