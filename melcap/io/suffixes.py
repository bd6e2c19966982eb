"""Suffixes of the files that are looked for in folders, archives and lists."""

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

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

TEXT_MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".scp")

MANIFEST_SUFFIXES = (
    ".parquet",
    *TEXT_MANIFEST_SUFFIXES,
    *(f"{suffix}.gz" for suffix in TEXT_MANIFEST_SUFFIXES),
)

TOKEN_SUFFIXES = (".parquet", ".tar", ".melcap")


def is_audio(name: str) -> bool:
    """Return whether a file of this name is taken for audio: by its suffix, unless it is hidden."""
    return name.lower().endswith(AUDIO_SUFFIXES) and not name.rpartition("/")[2].startswith(".")
