"""A batch of windows to tokens: the one place where bulk work meets the codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from melcap.bulk.messages import Window
from melcap.codec import Codec
from melcap.errors import InputError
from melcap.model.stages import run
from melcap.ops.precision import exact_float32

# Columns are filled up to a multiple: for each length that it meets, oneDNN keeps code and memory.
_STEP = 16


@dataclass(frozen=True, eq=False)
class Encoded:
    """The tokens of a window, uint16 [columns * rows], column by column."""

    clip: int
    channel: int
    index: int
    tokens: npt.NDArray[np.uint16]


@torch.no_grad()
@exact_float32()
def encode(codec: Codec, windows: Sequence[Window]) -> list[Encoded]:
    """The tokens of windows of any lengths: those that `Codec.encode` gives for their clips.

    Raises `InputError` where the device has not the memory.
    """
    longest = max(len(window.samples) for window in windows)
    longest += -max(window.columns for window in windows) % _STEP * codec.config.column_samples
    signal = np.zeros((len(windows), longest), np.float32)
    for row, window in zip(signal, windows, strict=True):
        row[: len(window.samples)] = window.samples
    try:
        latents = run(codec.encode_stages, torch.from_numpy(signal).to(codec.device))
        tokens = codec.codebook.tokens(latents).mT.cpu().numpy().astype(np.uint16)
    except torch.OutOfMemoryError as error:
        seconds = signal.size / codec.config.mel.sample_rate
        raise InputError(
            f"{codec.device} has not the memory for a batch of {seconds:.0f} s: use a smaller "
            "--batch-seconds"
        ) from error
    return [
        Encoded(window.clip, window.channel, window.index, grid[: window.columns].reshape(-1))
        for window, grid in zip(windows, tokens, strict=True)
    ]
