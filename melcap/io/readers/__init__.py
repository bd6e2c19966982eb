"""Decoders of audio files: libsndfile, and FFmpeg where it falls short.

Each file is first looked through without a decoder (`wav`, `flac`, `ogg`, `mpeg` and so on), which
finds the recordings in it and what is declared of them. What decodes to clearly less is an error.

soundfile (libsndfile) reads what it can read whole, PyAV (FFmpeg) the rest: mp4, webm, aac, an mp3
that does not say its length, several recordings in a row, and Ogg Opus. Opus copied from webm or
cut makes libsndfile 1.2.2 stop part-way, or come up to 312 samples late, since it trusts page
positions where FFmpeg counts the samples to skip. On other files the two agree to 1e-6, given
PyAV's libopus: FFmpeg's own Opus decoder is a few samples off in the speech modes. Opus is always
48 kHz here, whatever rate it was made from.

Noticed, and refused:

- wav, rf64, w64, aiff, caf, au, NIST: sizes and counts that disagree, and samples behind the
  declared end.
- flac: any changed bit in a frame, and missing frames.
- ogg: any changed bit, and missing pages.
- mp3, mp2, aac: a broken chain of frames, and fewer frames than the file declares.
- mp4, webm, mkv, wma: boxes and elements that are cut, and less than the declared length.

Not noticed, because nothing in the file shows it:

- changed bits of samples in wav and its kind, and of sound within a frame of mp3 or aac or a packet
  of mp4, webm or wma: the length stays as it is.
- a cut exactly between two frames of mp3 or aac that declare no length, between two elements of a
  live recording (webm, mp4 in fragments), or between two pages of Ogg: phones do not mark the last
  page, so a missing mark says nothing.

Read to the end of the file: a wav whose size a recorder left open (0, or about 2 or 4 GiB), and all
that declares no length. Several recordings in a row (joined files, chained Ogg) are read as one if
they have one sample rate and one number of channels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from melcap.io.readers import aiff, asf, flac, matroska, mp4, mpeg, ogg, plain, wav
from melcap.io.readers.errors import audio_error, reason
from melcap.io.readers.opening import AudioInput
from melcap.io.readers.parts import Joined, open_part
from melcap.io.readers.source import Part, Source
from melcap.io.readers.tags import behind_id3v2

AUDIO_SUFFIXES = (
    ".wav",
    ".wave",
    ".rf64",
    ".bw64",
    ".w64",
    ".flac",
    ".aiff",
    ".aif",
    ".aifc",
    ".caf",
    ".au",
    ".snd",
    ".sph",
    ".ogg",
    ".oga",
    ".ogx",
    ".opus",
    ".spx",
    ".mp3",
    ".mp2",
    ".mpga",
    ".aac",
    ".m4a",
    ".m4b",
    ".m4r",
    ".mp4",
    ".m4v",
    ".mov",
    ".3gp",
    ".3g2",
    ".webm",
    ".weba",
    ".mka",
    ".mkv",
    ".wma",
    ".asf",
)
"""The names that files of audio have, where a folder is searched for them."""

_Scan = Callable[[AudioInput, int], list[Part]]
_MAGIC: tuple[tuple[int, bytes, _Scan], ...] = (
    (0, b"RIFF", wav.scan),
    (0, b"RIFX", wav.scan),
    (0, b"RF64", wav.scan),
    (0, b"BW64", wav.scan),
    (0, b"riff\x2e\x91\xcf\x11", wav.scan),
    (0, b"FORM", aiff.scan),
    (0, b"caff", plain.scan_caf),
    (0, b".snd", plain.scan_au),
    (0, b"dns.", plain.scan_au),
    (0, b"NIST_1A", plain.scan_nist),
    (0, b"fLaC", flac.scan),
    (0, b"OggS", ogg.scan),
    (0, b"\x1a\x45\xdf\xa3", matroska.scan),
    (0, asf.MAGIC, asf.scan),
    *((4, name, mp4.scan) for name in mp4.FIRST),
)


def open_source(file: AudioInput) -> Source:
    """Return the decoder for a file, chosen by its content.

    Raises:
        AudioFileError: for what is no audio, and for what is cut or damaged as far as that shows
            without decoding.
    """
    if not file.size:
        raise audio_error(file.name, "is an empty file")
    start = behind_id3v2(file, 0)
    head = file.read_at(start, 16)
    scans = [scan for at, name, scan in _MAGIC if head[at:].startswith(name)]
    try:
        parts = scans[0](file, start) if scans else mpeg.scan(file, start)
    except OSError as exc:
        raise audio_error(file.name, f"cannot be read ({reason(exc)})") from exc
    except (struct.error, IndexError, KeyError, ValueError) as exc:
        raise audio_error(file.name, "is damaged or cut short: its header is incomplete") from exc
    return open_part(file, parts[0]) if len(parts) == 1 else Joined(file, parts)
