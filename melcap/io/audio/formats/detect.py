"""The choice of the scanner for a file, by its first bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable

from melcap.io.audio.errors import audio_error, reason
from melcap.io.audio.formats import aiff, asf, au, caf, flac, matroska, mp4, mpeg, nist, ogg, wav
from melcap.io.audio.formats.tags import after_id3v2
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.recording import Recording

_Scan = Callable[[AudioInput, int], list[Recording]]
_MAGIC: tuple[tuple[int, bytes, _Scan], ...] = (
    (0, b"RIFF", wav.scan),
    (0, b"RIFX", wav.scan),
    (0, b"RF64", wav.scan),
    (0, b"BW64", wav.scan),
    (0, b"riff\x2e\x91\xcf\x11", wav.scan),
    (0, b"FORM", aiff.scan),
    (0, b"caff", caf.scan),
    (0, b".snd", au.scan),
    (0, b"dns.", au.scan),
    (0, b"NIST_1A", nist.scan),
    (0, b"fLaC", flac.scan),
    (0, b"OggS", ogg.scan),
    (0, b"\x1a\x45\xdf\xa3", matroska.scan),
    (0, asf.MAGIC, asf.scan),
    *((4, name, mp4.scan) for name in mp4.FIRST),
)
"""The bytes that begin a format, where they stand, and the format's scanner."""


def scan(file: AudioInput) -> list[Recording]:
    """Return the recordings in a file, one at least.

    Raises:
        AudioFileError: For a file that is no audio, and for one that is cut or damaged as far as
            that shows without decoding.
    """
    if not file.size:
        raise audio_error(file.name, "is an empty file")
    start = after_id3v2(file, 0)
    head = file.read_at(start, 16)
    scans = [scan for at, name, scan in _MAGIC if head[at:].startswith(name)]
    try:
        return scans[0](file, start) if scans else mpeg.scan(file, start)
    except OSError as exc:
        raise audio_error(file.name, f"cannot be read ({reason(exc)})") from exc
    except (struct.error, IndexError, KeyError, ValueError) as exc:
        raise audio_error(file.name, "is damaged or cut short: its header is incomplete") from exc
