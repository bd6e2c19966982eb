"""Griffin-Lim steps built into the vocoder: its wave is made to agree with magnitudes it predicts.

A network that sees a stretch of mel cannot know where a wave's phase stands, and windows that
disagree cancel each other. So its wave is a `FirstGuess`, which comes with the magnitudes that its
STFT should have, and each `GriffinLimStep` puts them in: STFT, magnitudes replaced, inverse STFT
(Griffin and Lim 1984), with the momentum of Perraudin, Balazs and Sondergaard 2013. All of it has
gradients: the network learns the guess that is best after the steps.

Between these stages a frame is a column of channels: `hop` samples of the wave, as many of the wave
one step before, and `n_fft / 2 + 1` magnitudes. Frames are those of the log-mel, centred on their
hop; the samples of frame t are [t * hop + hop / 2, (t + 1) * hop + hop / 2), so that a window is
a whole number of such blocks. In memory a frame is one piece: the tensors are transposed views.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melcap.layers import in_full
from melcap.stages import Chain, Stage, inputs_for, outputs_of, run

LOUDEST_LN_MAGNITUDE = 6.0
QUIET_LN_MAGNITUDE = -3.0
"""Where training starts: magnitudes of an untrained layer, about 1, would be deafening."""
QUIETEST_POWER = 1e-6
"""A bin far below this is scaled, not set: where there is no phase, none is made up."""
LEAST_SHARE = 0.03
"""A bin far below this share of its magnitude is scaled too: else rounding would become phase."""


class FirstGuess(Stage):
    """[batch, channels, frames] -> [batch, 2 * hop + n_fft / 2 + 1, frames].

    Args:
        chain: gives the wave, [batch, channels, frames] -> [batch, samples], `hop` for a frame.
        channels, n_fft, hop: of what it is given, and of the STFT.
    """

    def __init__(self, chain: Chain, channels: int, n_fft: int, hop: int) -> None:
        super().__init__()
        self.chain, self.hop = chain, hop
        first, last = inputs_for([*chain], hop // 2, hop + hop // 2)
        self.left, self.right = -first, last - 1
        self.magnitude = nn.Linear(channels, n_fft // 2 + 1)
        nn.init.constant_(self.magnitude.bias, QUIET_LN_MAGNITUDE)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[-1] - self.left - self.right
        given, _ = outputs_of([*self.chain], -self.left, frames + self.right)
        begin = self.hop // 2 - given
        wave = run(self.chain, x)[:, begin : begin + frames * self.hop]
        blocks = wave.unflatten(1, (frames, self.hop))
        own = x[..., self.left : self.left + frames].transpose(1, 2)
        ln_magnitude = in_full(self.magnitude, own).clamp(max=LOUDEST_LN_MAGNITUDE)
        return torch.cat((blocks, blocks, ln_magnitude.exp()), dim=-1).transpose(1, 2)


class GriffinLimStep(Stage):
    """[batch, 2 * hop + n_fft / 2 + 1, frames] -> the same for 2 * (n_fft / hop - 1) frames fewer.

    The STFT is taken of wave + momentum * (wave - wave one step before).
    """

    window: Tensor
    inverse: Tensor

    def __init__(self, n_fft: int, hop: int, momentum: float) -> None:
        super().__init__()
        self.n_fft, self.hop, self.momentum = n_fft, hop, momentum
        self.blocks = n_fft // hop
        self.left = self.right = self.blocks - 1
        window = torch.hann_window(n_fft, dtype=torch.float64)
        self.register_buffer("window", window.float(), persistent=False)
        inverse = window / window.view(self.blocks, hop).square().sum(0).mean()
        self.register_buffer("inverse", inverse.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        by_frame = x.transpose(1, 2)
        wave, before = by_frame[..., : self.hop], by_frame[..., self.hop : 2 * self.hop]
        magnitude = by_frame[..., 2 * self.hop :]
        blocks = torch.lerp(before, wave, 1 + self.momentum)
        frames = x.shape[-1] - self.blocks + 1
        windows = [blocks[:, k : k + frames] for k in range(self.blocks)]
        wanted = magnitude[:, self.blocks // 2 :][:, :frames]
        made = self.impose(torch.cat(windows, dim=-1) * self.window, wanted) * self.inverse
        parts = made.unflatten(-1, (self.blocks, self.hop))
        whole = frames - self.blocks + 1
        agreed = torch.zeros_like(parts[:, :whole, 0])
        for k in range(self.blocks):
            agreed = agreed + parts[:, k : k + whole, self.blocks - 1 - k]
        kept = slice(self.left, self.left + whole)
        return torch.cat((agreed, wave[:, kept], magnitude[:, kept]), dim=-1).transpose(1, 2)

    def impose(self, windows: Tensor, wanted: Tensor) -> Tensor:
        """Windows [..., n_fft] with the magnitudes [..., n_fft / 2 + 1] instead of their own."""
        spectrum = torch.fft.rfft(windows)
        power = spectrum.real.square() + spectrum.imag.square()
        return torch.fft.irfft(spectrum * gain(power, wanted), self.n_fft)


def gain(power: Tensor, wanted: Tensor) -> Tensor:
    """What turns bins of this power into bins of the magnitude wanted, where they have a phase."""
    return wanted * torch.rsqrt(power + (LEAST_SHARE * wanted).square() + QUIETEST_POWER)


class Unfold(Stage):
    """[batch, 2 * hop + n_fft / 2 + 1, frames] -> [batch, samples]: the wave alone."""

    left = 1

    def __init__(self, hop: int) -> None:
        super().__init__()
        self.up = hop

    def forward(self, x: Tensor) -> Tensor:
        half = self.up // 2
        return x[:, : self.up].transpose(1, 2).flatten(1)[:, self.up - half : -half]
