"""Sources of decoded samples, and the check that they give as many as the file declares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from melcap.io.audio.errors import audio_error
from melcap.io.resample import FloatArray

SLACK_SECONDS = 0.1
"""Seconds that may be missing where a declared length is not exact."""


class Source(Protocol):
    """A decoder at the start of a recording.

    Attributes:
        sample_rate: The rate in Hz.
        channels: The number of channels.
        samples: The declared length per channel, or None.
        at_least: The number of samples below which something is missing.
        limit: The sample from which on all is padding, or None.
        spare: The number of samples of padding that may follow `limit`.
    """

    sample_rate: int
    channels: int
    samples: int | None
    at_least: float
    limit: int | None
    spare: int

    def skip(self, samples: int) -> int:
        """Skip up to so many samples and return how many were skipped; call it before `blocks`."""
        ...

    def blocks(self, size: int) -> Iterator[FloatArray]:
        """Yield float32 [channels, size], the last one shorter."""
        ...

    def close(self) -> None:
        """Close the decoder."""
        ...


def checked_blocks(source: Source, name: str, size: int, done: int = 0) -> Iterator[FloatArray]:
    """Yield the blocks of a source without padding, after `done` samples that were skipped.

    Raises:
        AudioFileError: At the end, where fewer or more samples came than the file declares.
    """
    padding = 0
    for block in source.blocks(size):
        if source.limit is not None:
            padding += max(0, done + block.shape[1] - source.limit)
            block = block[:, : source.limit - done]
        if block.shape[1]:
            done += block.shape[1]
            yield block
    if padding > source.spare:
        what = f"declares {done} samples, and {padding} follow; correct its header"
        raise audio_error(name, what)
    if done < source.at_least:
        what = f"is cut short or has gaps: it ends after {done} of {source.samples} samples"
        raise audio_error(name, what)


def reblocked(pieces: Iterator[FloatArray], channels: int, size: int) -> Iterator[FloatArray]:
    """Yield pieces of any length as blocks [channels, size], the last one shorter."""
    block = np.empty((channels, size), dtype=np.float32)
    fill = 0
    for piece in pieces:
        start = 0
        while start < piece.shape[1]:
            count = min(size - fill, piece.shape[1] - start)
            block[:, fill : fill + count] = piece[:, start : start + count]
            start, fill = start + count, fill + count
            if fill == size:
                yield block
                block, fill = np.empty_like(block), 0
    if fill:
        yield block[:, :fill].copy()
