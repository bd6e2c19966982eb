"""Griffin-Lim steps built into the vocoder: its wave is made to agree with magnitudes it predicts.

A network that sees a stretch of mel cannot know where a wave's phase stands, and windows that
disagree cancel each other. So its wave is a `FirstGuess`, which comes with the magnitudes that its
STFT should have, and each step of `GriffinLim` puts them in: STFT, magnitudes replaced, inverse
STFT (Griffin and Lim 1984), with the momentum of Perraudin, Balazs and Sondergaard 2013. All of it
has gradients: the network learns the guess that is best after the steps.

Between these stages a frame is a column of channels: `hop` samples of the wave, as many of the wave
one step before, and `n_fft / 2 + 1` magnitudes. Frames are those of the log-mel, centred on their
hop; the samples of frame t are [t * hop + hop / 2, (t + 1) * hop + hop / 2), so that a window is
a whole number of such blocks. In memory a frame is one piece: the tensors are transposed views.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

from melcap.model.layers import in_full
from melcap.model.stages import Chain, Stage, inputs_for, outputs_of, run
from melcap.ops import griffin_lim

LOUDEST_LN_MAGNITUDE = 6.0
QUIET_LN_MAGNITUDE = -3.0
"""Where training starts: magnitudes of an untrained layer, about 1, would be deafening."""
TILE = 256
"""Frames at a time on a CPU: with what is made of them they fit the caches of two cores."""


class ByFrame(Stage):
    """A stage of as many steps as it is given, but for context, whose memory is frame by frame.

    On a CPU it works tile by tile: what passes from one operation to the next stays in the cache.
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.channels = 2 * hop + n_fft // 2 + 1

    def frames(self, x: Tensor) -> Tensor:
        """[batch, frames, channels] -> [batch, frames - left - right, channels]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.frames(x).transpose(1, 2)
        count = x.shape[1] - self.left - self.right
        full = torch.promote_types(x.dtype, torch.float32)
        made = x.new_empty(len(x), count, self.channels, dtype=full)
        for clip, begin in product(range(len(x)), range(0, count, TILE)):
            end = min(begin + TILE, count)
            tile = x[clip : clip + 1, begin : end + self.left + self.right]
            made[clip, begin:end] = self.frames(tile.contiguous())[0]
        return made.transpose(1, 2)


class FirstGuess(ByFrame):
    """[batch, channels, frames] -> [batch, 2 * hop + n_fft / 2 + 1, frames].

    Args:
        chain: gives the wave, [batch, channels, frames] -> [batch, samples], `hop` for a frame.
        channels, n_fft, hop: of what it is given, and of the STFT.
    """

    def __init__(self, chain: Chain, channels: int, n_fft: int, hop: int) -> None:
        super().__init__(n_fft, hop)
        self.chain = chain
        first, last = inputs_for([*chain], hop // 2, hop + hop // 2)
        self.left, self.right = -first, last - 1
        begin, _ = outputs_of([*chain], first, last)
        self._front = hop // 2 - begin
        self.magnitude = nn.Linear(channels, n_fft // 2 + 1)
        nn.init.constant_(self.magnitude.bias, QUIET_LN_MAGNITUDE)

    def frames(self, x: Tensor) -> Tensor:
        count = x.shape[1] - self.left - self.right
        wave = run(self.chain, x.transpose(1, 2))[:, self._front :][:, : count * self.hop]
        blocks = wave.unflatten(1, (count, self.hop))
        own = x[:, self.left : self.left + count]
        ln_magnitude = in_full(self.magnitude, own).clamp(max=LOUDEST_LN_MAGNITUDE)
        return torch.cat((blocks, blocks, ln_magnitude.exp()), dim=-1)


class GriffinLim(ByFrame):
    """[batch, 2 * hop + n_fft / 2 + 1, frames] -> the same for the frames that every step reaches.

    See `melcap.ops.griffin_lim`; each of the `steps` needs n_fft / hop - 1 frames on either side.
    """

    def __init__(self, n_fft: int, hop: int, momentum: float, steps: int) -> None:
        super().__init__(n_fft, hop)
        self.momentum, self.steps = momentum, steps
        self.left = self.right = steps * (n_fft // hop - 1)

    def frames(self, x: Tensor) -> Tensor:
        return griffin_lim(x, self.n_fft, self.hop, momentum=self.momentum, steps=self.steps)


class Unfold(Stage):
    """[batch, 2 * hop + n_fft / 2 + 1, frames] -> [batch, samples]: the wave alone."""

    left = 1

    def __init__(self, hop: int) -> None:
        super().__init__()
        self.up = hop

    def forward(self, x: Tensor) -> Tensor:
        half = self.up // 2
        return x[:, : self.up].transpose(1, 2).flatten(1)[:, self.up - half : -half]
