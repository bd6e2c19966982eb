"""CAF, Apple's Core Audio Format."""

from __future__ import annotations

import struct

from melcap.io.audio.errors import audio_error, require_channels
from melcap.io.audio.formats.chunks import require_metadata, samples_end, walk
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.recording import Recording


def scan(file: AudioInput, at: int) -> list[Recording]:
    """Return the recording of a file in which a CAF begins at byte `at`."""
    samples, kind, declared, exact = None, b"", None, False
    width, whole = 0, file.size
    for chunk in walk(file, at + 8, ">4sq", align=1):
        if chunk.name == b"desc":
            kind, _, width, _, channels = struct.unpack(">8x4s4I", file.read_at(chunk.body, 28))
            require_channels(file.name, channels)
        elif chunk.name == b"pakt":
            declared, priming = struct.unpack(">8xqi", file.read_at(chunk.body, 20))
            exact = priming == 0
        elif chunk.name == b"data":
            samples = chunk
            end = samples_end(file, chunk, chunk.length)
            if end == file.size:
                break
        elif samples is not None and not require_metadata(file, chunk, samples):
            whole = chunk.start
            break
    if samples is None or not kind:
        raise audio_error(file.name, "is damaged or cut short: it has no format or no samples")
    if kind in (b"lpcm", b"alaw", b"ulaw") and width:
        length = (end - samples.body - 4) // width
        return [Recording(at, whole, "caf", length, exact=True, sndfile=True)]
    return [Recording(at, whole, "caf", declared, exact=exact, sndfile=True)]
