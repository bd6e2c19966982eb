"""Audio of any length to measure on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from melcap.audio import AudioReader
from melcap.errors import AudioFileError
from melcap.io.resample import resample

Clip = Callable[[float, int], Tensor]
"""A function of seconds and sample rate that returns [samples], float32."""
SYNTHETIC_SECONDS = 7.0


def synthetic(seconds: float, rate: int) -> Tensor:
    """Return a chord whose notes beat, over soft noise: the same samples in every run.

    The content of a clip does not change speeds. This one is neither silent nor constant, so the
    results of backends can be compared on it.
    """
    noise = torch.randn(round(SYNTHETIC_SECONDS * rate), generator=torch.Generator().manual_seed(0))
    times = torch.arange(len(noise)) / rate
    notes = [
        torch.sin(2 * math.pi * pitch * times) * torch.sin(math.pi * beat * times) ** 2
        for pitch, beat in ((220.0, 1.0), (277.2, 1.7), (329.6, 2.3), (3520.0, 0.6))
    ]
    return repeated(0.1 * torch.stack(notes).sum(0) + 0.01 * noise, round(seconds * rate))


def of_file(path: Path, longest: float) -> Clip:
    """Return the first channel of a file as a clip, which is cut or repeated to any length.

    Args:
        path: an audio file.
        longest: seconds of it that are read at most.

    Raises:
        AudioFileError: the file cannot be read, or holds no audio.
    """
    with AudioReader(path) as reader:
        source, left, blocks = reader.sample_rate, round(longest * reader.sample_rate), []
        for block in reader.blocks():
            blocks.append(torch.from_numpy(block[0, :left].copy()))
            left -= block.shape[1]
            if left <= 0:
                break
    wave = torch.cat(blocks) if blocks else torch.zeros(0)
    if not len(wave):
        raise AudioFileError(f"{path}: holds no audio")

    def clip(seconds: float, rate: int) -> Tensor:
        resampled = torch.from_numpy(resample(wave[None].numpy(), source, rate)[0])
        return repeated(resampled, round(seconds * rate))

    return clip


def repeated(wave: Tensor, samples: int) -> Tensor:
    """Return the wave [n] cut or repeated to so many samples."""
    return wave.repeat(-(-samples // len(wave)))[:samples]
