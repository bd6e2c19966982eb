"""The description of a recording that a scan gives, before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recording:
    """A recording in a file, from byte `start` to `end`, and what the file declares of it.

    Attributes:
        start: The first byte.
        end: The byte after the last one.
        demuxer: FFmpeg's name of the format.
        samples: The declared length per channel, or None; `slack` of them may be missing.
        seconds: The length where it is declared in time, or None.
        slack: The number of samples that may be missing.
        exact: Whether all that is decoded after `samples` is padding, `slack` samples at most.
        sndfile: Whether libsndfile may read it.
        head: Bytes that the decoder is to read before `start`.
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
