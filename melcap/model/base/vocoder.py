"""The published vocoder, Vocos: ConvNeXt blocks and an inverse STFT (arXiv 2306.00814)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcap.config import BaseVocoderConfig, MelSpec
from melcap.model.layers import ChannelNorm, ConvNeXt1d

KERNEL = 7
LOUDEST = 100.0
"""The largest magnitude of a bin."""


class Vocoder(nn.Module):
    """The network from ln-mel [batch, n_mels, frames] to a wave [batch, frames * hop].

    Convolutions pad the ends of the mel with zeros. A sample depends on `context` frames on either
    side of its own.
    """

    window: Tensor

    def __init__(self, config: BaseVocoderConfig, mel: MelSpec) -> None:
        super().__init__()
        self.hop = mel.hop
        self.context = (config.blocks + 1) * (KERNEL // 2) + mel.n_fft // mel.hop
        self.embed = nn.Conv1d(mel.n_mels, config.dim, KERNEL, padding=KERNEL // 2)
        self.norm = ChannelNorm(config.dim)
        self.convnext = nn.ModuleList(
            ConvNeXt1d(config.dim, config.hidden, 1.0) for _ in range(config.blocks)
        )
        self.final_layer_norm = ChannelNorm(config.dim)
        self.out = nn.Conv1d(config.dim, mel.n_fft + 2, 1)
        # On the CPU first: on the meta device this would import PyTorch's compiler.
        window = torch.hann_window(mel.n_fft, dtype=torch.float32, device="cpu")
        self.register_buffer("window", window.to(torch.get_default_device()), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """Return the wave of an ln-mel.

        The last frames overlap less than the others, and the published code leaves them out: its
        wave is a hop shorter.
        """
        x = self.norm(self.embed(mel))
        for block in self.convnext:
            x = block(F.pad(x, (KERNEL // 2, KERNEL // 2)))
        log_magnitude, phase = self.out(self.final_layer_norm(x)).chunk(2, dim=1)
        spectrum = torch.polar(log_magnitude.exp().clamp(max=LOUDEST), phase)
        n_fft, samples = len(self.window), self.hop * mel.shape[-1]
        return torch.istft(spectrum, n_fft, self.hop, window=self.window, length=samples)
