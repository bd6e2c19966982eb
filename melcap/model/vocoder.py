"""The vocoder: log-mel to waveform through ConvNeXt blocks, upsampling convolutions and an iSTFT.

Backbone and head follow Vocos (arXiv 2306.00814); Griffin-Lim steps end it. Upsampling stages
between backbone and head, where a configuration has some, let the head work on short windows, where
phase is easier to predict (iSTFTNet, arXiv 2203.02395).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melcap.config import CodecConfig
from melcap.model.griffin_lim import LOUDEST_LN_MAGNITUDE, FirstGuess, GriffinLim, Unfold
from melcap.model.layers import Conv1d, ConvNeXt1d, Upsample1d, in_full
from melcap.model.stages import Chain, Stage

STEPS_AT_ONCE = 4
"""Griffin-Lim steps in a stage: what lies between stages goes through memory, and what a stage
reaches a stream computes again for every piece."""


class ISTFTHead(Stage):
    """[batch, channels, steps] -> [batch, samples]: magnitude and phase, inverse DFT, overlap-add.

    Each step stands for `hop` samples in the middle of its window of `overlap` hops. Without
    padding every sample sees all its windows, so the sum of squared windows is one constant.
    """

    window: Tensor

    def __init__(self, channels: int, hop: int, overlap: int) -> None:
        super().__init__()
        self.hop, self.overlap = hop, overlap
        self.n_fft = hop * overlap
        self.left = self.right = overlap // 2
        self.up = hop
        self.linear = nn.Linear(channels, self.n_fft + 2)
        window = torch.hann_window(self.n_fft, dtype=torch.float64)
        window /= window.view(overlap, hop).square().sum(0).mean()
        self.register_buffer("window", window.float(), persistent=False)
        # From the first sample that sees all its windows to the first that this stage answers for.
        self._front = self.left * hop + (self.n_fft - hop) // 2 - (overlap - 1) * hop

    def forward(self, x: Tensor) -> Tensor:
        ln_magnitude, phase = in_full(self.linear, x.transpose(1, 2)).chunk(2, dim=-1)
        magnitude = ln_magnitude.clamp(max=LOUDEST_LN_MAGNITUDE).exp()
        frames = self.synthesis(magnitude * phase.cos(), magnitude * phase.sin()) * self.window
        whole = frames.shape[1] - self.overlap + 1
        wave = torch.zeros_like(frames[:, :whole, : self.hop])
        for k, part in enumerate(frames.unflatten(-1, (self.overlap, self.hop)).unbind(2)):
            wave = wave + part[:, self.overlap - 1 - k :][:, :whole]
        samples = (x.shape[-1] - self.left - self.right) * self.hop
        return wave.flatten(1)[:, self._front : self._front + samples]

    def synthesis(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """The parts of a spectrum [..., n_fft / 2 + 1] -> its windows [..., n_fft].

        Bins 0 and n_fft / 2 of a real wave have no imaginary part: what is there is set to 0.
        """
        # A CPU passes over it; cuFFT adds it in for some numbers of windows, and for others not.
        imaginary[..., :: self.n_fft // 2] = 0
        return torch.fft.irfft(torch.complex(real, imaginary), self.n_fft)


def vocoder(config: CodecConfig, griffin_lim_steps: int | None = None) -> Chain:
    """Stages from log-mel [B, n_mels, T] to a waveform [B, T * hop].

    `griffin_lim_steps`, which have no weights, stand in the place of those of a configuration that
    has some.
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
    wanted = voc.griffin_lim_steps if griffin_lim_steps is None else griffin_lim_steps
    n_fft, hop = config.mel.n_fft, config.mel.hop
    stages.append(FirstGuess(Chain(*fine), voc.dim, n_fft, hop))
    for done in range(0, wanted, STEPS_AT_ONCE):
        steps = min(STEPS_AT_ONCE, wanted - done)
        stages.append(GriffinLim(n_fft, hop, voc.griffin_lim_momentum, steps))
    return Chain(*stages, Unfold(hop))
