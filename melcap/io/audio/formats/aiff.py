"""AIFF and AIFC, and several of them in a row."""

from __future__ import annotations

import struct

from melcap.io.audio.errors import audio_error, require_channels
from melcap.io.audio.formats.chunks import require_metadata, require_padding, samples_end, walk
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.recording import Recording

_WIDTHS = {
    b"fl32": 4,
    b"FL32": 4,
    b"fl64": 8,
    b"FL64": 8,
    b"alaw": 1,
    b"ALAW": 1,
    b"ulaw": 1,
    b"ULAW": 1,
}
"""Bytes of one sample of a channel, by format, where the bits of the header do not give them."""
_BY_BITS = (b"NONE", b"twos", b"sowt", b"raw ", b"in24", b"in32", b"42ni", b"23ni")
"""Formats whose samples have the bits that the header gives."""
_IMA4 = 64
"""Samples in a packet of Apple's ADPCM; the header counts packets."""


def scan(file: AudioInput, at: int) -> list[Recording]:
    """Return the recordings of a file in which an AIFF begins at byte `at`."""
    recordings: list[Recording] = []
    following: int | None = at
    while following is not None:
        recording, following = _one(file, following)
        recordings.append(recording)
    return recordings


def _one(file: AudioInput, at: int) -> tuple[Recording, int | None]:
    kind = file.read_at(at + 8, 4)
    if kind not in (b"AIFF", b"AIFC"):
        raise audio_error(file.name, f"is not audio that melcap can read, but IFF of type {kind!r}")
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
        return Recording(at, whole, "aiff", frames * _IMA4, exact=True, sndfile=True), following
    width = channels * (_WIDTHS.get(kind) or (-(-bits // 8) if kind in _BY_BITS else 0))
    if not width:
        return Recording(at, whole, "aiff", sndfile=True), following
    (offset,) = struct.unpack(">I", file.read_at(samples.body, 4))
    first = samples.body + 8 + offset
    held = max(0, end - first)
    if frames == 0:  # the recorder has not filled it in
        frames = held // width
    elif frames * width > held:
        raise audio_error(
            file.name, f"is cut short: it declares {frames} samples and holds {held // width}"
        )
    elif held - frames * width > 1:
        require_padding(file, first + frames * width, frames * width)
    return Recording(at, whole, "aiff", frames, exact=True, sndfile=True), following
