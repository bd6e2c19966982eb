"""CAF, AU and NIST SPHERE: samples behind a header that says how many there are."""

from __future__ import annotations

import re
import struct

from melcap.io.readers.chunks import Chunk, require_metadata, require_padding, samples_end, walk
from melcap.io.readers.errors import audio_error, require_channels
from melcap.io.readers.opening import AudioInput
from melcap.io.readers.source import Part

# AU's encodings with the bytes of a sample: mu-law, PCM of 8 to 32 bits, float, double, A-law
_AU_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}


def scan_caf(file: AudioInput, at: int) -> list[Part]:
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
        return [Part(at, whole, "caf", length, exact=True, sndfile=True)]
    return [Part(at, whole, "caf", declared, exact=exact, sndfile=True)]


def scan_au(file: AudioInput, at: int) -> list[Part]:
    """Return the recordings of a file in which an AU begins at byte `at`."""
    parts: list[Part] = []
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
        width = channels * _AU_WIDTHS.get(kind, 0)
        samples = (end - first) // width if width else None
        exact = samples is not None
        parts.append(Part(at, whole, "au", samples, exact=exact, sndfile=True))
        at = whole
    return parts


def scan_nist(file: AudioInput, at: int) -> list[Part]:
    """Return the recording of a file in which a NIST SPHERE header begins at byte `at`."""
    header = file.read_at(at, 1024)
    start = at + int(header[8:16])
    fields = dict(re.findall(rb"(\w+) -(?:i|s\d+) ([^\n]*)", header.partition(b"end_head")[0]))
    samples, channels = int(fields[b"sample_count"]), int(fields.get(b"channel_count", 1))
    require_channels(file.name, channels)
    if b"," in fields.get(b"sample_coding", b""):  # compressed
        return [Part(at, file.size, "nistsphere", samples, exact=True)]
    length = samples * channels * int(fields.get(b"sample_n_bytes", 2))
    end = samples_end(file, Chunk(b"NIST", at, start, length), length)
    require_padding(file, end, length)
    return [Part(at, end, "nistsphere", samples, exact=True, sndfile=True)]
