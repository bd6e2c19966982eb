"""Names of files and clips as text, the same on every machine."""

from __future__ import annotations

import os
import unicodedata


def is_url(path: str) -> bool:
    """Return whether a path is a URL."""
    return "://" in path


def absolute(path: str) -> str:
    """Return a path that does not depend on the working folder; URLs stay as they are."""
    return path if is_url(path) else os.path.abspath(path)


def text(name: str) -> str:
    r"""Return a file name as valid text: bytes that are not UTF-8 become escapes such as \xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def clip_id(name: str) -> str:
    """Return a name with forward slashes and no parts that lead out of a folder.

    Example:
        >>> clip_id("../recordings/./a.wav"), clip_id("s3://bucket/a.wav")
        ('recordings/a.wav', 'bucket/a.wav')
    """
    parts = text(name.partition("://")[2] or name).replace(os.sep, "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def file_key(name: str) -> str:
    """Return a key that is equal for names that some file systems take for the same file.

    Case is ignored, and so is the way in which an accent is encoded.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def media_fragment(start: float, seconds: float) -> str:
    """Return a stretch of a file as a W3C media fragment, or "" for the whole file.

    Args:
        start: the start of the stretch in seconds.
        seconds: its length; negative for a stretch up to the end of the file.

    Example:
        >>> media_fragment(12.5, 4.75), media_fragment(3.0, -1.0), media_fragment(0.0, -1.0)
        ('#t=12.5,17.25', '#t=3', '')
    """
    if start == 0 and seconds < 0:
        return ""
    ends = [start] if seconds < 0 else [start, start + seconds]
    return "#t=" + ",".join(f"{end:.6f}".rstrip("0").rstrip(".") for end in ends)
