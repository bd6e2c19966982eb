"""Files that are one frame behind the other: whether the chain of frames is whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from melcap.io.readers.errors import audio_error
from melcap.io.readers.opening import AudioInput
from melcap.io.readers.tags import behind_tags, behind_zeros

_HEAD = 64
"""Bytes that tell a frame, and whether a recording begins with it."""
_SEARCHED = 1 << 16
"""Bytes in front of the first frame that may be anything."""
_SHORT = 8
"""Bytes that are too few for the head of a frame."""
_SURE = 4
"""Frames in a row that are no chance."""


@dataclass(frozen=True)
class Kind:
    """The properties that all frames of a recording share."""

    demuxer: str
    rate: int
    channels: int
    samples: int
    more: tuple[int, int]


Frame = tuple[int, Kind]
Parse = Callable[[bytes], Frame | None]


@dataclass
class Run:
    """A recording: whole frames of one kind from byte `start` to `end`.

    `missing` bytes of one more frame, or more than so many, are cut off.
    """

    kind: Kind
    start: int
    end: int
    frames: int = 0
    missing: int = 0


def runs(
    file: AudioInput, at: int, end: int, parse: Parse, begins: Callable[[bytes], bool] | None
) -> list[Run]:
    """Return the recordings between two bytes; none where the first does not begin nearby.

    Args:
        file: the file.
        at: where the first recording begins, but for zeros and some bytes of anything.
        end: where to stop.
        parse: returns the length and the kind of the frame that bytes begin.
        begins: tells whether a frame is the first of a recording, where that can be seen.

    Raises:
        AudioFileError: where frames follow behind bytes that are none.
    """
    at = behind_zeros(file, at)
    at = _first(file, at, min(end, at + _SEARCHED), end, parse)
    found: list[Run] = []
    while at < end:
        run = _run(file, at, end, parse, begins)
        found.append(run)
        if run.missing:
            break
        behind = behind_tags(file, run.end)
        if 0 < end - behind < _SHORT and file.read_at(behind, 1) == b"\xff":
            run.missing = 1  # at least: the head of a frame is cut
            break
        at = behind if _count(file, behind, end, parse) else end
        if at == end:
            junk = behind_zeros(file, behind)
            again = _first(file, junk, end, end, parse)
            if again < end:
                raise audio_error(
                    file.name,
                    f"is damaged: the {again - behind} bytes from byte {behind} on are no frames, "
                    "and frames follow",
                )
    return found


def _run(
    file: AudioInput, at: int, end: int, parse: Parse, begins: Callable[[bytes], bool] | None
) -> Run:
    length, kind = parse(file.read_at(at, _HEAD)) or (0, None)
    assert kind is not None
    run = Run(kind, at, at)
    while True:
        if run.end + length > end:
            run.missing = run.end + length - end
            return run
        run.end += length
        run.frames += 1
        head = file.read_at(run.end, _HEAD)
        frame = parse(head)
        if frame is None or frame[1] is not kind or run.end >= end:
            return run
        if begins is not None and begins(head):
            return run
        length = frame[0]


def _first(file: AudioInput, at: int, until: int, end: int, parse: Parse) -> int:
    """Return where frames begin, searching up to a byte; `end` where they do not."""
    if at < end and _count(file, at, end, parse):
        return at
    while (at := file.find(b"\xff", at, until)) >= 0:
        if _count(file, at, end, parse) == _SURE:
            return at
        at += 1
    return end


def _count(file: AudioInput, at: int, end: int, parse: Parse) -> int:
    """Return how many frames of one kind stand in a row at a byte, `_SURE` at most.

    A single one counts if the file ends with it, or its tags follow.
    """
    count, kind = 0, None
    while count < _SURE and at < end:
        frame = parse(file.read_at(at, _HEAD))
        if frame is None or (kind is not None and frame[1] is not kind):
            break
        length, kind = frame
        at += length
        if at > end:
            break
        count += 1
    closed = at >= end or behind_zeros(file, behind_tags(file, at)) > at
    return count if count >= 2 or closed else 0
