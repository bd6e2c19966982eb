"""The networks of the 2D tokenizer, from log-mel to a grid of latents and back."""

from __future__ import annotations

from torch import Tensor

from melcap.config import CodecConfig
from melcap.model.layers import (
    Conv2d,
    Down2d,
    HaarMerge,
    HaarSplit,
    Output2d,
    ResBlock2d,
    UnitLatents,
    Up2d,
)
from melcap.model.stages import Chain, Stage


class ToPicture(Stage):
    """A stage that adds a channel axis: [batch, n_mels, frames] -> [batch, 1, n_mels, frames]."""

    def forward(self, mel: Tensor) -> Tensor:
        """Return the log-mel with an axis of one channel."""
        return mel.unsqueeze(1)


class FromPicture(Stage):
    """The inverse of `ToPicture`: [batch, 1, n_mels, frames] -> [batch, n_mels, frames]."""

    def forward(self, picture: Tensor) -> Tensor:
        """Return the log-mel without the axis of one channel."""
        return picture.squeeze(1)


def mel_encoder(config: CodecConfig) -> Chain:
    """Return the stages from log-mel to latents.

    The log-mel is [B, n_mels, T], and latents are [B, codebook_dim, rows, T / patch_frames].
    """
    tokenizer = config.tokenizer
    width = tokenizer.channels
    rows = config.mel.n_mels // 2
    stages: list[Stage] = [ToPicture(), HaarSplit(), Conv2d(4, width[0], rows)]
    for level, blocks in enumerate(tokenizer.encoder_blocks):
        if level:
            stride = tokenizer.level_strides[level]
            stages.append(Down2d(width[level - 1], width[level], stride))
        stages.extend(ResBlock2d(width[level]) for _ in range(blocks))
    stages.append(Output2d(width[-1], tokenizer.codebook_dim))
    if tokenizer.unit_latents:
        stages.append(UnitLatents())
    return Chain(*stages)


def mel_decoder(config: CodecConfig) -> Chain:
    """Return the stages from latents to log-mel.

    Latents are [B, codebook_dim, rows, C], and the log-mel is [B, n_mels, C * patch_frames].
    """
    tokenizer = config.tokenizer
    width = tokenizer.channels
    stages: list[Stage] = [Conv2d(tokenizer.codebook_dim, width[-1], config.rows)]
    for level in reversed(range(len(width))):
        stages.extend(ResBlock2d(width[level]) for _ in range(tokenizer.decoder_blocks[level]))
        if level:
            stages.append(Up2d(width[level], width[level - 1], tokenizer.level_strides[level]))
    stages += [Output2d(width[0], 4), HaarMerge(), FromPicture()]
    return Chain(*stages)
