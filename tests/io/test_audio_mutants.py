"""Files of every container and codec, damaged in every way: whatever is read is not much shorter.

Header fields without a checksum are left alone: in a wav, a flipped bit of the sample rate is
another sample rate. Left out as well is a cut where nothing declares a length (see
`melcap.io.audio`).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from melcap import audio
from melcap.errors import AudioFileError
from tests.io.audio_files import RATE, ffmpeg, sndfile, sound

SECONDS = 1
SLACK = 0.1 * RATE
MADE: dict[str, Callable[[], bytes]] = {
    f"{kind} {subtype}".strip(): lambda kind=kind, subtype=subtype: sndfile(  # type: ignore[misc]
        sound(1, SECONDS * RATE), format=kind, subtype=subtype or None
    )
    for kind, subtype in (
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("WAV", "ULAW"),
        ("WAV", "MS_ADPCM"),
        ("RF64", "PCM_24"),
        ("W64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AIFF", "IMA_ADPCM"),
        ("CAF", "PCM_16"),
        ("CAF", "ALAC_16"),
        ("AU", "PCM_16"),
        ("NIST", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", ""),
    )
} | {
    f"{muxer} {codec} {'pipe' * pipe}".strip(): (
        lambda muxer=muxer, codec=codec, pipe=pipe: ffmpeg(  # type: ignore[misc]
            sound(1, SECONDS * RATE), muxer, codec, pipe=pipe
        )
    )
    for muxer, codec, pipe in (
        ("mp4", "aac", False),
        ("mp4", "flac", False),
        ("mov", "pcm_s16le", False),
        ("webm", "libopus", False),
        ("webm", "libopus", True),
        ("matroska", "aac", False),
        ("matroska", "libmp3lame", True),
        ("ogg", "flac", False),
        ("flac", "flac", True),
        ("mp3", "libmp3lame", False),
        ("mp3", "libmp3lame", True),
        ("mp2", "mp2", False),
        ("adts", "aac", False),
        ("caf", "alac", False),
        ("wav", "libmp3lame", False),
    )
}
CHECKED = ("FLAC PCM_16", "flac flac pipe", "OGG VORBIS", "OGG OPUS", "ogg flac", "mp4 flac")
"""Formats with checksums: a flipped bit of sound is no sound, though it may lie in padding."""
TAG = b"TAG" + b"title".ljust(125, b"\0")


@cache
def made(name: str) -> tuple[bytes, bytes]:
    """A file, and the samples in it."""
    data = MADE[name]()
    wave, _ = audio.read(io.BytesIO(data))
    assert wave.shape[1] >= SECONDS * RATE
    return data, wave.tobytes()


def outcome(data: bytes) -> bytes | None:
    """The samples, or None if the file is refused, in a sentence."""
    try:
        wave, rate = audio.read(io.BytesIO(data))
    except AudioFileError as error:
        message = str(error)
        assert message.startswith("<stream> ")
        assert message.endswith(".")
        assert "\n" not in message
        assert "-" not in message.split(" bytes")[0]  # no negative counts
        return None
    assert rate == RATE
    return wave.tobytes()


def length(samples: bytes) -> int:
    return len(samples) // 4


@pytest.mark.parametrize("name", MADE)
def test_a_cut_file_is_refused_or_whole(name: str) -> None:
    data, whole = made(name)
    for tenth in range(10):
        found = outcome(data[: len(data) * (2 * tenth + 1) // 20 + 3 * tenth + 2])
        assert found is None or length(found) > length(whole) - SLACK, tenth
    found = outcome(data[:-1])
    assert found is None or length(found) > length(whole) - SLACK


@pytest.mark.parametrize("name", MADE)
def test_a_file_with_a_hole_is_refused_or_whole(name: str) -> None:
    data, whole = made(name)
    for at in (len(data) // 4, len(data) // 2):
        for hole in (997, 4096):
            found = outcome(data[:at] + data[at + hole :])
            assert found is None or length(found) > length(whole) - SLACK, (at, hole)


@pytest.mark.parametrize("name", MADE)
def test_tags_and_zeros_behind_a_file_change_nothing(name: str) -> None:
    data, whole = made(name)
    assert outcome(data + TAG) == whole
    found = outcome(data + bytes(1000))
    assert found is not None
    np.testing.assert_allclose(
        np.frombuffer(found, np.float32), np.frombuffer(whole, np.float32), atol=1e-5
    )


@pytest.mark.parametrize("name", MADE)
def test_other_bytes_behind_a_file_are_refused_or_change_nothing(name: str) -> None:
    data, whole = made(name)
    assert outcome(data + np.random.default_rng(1).bytes(1000)) in (None, whole)


@pytest.mark.parametrize("name", MADE)
def test_a_file_joined_with_itself_is_refused_or_read_twice(name: str) -> None:
    data, whole = made(name)
    found = outcome(data + data)
    assert found is None or length(found) == 2 * length(whole)


@pytest.mark.parametrize("name", MADE)
def test_a_flipped_bit_costs_no_sound_in_silence(name: str) -> None:
    data, whole = made(name)
    chance = np.random.default_rng(2)
    for at in range(len(data) // 10, len(data) - len(data) // 10, len(data) // 12):
        flipped = bytearray(data)
        flipped[at] ^= 1 << chance.integers(8)
        found = outcome(bytes(flipped))
        if name in CHECKED:
            assert found in (None, whole), at
        assert found is None or length(found) > length(whole) - SLACK, at
