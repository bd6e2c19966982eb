"""Encode a batch of windows to tokens: the only place where bulk work calls the codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from melcap.bulk.reading.messages import Window
from melcap.codec import Codec
from melcap.errors import InputError
from melcap.model.stages import run
from melcap.ops.precision import exact_float32

# Columns are padded to a multiple, because oneDNN keeps code and memory for each length it meets.
_STEP = 16


@dataclass(frozen=True, eq=False)
class EncodedWindow:
    """The tokens of a window, uint16 [columns * rows], column by column."""

    clip: int
    channel: int
    index: int
    tokens: npt.NDArray[np.uint16]


@torch.no_grad()
@exact_float32()
def encode_windows(codec: Codec, windows: Sequence[Window]) -> list[EncodedWindow]:
    """Return the tokens of windows of any lengths, which `Codec.encode` gives for their clips.

    Args:
        codec: the codec, on the device that computes.
        windows: the windows of the batch; they are padded to the longest.

    Raises:
        InputError: if the device has not enough memory.
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
            f"{codec.device} has not enough memory for a batch of {seconds:.0f} s: use a smaller "
            "--batch-seconds"
        ) from error
    return [
        EncodedWindow(window.clip, window.channel, window.index, grid[: window.columns].reshape(-1))
        for window, grid in zip(windows, tokens, strict=True)
    ]
