"""The front end as a stage, from waveform to normalised log-mel."""

from __future__ import annotations

from torch import Tensor

from melcap.config import MelSpec
from melcap.model.stages import Stage
from melcap.ops import log_mel


class LogMel(Stage):
    """The log-mel of a wave: [batch, samples] -> [batch, n_mels, frames].

    There is one frame for each hop whose window lies within the samples.
    """

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.left = self.right = spec.margin
        self.down = spec.hop

    def forward(self, wave: Tensor) -> Tensor:
        """Return the log-mel [batch, n_mels, frames] of a wave [batch, samples]."""
        return log_mel(wave, self.spec, padding=(0, 0))
