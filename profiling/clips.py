"""Real audio of any length."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from melcap.audio import read
from melcap.bench.clips import repeated
from melcap.io.resample import resample

CLIPS = Path(__file__).resolve().parents[1] / "examples" / "audio"


def clip(seconds: float, rate: int) -> Tensor:
    """Return the example clips one after the other, repeated to the length asked for: [samples]."""
    parts = []
    for path in sorted(CLIPS.glob("*.flac")):
        wave, source = read(path)
        parts.append(torch.from_numpy(resample(wave[:1], source, rate)[0]))
    return repeated(torch.cat(parts), round(seconds * rate))
