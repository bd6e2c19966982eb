"""NIST SPHERE: a header of text, and samples."""

from __future__ import annotations

import re

from melcap.io.audio.errors import require_channels
from melcap.io.audio.formats.chunks import Chunk, require_padding, samples_end
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.recording import Recording


def scan(file: AudioInput, at: int) -> list[Recording]:
    """Return the recording of a file in which a NIST SPHERE header begins at byte `at`."""
    header = file.read_at(at, 1024)
    start = at + int(header[8:16])
    fields = dict(re.findall(rb"(\w+) -(?:i|s\d+) ([^\n]*)", header.partition(b"end_head")[0]))
    samples, channels = int(fields[b"sample_count"]), int(fields.get(b"channel_count", 1))
    require_channels(file.name, channels)
    if b"," in fields.get(b"sample_coding", b""):  # compressed
        return [Recording(at, file.size, "nistsphere", samples, exact=True)]
    length = samples * channels * int(fields.get(b"sample_n_bytes", 2))
    end = samples_end(file, Chunk(b"NIST", at, start, length), length)
    require_padding(file, end, length)
    return [Recording(at, end, "nistsphere", samples, exact=True, sndfile=True)]
