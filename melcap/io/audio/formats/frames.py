"""Chains of frames, of which mp3 and ADTS files consist, and whether they are whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from melcap.io.audio.errors import audio_error
from melcap.io.audio.formats.tags import after_tags, after_zeros
from melcap.io.audio.input_file import AudioInput

_HEAD = 64
"""Bytes that identify a frame, and show whether a recording begins with it."""
_SEARCHED = 1 << 16
"""Bytes before the first frame that may have any value."""
_SHORT = 8
"""Bytes that are too few for the head of a frame."""
_SURE = 4
"""Frames in a row that cannot be found by chance."""


@dataclass(frozen=True)
class Kind:
    """The properties that all frames of a recording share.

    Attributes:
        demuxer: FFmpeg's name of the format.
        rate: The sample rate in Hz.
        channels: The number of channels.
        samples: The samples per channel in a frame.
        more: Other fields of the header that do not change.
    """

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

    Attributes:
        kind: The kind of its frames.
        start: The first byte.
        end: The byte after the last whole frame.
        frames: The number of whole frames.
        missing: A lower bound on the bytes that are missing from a frame that is cut; else 0.
    """

    kind: Kind
    start: int
    end: int
    frames: int = 0
    missing: int = 0


def runs(
    file: AudioInput, at: int, end: int, parse: Parse, begins: Callable[[bytes], bool] | None
) -> list[Run]:
    """Return the recordings between two bytes; an empty list if no frame begins near the first.

    Args:
        file: The file.
        at: The byte at which the first recording begins, after zeros and up to 64 KiB of any bytes.
        end: The byte at which to stop.
        parse: Returns the length and the kind of the frame that bytes begin, or None.
        begins: Returns whether a frame is the first of a recording; None if that is not marked.

    Raises:
        AudioFileError: Where bytes that are no frames are followed by frames.
    """
    at = after_zeros(file, at)
    at = _first(file, at, min(end, at + _SEARCHED), end, parse)
    found: list[Run] = []
    while at < end:
        run = _run(file, at, end, parse, begins)
        found.append(run)
        if run.missing:
            break
        after = after_tags(file, run.end)
        if 0 < end - after < _SHORT and file.read_at(after, 1) == b"\xff":
            run.missing = 1  # at least: the head of a frame is cut
            break
        at = after if _count(file, after, end, parse) else end
        if at == end:
            junk = after_zeros(file, after)
            again = _first(file, junk, end, end, parse)
            if again < end:
                raise audio_error(
                    file.name,
                    f"is damaged: the {again - after} bytes from byte {after} on are no frames, "
                    "but frames follow",
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
    """Return where frames begin between `at` and `until`, or `end` if they do not."""
    if at < end and _count(file, at, end, parse):
        return at
    while (at := file.find(b"\xff", at, until)) >= 0:
        if _count(file, at, end, parse) == _SURE:
            return at
        at += 1
    return end


def _count(file: AudioInput, at: int, end: int, parse: Parse) -> int:
    """Return the number of frames of one kind in a row at a byte, `_SURE` at most.

    A single frame counts only if the file ends with it or tags follow.
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
    closed = at >= end or after_zeros(file, after_tags(file, at)) > at
    return count if count >= 2 or closed else 0
