"""The parts that a file of audio consists of, and what decodes one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from melcap.io.readers.errors import audio_error
from melcap.io.resample import FloatArray

CLEARLY = 0.1
"""Seconds that may be missing where a declared length is not exact."""


@dataclass(frozen=True)
class Part:
    """A recording in a file, from byte `start` to `end`, and what the file declares of it.

    Attributes:
        demuxer: FFmpeg's name of the format.
        samples: the length per channel, where it is declared; `slack` of them may be missing.
        seconds: the length where it is declared in time.
        exact: what is decoded behind `samples` is padding, of `slack` samples at most.
        sndfile: libsndfile may read it.
        head: what decoders are to read in front of it.
    """

    start: int
    end: int
    demuxer: str
    samples: int | None = None
    seconds: float | None = None
    slack: int = 0
    exact: bool = False
    sndfile: bool = False
    head: bytes = b""


class Source(Protocol):
    """A decoder at the start of a part.

    `at_least` is the number of samples below which something is missing. Samples from `limit` on
    are padding, if there are no more than `spare`.
    """

    sample_rate: int
    channels: int
    samples: int | None
    at_least: float
    limit: int | None
    spare: int

    def skip(self, samples: int) -> int:
        """Pass over up to so many samples, and return how many; before `blocks`."""
        ...

    def blocks(self, size: int) -> Iterator[FloatArray]:
        """Yield float32 [channels, size], the last one shorter."""
        ...

    def close(self) -> None: ...


def checked_blocks(source: Source, name: str, size: int, done: int = 0) -> Iterator[FloatArray]:
    """Yield the blocks of a source without padding, after `done` samples that were skipped.

    Raises:
        AudioFileError: at the end, where fewer samples came than the file declares.
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
