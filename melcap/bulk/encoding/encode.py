"""Encode a batch of windows to tokens: the only place where bulk work calls the codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from melcap.audio_codec import AudioCodec
from melcap.base_codec import BaseCodec
from melcap.bulk.reading.messages import Window
from melcap.codec import Codec, require_own
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
def encode_windows(codec: AudioCodec, windows: Sequence[Window]) -> list[EncodedWindow]:
    """Return the tokens of windows, which `encode` of the codec gives for their clips.

    Args:
        codec: the codec, on the device that computes.
        windows: the windows of the batch. They are padded to the longest. For a codec of the
            published architecture they must have one length.

    Raises:
        InputError: if the device has not enough memory.
    """
    try:
        if isinstance(codec, BaseCodec):
            tokens = _of_one_length(codec, windows)
        else:
            tokens = _padded(require_own(codec, "melcap tokenize"), windows)
    except torch.OutOfMemoryError as error:
        seconds = sum(len(window.samples) for window in windows) / codec.sample_rate
        raise InputError(
            f"{codec.device} has not enough memory for a batch of {seconds:.0f} s: use a smaller "
            "--batch-seconds"
        ) from error
    grids = tokens.mT.cpu().numpy().astype(np.uint16)
    return [
        EncodedWindow(window.clip, window.channel, window.index, grid[: window.columns].reshape(-1))
        for window, grid in zip(windows, grids, strict=True)
    ]


def _padded(codec: Codec, windows: Sequence[Window]) -> Tensor:
    """Return the tokens [windows, rows, columns] of windows, with columns of the padding."""
    longest = max(len(window.samples) for window in windows)
    longest += -max(window.columns for window in windows) % _STEP * codec.config.column_samples
    signal = np.zeros((len(windows), longest), np.float32)
    for row, window in zip(signal, windows, strict=True):
        row[: len(window.samples)] = window.samples
    latents = run(codec.encode_stages, torch.from_numpy(signal).to(codec.device))
    return codec.codebook.tokens(latents)


def _of_one_length(codec: BaseCodec, windows: Sequence[Window]) -> Tensor:
    """Return the tokens [windows, rows, columns], from as many windows at once as `encode` takes.

    So a CPU computes the same sums as `encode` does, and the tokens are the same to the last bit.
    """
    signals = torch.from_numpy(np.stack([window.samples for window in windows]))
    return torch.cat([codec.tokens_of(some) for some in signals.split(codec.windows_at_once)])
