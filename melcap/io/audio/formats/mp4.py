"""MP4 and QuickTime (mp4, m4a, m4b, mov, 3gp), whose boxes have sizes that show what is cut off."""

from __future__ import annotations

from melcap.io.audio.errors import audio_error
from melcap.io.audio.formats.tags import is_padding
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.recording import Recording

FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")
"""The names that the first box of a file may have."""
_MOST = 1_000_000
"""The most boxes that are checked."""


def scan(file: AudioInput, at: int) -> list[Recording]:
    """Return the recording of a file in which boxes begin at byte `at`.

    Only the boxes are checked here; FFmpeg reads the tables in them.

    Raises:
        AudioFileError: For a box that is cut, for more than a million boxes, and for what FFmpeg
            would skip: bytes that are no box, and a second file.
    """
    start, count = at, 0
    for _ in range(_MOST + 1):
        if at >= file.size:
            break
        head = file.read_at(at, 16)
        size, name = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        elif size == 0:  # to the end of the file
            size = file.size - at
        missing = at + size - file.size
        named = name.isascii() and all(letter >= 0x20 for letter in name)
        if (size < 8 or missing > 0 or not named) and is_padding(file, at):
            break
        if size < 8 or not named:
            raise audio_error(file.name, f"is damaged: there is no mp4 box at byte {at}")
        if missing > 0:
            box = name.decode("ascii")
            raise audio_error(
                file.name,
                f"is cut short: {missing} of {size} bytes of its last box ({box}) are missing",
            )
        count += name == b"moov"
        if count > 1:
            raise audio_error(file.name, f"is several mp4 files in one; split it at byte {at}")
        at += size
    else:
        raise audio_error(file.name, f"is damaged: it has more than {_MOST} boxes")
    if not count:
        raise audio_error(file.name, "is damaged or cut short: it has no table of samples (moov)")
    return [Recording(start, file.size, "mov")]
