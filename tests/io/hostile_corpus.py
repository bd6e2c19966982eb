"""A folder of files that audio collections should not hold, and do.

    python -m tests.io.hostile_corpus FOLDER

`make` returns what each must become: `GOOD` names with (sample rate, channels, samples), `BAD`
names with a part of the reason.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import tarfile
from pathlib import Path

import numpy as np
import soundfile

from tests.bulk.helpers import wave

LONG = 15 * 60 * 8000
"""The samples of the longest clip, a quarter of an hour at 8 kHz."""
GOOD: dict[str, tuple[int, int, int]] = {
    "a flac.wav": (44100, 1, 4410),
    "an mp3.flac": (44100, 1, 4410),
    "one sample.wav": (44100, 1, 1),
    "192 kHz.wav": (192000, 1, 19200),
    "1 kHz.wav": (1000, 1, 100),
    "8 channels.wav": (48000, 8, 4800),
    "24 bit.flac": (44100, 2, 4410),
    "louder than full scale.wav": (44100, 1, 4410),
    "crashed recorder.wav": (44100, 1, 4410),
    "tagged.flac": (44100, 1, 4410),
    "two in one.ogg": (44100, 1, 8820),
    "long.wav": (8000, 1, LONG),
    "new\nline.wav": (44100, 1, 4410),
    "😀 émoji.wav": (44100, 1, 4410),
    " -rf.wav": (44100, 1, 4410),
    "caf\udce9.wav": (44100, 1, 4410),  # a byte that is no UTF-8
    "link.wav": (44100, 1, 4410),
    "shard.tar/inside.wav": (44100, 1, 4410),
    "cut.tar/inside.wav": (44100, 1, 4410),
    "deep/" * 20 + "down.wav": (44100, 1, 4410),
}
BAD: dict[str, str] = {
    "empty.wav": "empty file",
    "no samples.wav": "no audio samples",
    "truncated.mp3": "cut short",
    "truncated.wav": "cut short",
    "truncated.flac": "cut short",
    "truncated.ogg": "cut short",
    "one bit.ogg": "wrong checksum",
    "page.mp3": "not audio",
    "infinity.wav": "NaN or infinite",
    "not a number.wav": "NaN or infinite",
    "text.wav": "not audio",
    "picture.mp3": "not audio",
    "zip.opus": "not audio",
    "gone.wav": "No such file",
    "pipe.wav": "a pipe, not a regular file",
    "7 GHz.wav": "sample rate",
    "shard.tar/text.flac": "not audio",
    "cut.tar": "damaged",
    "not a tar.tar": "not a tar",
    "locked.wav": "Permission denied",
    "locked": "Permission denied",
}


def make(folder: Path) -> tuple[dict[str, tuple[int, int, int]], dict[str, str]]:
    """Make all of them in a new folder; nothing is locked for root, who may read everything."""
    folder.mkdir(parents=True)
    short = wave(0.1)[0]
    for name in (
        "new\nline.wav",
        "😀 émoji.wav",
        " -rf.wav",
        "caf\udce9.wav",
        "deep/" * 20 + "down.wav",
    ):
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + os.fsencode(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(short))
    (folder / "a flac.wav").write_bytes(encoded(short, kind="FLAC"))
    (folder / "an mp3.flac").write_bytes(encoded(short, kind="MP3", subtype="MPEG_LAYER_III"))
    (folder / "one sample.wav").write_bytes(encoded(short[:1]))
    (folder / "192 kHz.wav").write_bytes(encoded(wave(0.1, 192000)[0], 192000))
    (folder / "1 kHz.wav").write_bytes(encoded(wave(0.1, 1000)[0], 1000))
    (folder / "8 channels.wav").write_bytes(encoded(wave(0.1, 48000, 8).T, 48000))
    (folder / "24 bit.flac").write_bytes(
        encoded(wave(0.1, 44100, 2).T, kind="FLAC", subtype="PCM_24")
    )
    (folder / "louder than full scale.wav").write_bytes(encoded(short * 1e30, subtype="FLOAT"))
    _write_silence(folder / "long.wav", LONG, 8000)
    (folder / "link.wav").symlink_to("a flac.wav")

    (folder / "empty.wav").write_bytes(b"")
    (folder / "no samples.wav").write_bytes(encoded(short[:0]))
    crashed = bytearray(encoded(short))
    at = crashed.index(b"data")
    crashed[at + 4 : at + 8] = bytes(4)
    (folder / "crashed recorder.wav").write_bytes(crashed)
    tag = b"TAG" + bytes(125)
    (folder / "tagged.flac").write_bytes(encoded(short, kind="FLAC") + tag)
    ogg = encoded(short, kind="OGG", subtype="VORBIS")
    (folder / "two in one.ogg").write_bytes(ogg + ogg)
    flipped = bytearray(ogg)
    flipped[-9] ^= 1
    (folder / "one bit.ogg").write_bytes(flipped)
    (folder / "page.mp3").write_text("<!DOCTYPE html><title>404 Not Found</title>\n" * 100)
    long = wave(2.0)[0]
    for suffix, kind, subtype in (
        ("mp3", "MP3", "MPEG_LAYER_III"),
        ("wav", "WAV", "PCM_16"),
        ("flac", "FLAC", "PCM_16"),
        ("ogg", "OGG", "VORBIS"),
    ):
        whole = encoded(long, kind=kind, subtype=subtype)
        (folder / f"truncated.{suffix}").write_bytes(whole[: len(whole) // 2])
    for name, value in (("infinity", np.inf), ("not a number", np.nan)):
        spoilt = long.copy()
        spoilt[50000] = value
        (folder / f"{name}.wav").write_bytes(encoded(spoilt, subtype="FLOAT"))
    (folder / "text.wav").write_text("This is no audio.\n" * 100)
    (folder / "picture.mp3").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8)
    (folder / "zip.opus").write_bytes(b"PK\x03\x04" + bytes(2000))
    (folder / "gone.wav").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.wav")
    damaged = bytearray(encoded(short))
    damaged[24:28] = struct.pack("<I", 7_000_000)
    (folder / "7 GHz.wav").write_bytes(damaged)
    (folder / "not a tar.tar").write_bytes(b"x" * 5000)
    for name in ("shard.tar", "cut.tar"):
        with tarfile.open(folder / name, "w") as shard:
            for member, data in (("inside.wav", encoded(short)), ("text.flac", b"no audio" * 1000)):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
    whole = (folder / "cut.tar").read_bytes()
    (folder / "cut.tar").write_bytes(whole[: whole.index(b"text.flac") + 300])

    (folder / "loop").symlink_to(".")
    (folder / "deep" / "out").symlink_to("../..")
    (folder / "notes.txt").write_text("passed over")
    bad = dict(BAD)
    (folder / "locked.wav").write_bytes(encoded(short))
    (folder / "locked").mkdir()
    if os.getuid() == 0:
        (folder / "locked.wav").unlink()
        del bad["locked.wav"], bad["locked"]
    else:
        (folder / "locked.wav").chmod(0)
        (folder / "locked").chmod(0)
    return dict(GOOD), bad


def encoded(
    samples: np.ndarray, rate: int = 44100, kind: str = "WAV", subtype: str = "PCM_16"
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def _write_silence(path: Path, samples: int, rate: int) -> None:
    """A wav of zeros that takes no room on the disk."""
    size = 2 * samples
    fields = (b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size)
    header = struct.pack("<4sI4s4sIHHIIHH4sI", *fields)
    path.write_bytes(header)
    os.truncate(path, len(header) + size)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
