"""Suffixes of the files that are searched for in folders, archives and lists."""

from __future__ import annotations

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
"""The suffixes of audio files, in lower case. A file that is named itself may have any suffix."""

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""The suffixes of archives whose members are read."""

TEXT_MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".scp")
"""The suffixes of manifests that are text; `.gz` may follow."""

MANIFEST_SUFFIXES = (
    ".parquet",
    *TEXT_MANIFEST_SUFFIXES,
    *(f"{suffix}.gz" for suffix in TEXT_MANIFEST_SUFFIXES),
)
"""The suffixes of manifests, which are lists of clips."""

TOKEN_SUFFIXES = (".parquet", ".tar", ".melcap")
"""The suffixes of files that hold tokens."""


def is_audio(name: str) -> bool:
    """Return whether a file name has a suffix of audio and does not begin with a dot.

    Example:
        >>> from melcap.io.suffixes import is_audio
        >>> is_audio("songs/A.WAV"), is_audio("songs/.a.wav"), is_audio("a.txt")
        (True, False, False)
    """
    return name.lower().endswith(AUDIO_SUFFIXES) and not name.rpartition("/")[2].startswith(".")
