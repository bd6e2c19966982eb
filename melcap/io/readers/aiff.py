"""AIFF and AIFC, and several of them in a row."""

from __future__ import annotations

import struct

from melcap.io.readers.chunks import require_metadata, require_padding, samples_end, walk
from melcap.io.readers.errors import audio_error, require_channels
from melcap.io.readers.opening import AudioInput
from melcap.io.readers.source import Part

# What one sample of a channel takes in bytes, where the bits of the header do not say it.
_WIDTHS = {b"fl32": 4, b"FL32": 4, b"fl64": 8, b"FL64": 8, b"alaw": 1, b"ALAW": 1}
_WIDTHS |= {b"ulaw": 1, b"ULAW": 1}
_BY_BITS = (b"NONE", b"twos", b"sowt", b"raw ", b"in24", b"in32", b"42ni", b"23ni")
_IMA4 = 64
"""Samples in a packet of Apple's ADPCM, which the header counts."""


def scan(file: AudioInput, at: int) -> list[Part]:
    """Return the recordings of a file in which an AIFF begins at byte `at`."""
    parts: list[Part] = []
    following: int | None = at
    while following is not None:
        part, following = _one(file, following)
        parts.append(part)
    return parts


def _one(file: AudioInput, at: int) -> tuple[Part, int | None]:
    kind = file.read_at(at + 8, 4)
    if kind not in (b"AIFF", b"AIFC"):
        raise audio_error(file.name, f"is not audio that melcap can read, but IFF of {kind!r}")
    samples, common, following = None, b"", None
    for chunk in walk(file, at + 12, ">4sI"):
        if chunk.name == b"FORM":
            following = chunk.start
            break
        if chunk.name == b"COMM":
            common = file.read_at(chunk.body, min(chunk.length, 22))
        elif chunk.name == b"SSND":
            samples = chunk
            end = samples_end(file, chunk, chunk.length)
            if end == file.size:
                break
        elif samples is not None and not require_metadata(file, chunk, samples):
            break
    if samples is None or len(common) < 18:
        raise audio_error(file.name, "is damaged or cut short: it has no format or no samples")
    channels, frames, bits = struct.unpack_from(">HIH", common)
    kind = common[18:22] or b"NONE"
    require_channels(file.name, channels)
    whole = following or file.size
    if kind == b"ima4":
        return Part(at, whole, "aiff", frames * _IMA4, exact=True, sndfile=True), following
    width = channels * (_WIDTHS.get(kind) or (-(-bits // 8) if kind in _BY_BITS else 0))
    if not width:
        return Part(at, whole, "aiff", sndfile=True), following
    (offset,) = struct.unpack(">I", file.read_at(samples.body, 4))
    first = samples.body + 8 + offset
    held = max(0, end - first)
    if frames == 0:  # the recorder did not come back to write it
        frames = held // width
    elif frames * width > held:
        raise audio_error(
            file.name, f"is cut short: it declares {frames} samples and holds {held // width}"
        )
    elif held - frames * width > 1:
        require_padding(file, first + frames * width, frames * width)
    return Part(at, whole, "aiff", frames, exact=True, sndfile=True), following
