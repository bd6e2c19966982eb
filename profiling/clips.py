"""Real audio of any length."""

from __future__ import annotations

import torch
from paths import AUDIO
from torch import Tensor

from melcap.audio import read
from melcap.bench.clips import repeated
from melcap.io.resample import resample


def clip(seconds: float, rate: int) -> Tensor:
    """Return the example clips one after the other, repeated to the length asked for: [samples]."""
    parts = []
    for path in sorted(AUDIO.glob("*.flac")):
        wave, source = read(path)
        parts.append(torch.from_numpy(resample(wave[:1], source, rate)[0]))
    return repeated(torch.cat(parts), round(seconds * rate))
