"""Errors for files that cannot be read or written."""

from __future__ import annotations

from melcap.errors import AudioFileError
from melcap.limits import MAX_CHANNELS


def audio_error(name: str, what: str) -> AudioFileError:
    """Return the error whose message is the file's name followed by `what` and a full stop."""
    return AudioFileError(f"{name} {what}.")


def damaged(name: str, seconds: float, exc: Exception) -> AudioFileError:
    """Return the error for a decoder that failed after `seconds` of audio."""
    return audio_error(name, f"is damaged or cut short after {seconds:.2f} s ({reason(exc)})")


def require_channels(name: str, channels: int) -> None:
    """Refuse a number of channels outside 1 to 64.

    Raises:
        AudioFileError: It names the file and the bounds.
    """
    if not 1 <= channels <= MAX_CHANNELS:
        raise audio_error(name, f"has {channels} channels; 1 to {MAX_CHANNELS} are possible")


def reason(exc: Exception) -> str:
    """Return the text of a decoder's or the system's error, without paths and error numbers."""
    text = getattr(exc, "error_string", None) or getattr(exc, "strerror", None) or str(exc)
    text = str(text).strip().rstrip(".")
    if text.startswith("Error number"):  # FFmpeg has no text for it
        return "invalid data"
    return text or type(exc).__name__
