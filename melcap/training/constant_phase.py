"""Training through all Griffin-Lim steps of a decoder, with phases as constants to the gradient.

The gradient of a step passes through the phase of every bin, and the phase of a faint bin is nearly
undetermined. The gradient of sixteen steps is a hundred times that of the last one alone, and most
of it is noise (docs/ablations.md). Once the phases are found, however, the wave is a linear
function of the magnitudes in the last step. That part trains well on the output of all steps, and
the steps before it need no memory for a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from melcap.model.griffin_lim import GriffinLim
from melcap.model.stages import Stage


class ConstantPhase(Stage):
    """A stage of `steps` Griffin-Lim steps, with a gradient for the last one's magnitudes only.

    Args:
        n_fft: samples in a window.
        hop: samples from frame to frame.
        momentum: the momentum of the steps.
        steps: the number of steps.
    """

    def __init__(self, n_fft: int, hop: int, momentum: float, steps: int) -> None:
        super().__init__()
        self._waves = 2 * hop
        self._before = GriffinLim(n_fft, hop, momentum, steps - 1) if steps > 1 else None
        self._last = GriffinLim(n_fft, hop, momentum, 1)
        self._reach = self._before.left if self._before else 0
        self.left = self.right = self._reach + self._last.left

    def forward(self, x: Tensor) -> Tensor:
        """Run the steps: [batch, channels, frames] -> [batch, channels, frames - left - right]."""
        with torch.no_grad():
            found = self._before(x) if self._before else x.detach()
        magnitude = x[:, self._waves :, self._reach : x.shape[2] - self._reach]
        return self._last(torch.cat((found[:, : self._waves], magnitude), dim=1))


def with_constant_phase(stages: Sequence[Stage]) -> list[Stage]:
    """Return the stages with one `ConstantPhase` in the place of the Griffin-Lim steps among them.

    The steps must be neighbours, as they are in a vocoder. Without any step nothing changes.
    """
    steps = [stage for stage in stages if isinstance(stage, GriffinLim)]
    if not steps:
        return [*stages]
    one, first = steps[0], [*stages].index(steps[0])
    whole = ConstantPhase(one.n_fft, one.hop, one.momentum, sum(step.steps for step in steps))
    return [*stages[:first], whole, *stages[first + len(steps) :]]
