"""Take Griffin-Lim steps with products of real matrices, as graph runtimes without an FFT can."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melcap.ops.dft import Grid, InverseRealDFT, RealDFT, windows_of
from melcap.ops.griffin_lim.reference import gain, inverse_window
from melcap.ops.numerics import hann_window


class FirstState(nn.Module):
    """The split of [batch, 2 * hop + n_fft / 2 + 1, frames] into a state for `GriffinLimStep`."""

    bins: Tensor

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.hop, self.grid = hop, Grid(n_fft)
        self.register_buffer("bins", self.grid.bins, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return wave, wave one step before, and magnitudes in the order of the `Grid`."""
        wave, before, magnitude = x.tensor_split((self.hop, 2 * self.hop), dim=1)
        wanted = magnitude[:, self.bins].unflatten(1, (self.grid.kept, 1, self.grid.columns))
        return wave, before, wanted


class GriffinLimStep(nn.Module):
    """One step of `melcap.ops.griffin_lim`, with frames as the last axis.

    It turns a state into the state of the frames that the step reaches. A state is the wave and the
    wave one step before, both [batch, hop, frames], and the wanted magnitudes in the `Grid` of the
    spectrum, [batch, kept, 1, columns, frames].
    """

    window: Tensor
    inverse: Tensor

    def __init__(self, n_fft: int, hop: int, momentum: float) -> None:
        super().__init__()
        self.n_fft, self.hop, self.momentum = n_fft, hop, momentum
        self.dft, self.inverse_dft = RealDFT(n_fft), InverseRealDFT(n_fft)
        cpu = torch.device("cpu")
        window = hann_window(n_fft, torch.float32, cpu)
        inverse = inverse_window(n_fft, hop, torch.float32, cpu)
        self.register_buffer("window", window[:, None], persistent=False)
        self.register_buffer("inverse", inverse[:, None], persistent=False)

    def forward(self, wave: Tensor, before: Tensor, wanted: Tensor) -> tuple[Tensor, ...]:
        """Return the next state."""
        blocks = self.n_fft // self.hop
        reach, lead = blocks - 1, blocks // 2
        moved = wave + self.momentum * (wave - before)
        windows = windows_of(moved, self.n_fft) * self.window
        spectrum = self.dft(windows)
        frames = windows.shape[-1]
        power = spectrum.square().sum(2, keepdim=True)
        spectrum = spectrum * gain(power, wanted[..., lead : lead + frames])
        parts = (self.inverse_dft(spectrum) * self.inverse).split(self.hop, dim=1)
        whole = frames - reach
        agreed = parts[reach][..., :whole]
        for k in range(1, blocks):
            agreed = agreed + parts[reach - k][..., k : k + whole]
        return agreed, wave[..., reach:-reach], wanted[..., reach:-reach]
