"""Griffin-Lim steps in the vocoder, which make its wave agree with magnitudes that it predicts.

A network that sees only a stretch of mel cannot know the absolute phase of a wave, and windows with
inconsistent phases cancel each other. So the network returns a `FirstGuess` of the wave, together
with the magnitudes of its STFT. Each step of `GriffinLim` takes the STFT, replaces its magnitudes,
and inverts it (Griffin and Lim 1984), with the momentum of Perraudin, Balazs and Sondergaard 2013.
All of this has gradients, so training finds the guess that is best after the steps.

Between these stages a frame is a vector of channels: `hop` samples of the wave, as many of the wave
one step before, and `n_fft / 2 + 1` magnitudes. Frames are those of the log-mel, centred on their
hop. The samples of frame t are [t * hop + hop / 2, (t + 1) * hop + hop / 2), so that a window is
a whole number of such blocks. A frame is contiguous in memory; the tensors are transposed views.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn

from melcap.model.layers import linear_in_float32
from melcap.model.stages import Chain, Stage, inputs_for, outputs_of, run
from melcap.ops import griffin_lim

LOUDEST_LN_MAGNITUDE = 6.0
"""The upper bound of the natural logarithm of magnitudes, which keeps their `exp` finite."""
QUIET_LN_MAGNITUDE = -3.0
"""The natural logarithm of magnitudes before training. A fresh layer returns about 0: too loud."""
TILE = 512
"""Frames that a CPU computes at a time; these and their intermediate results fit its caches."""
STEPS_OF_A_TILE, STEPS_OF_A_PIECE = 8, 4
"""Griffin-Lim steps that a CPU takes at once on a tile, and a stream on a piece (see
`melcap.model.stages.StageStream`), which is smaller. With fewer steps, more intermediate results go
through memory. With more, each tile or piece computes more context again. A GPU takes all at once.
"""


class ByFrame(Stage):
    """A stage that returns a frame for each frame it is given, except for context.

    On a CPU it works tile by tile, so that intermediate results stay in the cache.
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.channels = 2 * hop + n_fft // 2 + 1

    def frames(self, x: Tensor) -> Tensor:
        """Return [batch, frames - left - right, channels] for [batch, frames, channels]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return [batch, channels, frames - left - right] for [batch, channels, frames]."""
        x = x.transpose(1, 2)
        if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.frames(x).transpose(1, 2)
        for part in self.parts_of_a_tile():
            x = part.in_tiles(x)
        return x.transpose(1, 2)

    def parts_of_a_tile(self) -> Sequence[ByFrame]:
        """Return stages that do the same as this one, one after the other, each tile by tile."""
        return [self]

    def in_tiles(self, x: Tensor) -> Tensor:
        """Return what `frames` returns, tile by tile."""
        count = x.shape[1] - self.left - self.right
        full = torch.promote_types(x.dtype, torch.float32)
        made = x.new_empty(len(x), count, self.channels, dtype=full)
        for clip, begin in product(range(len(x)), range(0, count, TILE)):
            end = min(begin + TILE, count)
            tile = x[clip : clip + 1, begin : end + self.left + self.right]
            made[clip, begin:end] = self.frames(tile.contiguous())[0]
        return made


class FirstGuess(ByFrame):
    """The wave before the first step, and the magnitudes that its STFT should have.

    It turns [batch, channels, frames] into [batch, 2 * hop + n_fft / 2 + 1, frames].

    Args:
        chain: returns the wave, [batch, channels, frames] -> [batch, samples], `hop` per frame.
        channels: channels of the input.
        n_fft: samples of a window of the STFT.
        hop: samples from one frame to the next.
    """

    def __init__(self, chain: Chain, channels: int, n_fft: int, hop: int) -> None:
        super().__init__(n_fft, hop)
        self.chain = chain
        first, last = inputs_for([*chain], hop // 2, hop + hop // 2)
        self.left, self.right = -first, last - 1
        begin, _ = outputs_of([*chain], first, last)
        self._front = hop // 2 - begin  # samples of the chain before the first frame's block
        self.magnitude = nn.Linear(channels, n_fft // 2 + 1)
        nn.init.constant_(self.magnitude.bias, QUIET_LN_MAGNITUDE)

    def frames(self, x: Tensor) -> Tensor:
        """Return the frames of the guess for [batch, frames, channels]."""
        count = x.shape[1] - self.left - self.right
        wave = run(self.chain, x.transpose(1, 2))[:, self._front :][:, : count * self.hop]
        blocks = wave.unflatten(1, (count, self.hop))
        own = x[:, self.left : self.left + count]
        ln_magnitude = linear_in_float32(self.magnitude, own).clamp(max=LOUDEST_LN_MAGNITUDE)
        return torch.cat((blocks, blocks, ln_magnitude.exp()), dim=-1)


class GriffinLim(ByFrame):
    """A number of Griffin-Lim steps on [batch, 2 * hop + n_fft / 2 + 1, frames].

    See `melcap.ops.griffin_lim`. Each of the `steps` needs n_fft / hop - 1 frames on either side.
    """

    def __init__(self, n_fft: int, hop: int, momentum: float, steps: int) -> None:
        super().__init__(n_fft, hop)
        self.momentum, self.steps = momentum, steps
        self.left = self.right = steps * (n_fft // hop - 1)

    def parts(self) -> Sequence[GriffinLim]:
        """Return stages of up to `STEPS_OF_A_PIECE` steps that do the same one after the other."""
        return self._cut(STEPS_OF_A_PIECE)

    def parts_of_a_tile(self) -> Sequence[GriffinLim]:
        """Return stages of up to `STEPS_OF_A_TILE` steps that do the same one after the other."""
        return self._cut(STEPS_OF_A_TILE)

    def _cut(self, most: int) -> Sequence[GriffinLim]:
        """Return stages of up to `most` steps."""
        if self.steps <= most:
            return [self]
        first, rest = (
            GriffinLim(self.n_fft, self.hop, self.momentum, steps)
            for steps in (most, self.steps - most)
        )
        return [first, *rest._cut(most)]

    def frames(self, x: Tensor) -> Tensor:
        """Return the frames after all steps."""
        return griffin_lim(x, self.n_fft, self.hop, momentum=self.momentum, steps=self.steps)


class Unfold(Stage):
    """The wave of frames: [batch, 2 * hop + n_fft / 2 + 1, frames] -> [batch, samples]."""

    left = 1

    def __init__(self, hop: int) -> None:
        super().__init__()
        self.up = hop

    def forward(self, x: Tensor) -> Tensor:
        """Return the samples [batch, samples] of frames [batch, channels, frames]."""
        half = self.up // 2
        return x[:, : self.up].transpose(1, 2).flatten(1)[:, self.up - half : -half]
