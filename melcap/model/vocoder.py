"""The vocoder: log-mel to waveform through ConvNeXt blocks, an iSTFT head and Griffin-Lim steps.

Backbone and head follow Vocos (arXiv 2306.00814). A configuration may have upsampling stages
between them. With these the head works on short windows, where phase is easier to predict
(iSTFTNet, arXiv 2203.02395).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melcap.config import CodecConfig
from melcap.model.griffin_lim import LOUDEST_LN_MAGNITUDE, FirstGuess, GriffinLim, Unfold
from melcap.model.layers import Conv1d, ConvNeXt1d, Upsample1d, linear_in_float32
from melcap.model.stages import Chain, Stage
from melcap.ops import polar_istft


class ISTFTHead(Stage):
    """Predict magnitude and phase, and invert the STFT: [B, channels, steps] -> [B, samples].

    Each step stands for `hop` samples in the middle of its window of `overlap` hops. There is no
    padding, so every sample is covered by all its windows, and the sum of their squares is one
    constant.

    Args:
        channels: channels of the input.
        hop: samples for each step.
        overlap: hops in a window.
    """

    window: Tensor

    def __init__(self, channels: int, hop: int, overlap: int) -> None:
        super().__init__()
        self.hop, self.overlap = hop, overlap
        self.n_fft = hop * overlap
        self.left = self.right = overlap // 2
        self.up = hop
        self.linear = nn.Linear(channels, self.n_fft + 2)
        # On the CPU first: on the meta device this arithmetic would import PyTorch's compiler.
        window = torch.hann_window(self.n_fft, dtype=torch.float64, device="cpu")
        window /= window.view(overlap, hop).square().sum(0).mean()
        window = window.float().to(torch.get_default_device())
        self.register_buffer("window", window, persistent=False)
        # samples from the first one that all its windows cover to the first one of the output
        self._front = self.left * hop + (self.n_fft - hop) // 2 - (overlap - 1) * hop

    def forward(self, x: Tensor) -> Tensor:
        """Return samples [batch, samples] for channels [batch, channels, steps]."""
        wave = self.synthesis(linear_in_float32(self.linear, x.transpose(1, 2)))
        samples = (x.shape[-1] - self.left - self.right) * self.hop
        return wave[:, self._front : self._front + samples]

    def synthesis(self, x: Tensor) -> Tensor:
        """Return the wave of ln magnitudes and phases [batch, steps, n_fft + 2]."""
        return polar_istft(x, self.window, self.hop, loudest=LOUDEST_LN_MAGNITUDE)


def vocoder(config: CodecConfig, griffin_lim_steps: int | None = None) -> Chain:
    """Return the stages from log-mel [B, n_mels, T] to a waveform [B, T * hop].

    Args:
        config: configuration of the codec.
        griffin_lim_steps: number of steps instead of that of the configuration. It has no effect
            on a configuration without steps.
    """
    voc = config.vocoder
    blocks = voc.blocks + sum(voc.stage_blocks)
    stages: list[Stage] = [Conv1d(config.mel.n_mels, voc.dim, 5)]
    stages.extend(ConvNeXt1d(voc.dim, voc.hidden, 1 / blocks) for _ in range(voc.blocks))
    width, hop = voc.dim, config.mel.hop
    fine: list[Stage] = []
    for stride, channels, count in zip(
        voc.strides, voc.stage_channels, voc.stage_blocks, strict=True
    ):
        fine.append(Upsample1d(width, channels, stride))
        fine.extend(ConvNeXt1d(channels, 2 * channels, 1 / blocks) for _ in range(count))
        width, hop = channels, hop // stride
    fine.append(ISTFTHead(width, hop, voc.head_overlap))
    if not voc.griffin_lim_steps:
        return Chain(*stages, *fine)
    total = voc.griffin_lim_steps if griffin_lim_steps is None else griffin_lim_steps
    n_fft, hop = config.mel.n_fft, config.mel.hop
    stages.append(FirstGuess(Chain(*fine), voc.dim, n_fft, hop))
    stages.append(GriffinLim(n_fft, hop, voc.griffin_lim_momentum, total))
    return Chain(*stages, Unfold(hop))
