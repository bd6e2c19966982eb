"""Wav files in RIFF, RIFX, RF64, BW64 and W64, and several of them in a row."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from melcap.io.audio.errors import audio_error, require_channels
from melcap.io.audio.formats import mpeg
from melcap.io.audio.formats.chunks import Chunk, next_start, require_metadata, samples_end, walk
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.recording import Recording

_HEADS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff")
_ALAW, _MULAW, _GSM = 6, 7, 0x31
_PLAIN = (1, 3, _ALAW, _MULAW)
"""PCM and similar formats, in which no sample depends on the ones before."""
_ADPCM = (2, 0x11)
_FRAMES = (0x50, 0x55, 0xFF, 0x1600)
"""Formats of frames that give their length: mp2, mp3, and AAC, which is readable only in ADTS."""
_EXTENSIBLE = 0xFFFE


@dataclass(frozen=True)
class _Form:
    """A chunk "fmt ": a block of `width` bytes has `each` samples per channel."""

    tag: int
    width: int
    each: int | None

    @staticmethod
    def read(file: AudioInput, chunk: Chunk, order: str) -> _Form:
        data = file.read_at(chunk.body, min(chunk.length, 40)).ljust(40, b"\0")
        tag, channels, _, _, width, bits = struct.unpack_from(f"{order}HHIIHH", data)
        (each,) = struct.unpack_from(f"{order}H", data, 18)
        if tag == _EXTENSIBLE:
            (tag,) = struct.unpack_from(f"{order}H", data, 24)
        require_channels(file.name, channels)
        if tag not in _PLAIN:
            return _Form(tag, width, 320 if tag == _GSM else each if tag in _ADPCM else None)
        least = channels * (1 if tag in (_ALAW, _MULAW) else -(-bits // 8))
        width = width or least  # some writers leave it out
        if not width or width < least or width % channels:
            raise audio_error(
                file.name,
                f"is damaged: {channels} channels of {bits} bits do not fit blocks of {width} "
                "bytes",
            )
        return _Form(tag, width, 1)


def scan(file: AudioInput, at: int) -> list[Recording]:
    """Return the recordings of a file in which a wav begins at byte `at`."""
    recordings: list[Recording] = []
    following: int | None = at
    while following is not None:
        found, following = _one(file, following)
        recordings += found
    return recordings


def _one(file: AudioInput, at: int) -> tuple[list[Recording], int | None]:
    """Return the recordings in one wav, and the byte at which the next wav begins, or None."""
    magic, kind = file.read_at(at, 4), file.read_at(at + 8, 4)
    is_w64 = magic == b"riff"
    if not is_w64 and kind != b"WAVE":
        raise audio_error(
            file.name, f"is not audio that melcap can read, but RIFF of type {kind!r}"
        )
    order = ">" if magic == b"RIFX" else "<"
    head, align = ("<16sq", 8) if is_w64 else (f"{order}4sI", 2)
    found: dict[bytes, Chunk] = {}
    for chunk in walk(file, at + (40 if is_w64 else 12), head, inclusive=is_w64, align=align):
        found[chunk.name] = chunk
        if chunk.name == b"data":
            break
    if not found.keys() >= {b"fmt ", b"data"}:
        raise audio_error(file.name, "is damaged or cut short: it has no format or no samples")
    form, samples = _Form.read(file, found[b"fmt "], order), found[b"data"]
    length, fact = samples.length, 0
    if b"fact" in found:
        field = file.read_at(found[b"fact"].body, 8 if is_w64 else 4)
        fact = int.from_bytes(field, "big" if order == ">" else "little")
    if b"ds64" in found and length == 0xFFFFFFFF:
        _, wide, fact = struct.unpack("<QQQ", file.read_at(found[b"ds64"].body, 24))
        length = wide if 0 < wide < 2**63 else length
    end = samples_end(file, samples, length)
    following = None
    first_after = next_start(file, end, -(end - samples.body) % align)
    for chunk in walk(file, first_after, head, inclusive=is_w64, align=align):
        if chunk.name in _HEADS:
            following = chunk.start
        if following or not require_metadata(file, chunk, samples):
            break
    if form.tag in _FRAMES:
        return mpeg.scan(file, samples.body, end), following
    recording = _recording(at, following or file.size, form, end - samples.body, fact)
    if is_w64:  # libsndfile would read what follows as samples
        recording = replace(recording, end=end, demuxer="w64")
    elif b"ds64" in found and length != end - samples.body:
        # Decoders fail on sizes of 64 bits that a recorder left open, so they get another header.
        fmt = file.read_at(found[b"fmt "].start, 8 + found[b"fmt "].length)
        header = b"RIFF\xff\xff\xff\xffWAVE" + fmt + b"data\xff\xff\xff\xff"
        recording = replace(recording, start=samples.body, head=header)
    return [recording], following


def _recording(at: int, end: int, form: _Form, length: int, fact: int) -> Recording:
    if not form.each or not form.width:
        return Recording(at, end, "wav", sndfile=True)
    if form.each == 1:
        return Recording(at, end, "wav", length // form.width, exact=True, sndfile=True)
    blocks = -(-length // form.width)
    least, most = (blocks - 1) * form.each, blocks * form.each
    # The last block is padded. The chunk "fact" gives the length, where its number is possible.
    exact = least < fact <= most
    slack = 2 * form.each
    return Recording(
        at, end, "wav", fact if exact else most, slack=slack, exact=exact, sndfile=True
    )
