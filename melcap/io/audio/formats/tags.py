"""Tags before and after audio, in files of any format: ID3, APE and Lyrics3."""

from __future__ import annotations

from melcap.io.audio.input_file import AudioInput

_ZEROS = 1 << 16


def after_id3v2(file: AudioInput, at: int) -> int:
    """Return where the ID3v2 tags that begin at `at` end; `at` itself where there are none."""
    while at < file.size:
        head = file.read_at(at, 10)
        if len(head) < 10 or head[:3] != b"ID3" or 0xFF in head[3:5] or max(head[6:]) > 0x7F:
            break
        a, b, c, d = head[6:]
        at += 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if head[5] & 0x10 else 0)
    return min(at, file.size)


def after_tags(file: AudioInput, at: int) -> int:
    """Return where the tags that begin at `at` end."""
    while True:
        before = at
        at = after_id3v2(file, at)
        head = file.read_at(at, 32)
        if head.startswith(b"TAG"):
            at += 227 if head.startswith(b"TAG+") else 128
        elif head.startswith(b"APETAGEX") and len(head) == 32:
            is_header = head[23] & 0x20
            at += 32 + (int.from_bytes(head[12:16], "little") if is_header else 0)
        elif head.startswith(b"LYRICSBEGIN"):
            ends = [file.find(name, at, file.size) for name in (b"LYRICS200", b"LYRICSEND")]
            at = min((end + 9 for end in ends if end >= 0), default=at)
        if at == before:
            return min(at, file.size)


def after_zeros(file: AudioInput, at: int) -> int:
    """Return where the zero bytes that begin at `at` end."""
    while at < file.size:
        piece = file.read_at(at, _ZEROS)
        rest = piece.lstrip(b"\0")
        at += len(piece) - len(rest)
        if rest:
            break
    return at


def is_padding(file: AudioInput, at: int) -> bool:
    """Return whether nothing but tags and zero bytes follow from `at` on."""
    while at < file.size:
        before = at
        at = after_zeros(file, after_tags(file, at))
        if at == before:
            return False
    return True


def before_tags(file: AudioInput, start: int, end: int) -> int:
    """Return where the tags begin that end at `end`; `end` itself where there are none."""
    while True:
        before = end
        if _last(file, start, end, 128).startswith(b"TAG"):
            end -= 128
        foot = _last(file, start, end, 32)
        if foot[:8] == b"APETAGEX":
            has_header = foot[23] & 0x80
            end -= int.from_bytes(foot[12:16], "little") + (32 if has_header else 0)
        elif foot[-9:] == b"LYRICS200" and foot[-15:-9].isdigit():
            end -= int(foot[-15:-9]) + 15
        elif foot[-10:-7] == b"3DI":
            a, b, c, d = foot[-4:]
            end -= 20 + (a << 21 | b << 14 | c << 7 | d)
        if not start < end < before:
            return before


def before_zeros(file: AudioInput, start: int, end: int) -> int:
    """Return where the zero bytes begin that end at `end`."""
    while end > start:
        piece = file.read_at(max(start, end - _ZEROS), min(_ZEROS, end - start))
        end -= len(piece) - len(piece.rstrip(b"\0"))
        if piece.rstrip(b"\0"):
            break
    return end


def _last(file: AudioInput, start: int, end: int, count: int) -> bytes:
    """Return the last `count` bytes before `end`, or b"" where there are fewer after `start`."""
    return file.read_at(end - count, count) if end - count >= start else b""
