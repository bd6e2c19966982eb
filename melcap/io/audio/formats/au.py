"""AU, also called SND, and several of them in a row."""

from __future__ import annotations

import struct

from melcap.io.audio.errors import require_channels
from melcap.io.audio.formats.chunks import Chunk, require_padding, samples_end
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.recording import Recording

_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
"""Bytes of a sample by encoding: mu-law, PCM of 8 to 32 bits, float, double, A-law."""


def scan(file: AudioInput, at: int) -> list[Recording]:
    """Return the recordings of a file in which an AU begins at byte `at`."""
    recordings: list[Recording] = []
    while at < file.size:
        order = ">" if file.read_at(at, 4) == b".snd" else "<"
        offset, length, kind, _, channels = struct.unpack(f"{order}4x5I", file.read_at(at, 24))
        require_channels(file.name, channels)
        first = at + offset
        if length == 0xFFFFFFFF:
            length = -1
        end = whole = samples_end(file, Chunk(b".snd", at, first, length), length)
        if file.read_at(end, 4) not in (b".snd", b"dns."):
            require_padding(file, end, end - first)
            whole = file.size
        width = channels * _WIDTHS.get(kind, 0)
        samples = (end - first) // width if width else None
        exact = samples is not None
        recordings.append(Recording(at, whole, "au", samples, exact=exact, sndfile=True))
        at = whole
    return recordings
