"""Reading, writing and resampling: every format is made on the fly and compared with its source."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melcap import audio
from melcap.audio import AudioReader, AudioWriter, Resampler, resample, resampled_length
from melcap.errors import AudioFileError, InputError
from melcap.io.audio import writer as audio_writer
from melcap.io.resample import FloatArray
from tests.helpers import examples
from tests.io.audio_files import (
    RATE,
    Maker,
    av,
    ff,
    fidelity,
    sf,
    sound,
    soundfile,
    with_ffmpeg,
    with_soundfile,
)

pytest.importorskip("soxr")

# In ticks of one sample; ffmpeg's default of a millisecond rounds the length.
EXACT = {"movie_timescale": str(RATE)}
# name: file name, how it is made, least fidelity in dB
FORMATS: dict[str, tuple[str, Maker, float]] = {
    "wav 8": ("a.wav", sf(subtype="PCM_U8"), 25),
    "wav 16": ("a.wav", sf(subtype="PCM_16"), 70),
    "wav 24": ("a.WAV", sf(subtype="PCM_24"), 110),
    "wav float": ("a.wav", sf(subtype="FLOAT"), 190),
    "wav double": ("a.wav", sf(subtype="DOUBLE"), 190),
    "rf64": ("a.wav", sf(format="RF64"), 70),
    "big-endian wav": ("a.wav", sf(endian="BIG"), 70),
    "aiff": ("a.aiff", sf(), 70),
    "flac": ("a.flac", sf(), 70),
    "flac named wav": ("a.wav", sf(format="FLAC"), 70),
    "vorbis": ("a.ogg", sf(format="OGG", subtype="VORBIS", compression_level=0.0), 18),
    "opus": ("a.opus", sf(format="OGG", subtype="OPUS", compression_level=0.0), 18),
    "opus by ffmpeg": ("a.opus", ff("libopus", b="256k"), 18),
    "opus, long pages": (
        "a.ogg",
        ff("libopus", mux_options={"page_duration": "10000000"}, b="256k", frame_duration="40"),
        18,
    ),
    "mp3": ("a.mp3", sf(format="MP3"), 18),
    "mp3 by ffmpeg": ("a.mp3", ff("libmp3lame", b="320k"), 18),
    "m4a": ("a.m4a", ff("aac", mux_options=EXACT, b="256k"), 18),
    "m4a, header first": (
        "a.m4a",
        ff("aac", mux_options={"movflags": "faststart", **EXACT}, b="256k"),
        18,
    ),
    "m4a in fragments": (
        "a.m4a",
        ff("alac", mux_options={"movflags": "frag_keyframe", "frag_duration": "500000"}),
        80,
    ),
    "m4a lossless": ("a.m4a", ff("alac", mux_options=EXACT), 80),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_is_read_whole_and_in_place(name: str, channels: int, tmp_path: Path) -> None:
    file, make, least = FORMATS[name]
    samples = (4 if "long" in name else 1) * RATE + 123
    wave = sound(channels, samples)
    make(tmp_path / file, wave, RATE)

    with AudioReader(tmp_path / file) as reader:
        assert (reader.sample_rate, reader.channels) == (RATE, channels)
        assert reader.samples == samples
        blocks = list(reader.blocks(10_000))
    decoded, rate = audio.read(tmp_path / file)

    assert {block.shape for block in blocks[:-1]} == {(channels, 10_000)}
    assert all(block.dtype == np.float32 and block.flags.c_contiguous for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), decoded)
    assert decoded.shape == wave.shape
    assert rate == RATE
    assert fidelity(decoded, wave) > least
    assert fidelity(decoded[:, -2000:], wave[:, -2000:]) > min(least, 14)


@pytest.mark.parametrize("name", FORMATS)
def test_a_stretch_is_part_of_the_whole(name: str, tmp_path: Path) -> None:
    """Sample for sample, whether it is sought or decoded and passed over."""
    file, make, _ = FORMATS[name]
    make(tmp_path / file, sound(2, RATE + 123), RATE)
    whole, _ = audio.read(tmp_path / file)
    for first, until in ((0, 1), (0, None), (1, 20_001), (9_999, 10_001), (40_000, None)):
        with AudioReader(tmp_path / file) as reader:
            blocks = list(reader.blocks(10_000, first, until))
        assert all(0 < block.shape[1] <= 10_000 for block in blocks)
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole[:, first:until])


@pytest.mark.parametrize("name", ["flac", "vorbis", "m4a lossless"])
def test_a_stretch_beyond_the_end_is_refused(name: str, tmp_path: Path) -> None:
    """But for a tenth of a second: the numbers in a list are rounded."""
    file, make, _ = FORMATS[name]
    make(tmp_path / file, sound(1, RATE), RATE)

    def count(first: int, until: int | None) -> int:
        with AudioReader(tmp_path / file) as reader:
            return sum(block.shape[1] for block in reader.blocks(first=first, until=until))

    assert count(RATE - 7, RATE + RATE // 10) == 7
    for first, until, wanted in (
        (RATE - 7, RATE + RATE // 10 + 1, "1.00 s to 1.10 s"),
        (RATE, RATE + 1, "1.00 s to 1.00 s"),
        (2 * RATE, None, "2.00 s on"),
    ):
        with pytest.raises(AudioFileError, match=f"1.00 s long and cannot be read from {wanted}"):
            count(first, until)


@pytest.mark.parametrize("name", ["a.wav", "a.au"])
def test_what_lies_outside_a_stretch_is_not_looked_at(name: str, tmp_path: Path) -> None:
    """In wav it is sought, in au it is not."""
    wave = sound(1, RATE).copy()
    wave[0, [10, 900]] = np.nan
    with_soundfile(tmp_path / name, wave, RATE, subtype="FLOAT")
    with AudioReader(tmp_path / name) as reader:
        assert sum(block.shape[1] for block in reader.blocks(first=11, until=900)) == 889
    with AudioReader(tmp_path / name) as reader:
        with pytest.raises(AudioFileError, match="first at index 900"):
            list(reader.blocks(first=11, until=901))


@pytest.mark.parametrize("samples", [1, 2, 100, 312, 960, 1025])
@pytest.mark.parametrize(
    "name", ["wav 16", "flac", "vorbis", "opus", "opus by ffmpeg", "mp3", "m4a", "m4a lossless"]
)
def test_short_files_keep_their_length(name: str, samples: int, tmp_path: Path) -> None:
    file, make, _ = FORMATS[name]
    make(tmp_path / file, sound(1, samples), RATE)
    assert audio.read(tmp_path / file)[0].shape == (1, samples)


def test_m4a_with_a_length_in_milliseconds_is_right_to_the_millisecond(tmp_path: Path) -> None:
    for samples in (1025, 48_001, 96_257, 96_300):
        with_ffmpeg(tmp_path / "a.m4a", sound(1, samples), RATE, "aac")
        with AudioReader(tmp_path / "a.m4a") as reader:
            assert reader.samples is not None
            assert abs(reader.samples - samples) <= RATE / 1000
            decoded = np.concatenate(list(reader.blocks()), axis=1)
        assert samples - RATE / 1000 <= decoded.shape[1] <= samples


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 96000, 192000])
@pytest.mark.parametrize("name", ["wav 16", "flac", "vorbis"])
def test_the_sample_rate_is_that_of_the_file(name: str, rate: int, tmp_path: Path) -> None:
    file, make, _ = FORMATS[name]
    make(tmp_path / file, sound(2, 5000, rate), rate)
    decoded, found = audio.read(tmp_path / file)
    assert (decoded.shape, found) == ((2, 5000), rate)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("bit_rate", ["6k", "16k", "96k"])
def test_opus_gives_the_samples_of_the_reference_decoder(
    channels: int, bit_rate: str, tmp_path: Path
) -> None:
    """FFmpeg's own decoder differs by 0.1 and more in the speech modes."""
    path = tmp_path / "a.opus"
    with_ffmpeg(path, sound(channels, 3 * RATE), RATE, "libopus", b=bit_rate, application="voip")
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].T
    np.testing.assert_allclose(audio.read(path)[0], expected, atol=1e-6)


@pytest.mark.parametrize(("packet", "cut"), [("20", 0), ("2.5", 0), ("20", 10)])
def test_opus_copied_from_webm_is_read_whole_and_in_place(
    packet: str, cut: int, tmp_path: Path
) -> None:
    """Libsndfile 1.2.2: 24 samples late, 'malformed' part-way, 312 samples late."""
    wave = sound(2, 2 * RATE + 5)
    with_ffmpeg(tmp_path / "a.webm", wave, RATE, "libopus", b="256k", frame_duration=packet)
    with av.open(str(tmp_path / "a.webm")) as source, av.open(str(tmp_path / "a.opus"), "w") as out:
        stream = out.add_stream_from_template(source.streams.audio[0])
        for number, one in enumerate(source.demux(audio=0)):
            if number >= cut and one.dts is not None:
                one.stream = stream
                out.mux(one)
    decoded, _ = audio.read(tmp_path / "a.opus")
    rest = wave[:, cut * 960 :]
    assert abs(decoded.shape[1] - rest.shape[1]) <= 120  # webm counts milliseconds
    middle = slice(2000, RATE)
    assert fidelity(decoded[:, middle], rest[:, middle]) > 18


def test_ogg_files_in_a_row_are_read_to_the_end(tmp_path: Path) -> None:
    waves = [sound(2, RATE, seed=1), sound(2, 2 * RATE, seed=2)]
    joined = b""
    for wave in waves:
        with_ffmpeg(tmp_path / "part.ogg", wave, RATE, "libopus", b="256k")
        joined += (tmp_path / "part.ogg").read_bytes()
    (tmp_path / "a.ogg").write_bytes(joined)
    decoded, _ = audio.read(tmp_path / "a.ogg")
    assert decoded.shape == (2, 3 * RATE)
    assert fidelity(decoded[:, -RATE:], waves[1][:, -RATE:]) > 18

    for wave in waves:
        with_soundfile(tmp_path / "part", wave, RATE, format="OGG", subtype="VORBIS")
        joined = joined if wave is waves[1] else b""
        joined += (tmp_path / "part").read_bytes()
    (tmp_path / "b.ogg").write_bytes(joined)
    assert audio.read(tmp_path / "b.ogg")[0].shape[1] >= 3 * RATE


def tones(channels: int) -> FloatArray:
    """A tone of 40 + 10 c Hz in channel c; low enough for a subwoofer."""
    time = np.arange(2 * RATE) / RATE
    wave = [0.3 * np.sin(2 * np.pi * (40 + 10 * c) * time) for c in range(channels)]
    return np.asarray(wave, dtype=np.float32)


def pitches(wave: Any) -> list[int]:
    return [int(np.argmax(np.abs(np.fft.rfft(x[: 2 * RATE])))) // 2 for x in wave]


@pytest.mark.parametrize("channels", [6, 8])
@pytest.mark.parametrize("name", ["wav 16", "flac", "opus by ffmpeg", "m4a"])
def test_surround_channels_come_in_the_order_of_wav(
    name: str, channels: int, tmp_path: Path
) -> None:
    file, make, _ = FORMATS[name]
    make(tmp_path / file, tones(channels), RATE)
    assert pitches(audio.read(tmp_path / file)[0]) == [40 + 10 * c for c in range(channels)]


@pytest.mark.parametrize("channels", range(1, 9))
def test_vorbis_channels_come_in_the_order_of_wav(channels: int, tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    with_soundfile(path, tones(channels), RATE, format="OGG", subtype="VORBIS")
    interleave = av.AudioResampler(format="flt")
    with av.open(str(path)) as container:
        parts = [p for frame in container.decode(audio=0) for p in interleave.resample(frame)]
    expected = np.concatenate([p.to_ndarray().reshape(-1, channels).T for p in parts], axis=1)
    assert pitches(audio.read(path)[0]) == pitches(expected)
    assert sorted(pitches(expected)) == [40 + 10 * c for c in range(channels)]


@pytest.mark.slow
def test_blocks_hold_no_more_than_about_one_block(tmp_path: Path) -> None:
    wave = sound(1, 10 * RATE)  # 1.9 MB
    for name in ("wav 16", "opus by ffmpeg", "m4a"):
        file, make, _ = FORMATS[name]
        make(tmp_path / file, wave, RATE)
        with AudioReader(tmp_path / file) as reader:
            stream = reader.blocks(8192)
            next(stream)
            tracemalloc.start()
            assert sum(block.shape[1] for block in stream) == wave.shape[1] - 8192
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 300_000


# Files to damage in many ways, made once.
SEEDS: dict[str, bytes] = {}


def refused(path: Path) -> str:
    """The message of the one error that reading `path` may raise."""
    with pytest.raises(AudioFileError) as caught:
        audio.read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith(".")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("part", [0.3, 0.6, 0.965])
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_short_is_refused(name: str, part: float, tmp_path: Path) -> None:
    file, make, _ = FORMATS[name]
    make(tmp_path / file, sound(2, 3 * RATE), RATE)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[: int(part * len(whole))])
    refused(tmp_path / file)


@settings(max_examples=examples(40), deadline=None)
@given(cut=st.integers(1, 30_000))
def test_an_ogg_cut_anywhere_but_between_pages_is_refused(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("ogg") / "a.opus"
    if "ogg" not in SEEDS:
        with_ffmpeg(path, sound(1, 3 * RATE), RATE, "libopus", b="96k")
        SEEDS["ogg"] = path.read_bytes()
    whole = SEEDS["ogg"]
    cut = 1 + cut % (len(whole) - 1)
    path.write_bytes(whole[:-cut])
    if not whole[len(whole) - cut :].startswith(b"OggS\0"):
        refused(path)


@pytest.mark.parametrize("left", [1, 4, 5, 26, 27, 28])
def test_an_ogg_cut_in_the_head_of_a_page_is_refused(left: int, tmp_path: Path) -> None:
    path = tmp_path / "a.opus"
    with_ffmpeg(path, sound(1, 3 * RATE), RATE, "libopus", b="96k")
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"OggS\0") + left])
    assert "page is incomplete" in refused(path)


@pytest.mark.parametrize("name", ["m4a, header first", "m4a in fragments"])
def test_an_m4a_cut_between_two_packets_is_refused(name: str, tmp_path: Path) -> None:
    file, make, _ = FORMATS[name]
    path = tmp_path / file
    make(path, sound(1, 3 * RATE), RATE)
    with av.open(str(path)) as container:
        starts = [packet.pos for packet in container.demux(audio=0) if packet.pos is not None]
    path.write_bytes(path.read_bytes()[: starts[len(starts) // 2]])
    assert "is cut short" in refused(path)


def patched_wav(path: Path, size: int) -> None:
    with_soundfile(path, sound(2, RATE), RATE)
    data = bytearray(path.read_bytes())
    at = data.index(b"data")
    data[at + 4 : at + 8] = size.to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_recorders_placeholder_for_the_size_is_no_cut(size: int, tmp_path: Path) -> None:
    patched_wav(tmp_path / "a.wav", size)
    assert audio.read(tmp_path / "a.wav")[0].shape == (2, RATE)


def test_a_wav_one_sample_short_is_refused(tmp_path: Path) -> None:
    patched_wav(tmp_path / "a.wav", 4 * RATE + 4)
    assert "4 of 192004 bytes" in refused(tmp_path / "a.wav")


def test_streams_of_undeclared_length_are_read_to_their_end(tmp_path: Path) -> None:
    wave = sound(2, 3 * RATE + 5)
    with_soundfile(tmp_path / "a.flac", wave, RATE)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0  # the 36 bits of STREAMINFO that hold the length
    data[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    with AudioReader(tmp_path / "a.flac") as reader:
        assert reader.samples == wave.shape[1]  # counted
        assert sum(block.shape[1] for block in reader.blocks()) == wave.shape[1]

    with_ffmpeg(tmp_path / "a.mp3", wave, RATE, "libmp3lame", mux_options={"write_xing": "0"})
    with_ffmpeg(tmp_path / "a.aac", wave, RATE, "aac")
    for name in ("a.mp3", "a.aac"):
        with AudioReader(tmp_path / name) as reader:
            declared = reader.samples  # counted too
            total = sum(block.shape[1] for block in reader.blocks())
        assert total == declared
        assert wave.shape[1] <= total <= wave.shape[1] + 4 * 1152


@pytest.mark.parametrize("index", [0, 70_000, 95_999])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(index: int, value: float, tmp_path: Path) -> None:
    wave = sound(2, 2 * RATE).copy()
    wave[1, index] = value
    with_soundfile(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    assert f"index {index}." in refused(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".raw", ""])
@pytest.mark.parametrize(
    "content",
    [
        b"Dear diary, this is no audio at all.\n" * 99,
        b"x",
        b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        np.random.default_rng(0).bytes(20_000),
        b"OggS" + bytes(200),
        b"OggS",
        b"RIFF" + bytes(200),
        b"RF64\0\0\0\0WAVEds64" + bytes(9),
        b"fLaC" + bytes(200),
        b"ID3" + bytes(3),
    ],
)
def test_what_is_no_audio_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    refused(path)
    path.unlink()  # the handle is closed; matters where open files cannot be removed


def test_a_list_of_other_files_is_not_followed(tmp_path: Path) -> None:
    with_ffmpeg(tmp_path / "b.m4a", sound(1, RATE), RATE, "aac")
    (tmp_path / "a.wav").write_text("ffconcat version 1.0\nfile b.m4a\n")
    refused(tmp_path / "a.wav")


def test_tags_in_another_encoding_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    with_ffmpeg(path, sound(1, RATE), RATE, "aac")
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"\xe9\xff\xe9\xff"))
    assert audio.read(path)[0].shape == (1, RATE)


def test_missing_empty_and_impossible_files_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.wav")
    assert "folder" in refused(tmp_path)
    (tmp_path / "empty.wav").touch()
    assert "is an empty file" in refused(tmp_path / "empty.wav")
    with_soundfile(tmp_path / "zero.wav", np.zeros((2, 0), np.float32), RATE)
    assert "no audio samples" in refused(tmp_path / "zero.wav")
    with pytest.raises(AudioFileError, match="no audio samples"):
        AudioReader(tmp_path / "zero.wav")
    with_soundfile(tmp_path / "slow.wav", sound(1, 100), 999)
    assert "999 Hz" in refused(tmp_path / "slow.wav")
    with_soundfile(tmp_path / "wide.wav", np.zeros((65, 10), np.float32), RATE)
    assert "65 channels" in refused(tmp_path / "wide.wav")
    with_soundfile(tmp_path / "wide.wav", np.zeros((64, 10), np.float32), RATE)
    assert audio.read(tmp_path / "wide.wav")[0].shape == (64, 10)
    with_ffmpeg(tmp_path / "a.m4a", sound(1, RATE), RATE, "aac")
    known = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "a.m4a").write_bytes(known.replace(b"mp4a", b"xxxx").replace(b"esds", b"free"))
    assert "contains no audio" in refused(tmp_path / "a.m4a")


def test_a_video_without_sound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert "contains no audio" in refused(path)


@pytest.mark.parametrize("second", [(1, 48000), (2, 44100)])
def test_a_stream_that_changes_part_way_is_refused(second: tuple[int, int], tmp_path: Path) -> None:
    joined = b""
    for channels, rate in ((2, 48000), second):
        with_ffmpeg(tmp_path / "part.aac", sound(channels, RATE), rate, "aac")
        joined += (tmp_path / "part.aac").read_bytes()
    (tmp_path / "a.aac").write_bytes(joined)
    rate, channels = second[1], second[0]
    message = refused(tmp_path / "a.aac")
    assert f"48000 Hz with 2 channels up to 1.02 s, then {rate} Hz with {channels}" in message


def test_without_pyav_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("m4a", "opus by ffmpeg", "wav 16"):
        FORMATS[name][1](tmp_path / FORMATS[name][0], sound(1, RATE), RATE)
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install av" in refused(tmp_path / "a.m4a")
    assert "pip install av" in refused(tmp_path / "a.opus")
    assert audio.read(tmp_path / "a.wav")[0].shape == (1, RATE)


@settings(max_examples=examples(60), deadline=None)
@given(
    name=st.sampled_from(["wav float", "flac", "opus by ffmpeg", "m4a", "mp3"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    head=st.booleans(),
)
def test_damaged_files_raise_nothing_but_audio_file_errors(
    name: str,
    changes: list[tuple[float, int]],
    head: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file, make, _ = FORMATS[name]
    path = tmp_path_factory.mktemp("damaged") / file
    if name not in SEEDS:
        make(path, sound(2, 5000), RATE)
        SEEDS[name] = path.read_bytes()
    data = bytearray(SEEDS[name])
    for position, value in changes:
        data[int(position * (min(len(data), 300) if head else len(data)))] = value
    path.write_bytes(data)
    try:
        wave, _ = audio.read(path)
    except AudioFileError:
        return
    assert wave.size > 0
    assert np.isfinite(wave).all()


def test_a_reader_is_read_once_in_blocks_of_at_least_one(tmp_path: Path) -> None:
    with_soundfile(tmp_path / "a.wav", sound(1, 100), RATE)
    with AudioReader(tmp_path / "a.wav") as reader:
        with pytest.raises(InputError, match="at least 1"):
            list(reader.blocks(0))
        assert len(list(reader.blocks(1))) == 100
        with pytest.raises(InputError, match="once"):
            list(reader.blocks())


def folder_of(path: Path) -> list[str]:
    return sorted(os.listdir(path))


@pytest.mark.parametrize(("subtype", "bits"), [("PCM_16", 16), ("PCM_24", 24)])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.FLAC"])
def test_pcm_samples_survive_exactly(name: str, subtype: str, bits: int, tmp_path: Path) -> None:
    full = 2 ** (bits - 1)
    whole = np.random.default_rng(0).integers(-full, full, (3, 70_000))
    whole[:, :4] = [-full, full - 1, 0, -1]
    wave = (whole / full).astype(np.float32)
    assert audio.write(tmp_path / name, wave, 44100, subtype) == 0
    decoded, rate = audio.read(tmp_path / name)
    np.testing.assert_array_equal(decoded, wave)
    assert rate == 44100
    assert soundfile.info(tmp_path / name).subtype == subtype
    assert folder_of(tmp_path) == [name]


def test_float_samples_survive_exactly_beyond_full_scale(tmp_path: Path) -> None:
    wave = (100 * sound(8, 1000)).astype(np.float32)
    assert audio.write(tmp_path / "a.wav", wave, 192000, "FLOAT") == 0
    np.testing.assert_array_equal(audio.read(tmp_path / "a.wav")[0], wave)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_pcm_clips_and_counts_what_is_beyond_full_scale(subtype: str, tmp_path: Path) -> None:
    wave = np.array([[0.5, 1.0, -1.0, 1.01, -1.01, 3e38, -3e38]], dtype=np.float32)
    with AudioWriter(tmp_path / "a.wav", RATE, 1, subtype) as writer:
        writer.write(wave)
        writer.write(wave[:, :3])
        assert writer.clipped == 4
    decoded, _ = audio.read(tmp_path / "a.wav")
    np.testing.assert_allclose(decoded[0, :7], wave[0].clip(-1, 1), atol=2**-15)
    assert audio.write(tmp_path / "b.wav", wave, RATE, subtype) == 4


@settings(max_examples=examples(25), deadline=None)
@given(
    channels=st.integers(1, 8),
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=6),
    rate=st.integers(1000, 768_000),
    suffix=st.sampled_from([".wav", ".flac"]),
)
def test_blocks_written_are_the_file_read(
    channels: int,
    sizes: list[int],
    rate: int,
    suffix: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if suffix == ".flac" and rate > 65_535:
        rate = min(rate // 10 * 10, 655_350)
    wave = sound(channels, max(1, sum(sizes)))
    path = tmp_path_factory.mktemp("blocks") / f"a{suffix}"
    with AudioWriter(path, rate, channels) as writer:
        for start, size in zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=True):
            writer.write(wave[:, start : start + size])
        writer.write(wave[:, sum(sizes) :])
    decoded, found = audio.read(path)
    assert decoded.shape == wave.shape
    assert found == rate
    assert np.abs(decoded - wave).max() <= 2**-16


def test_an_exception_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), AudioWriter(path, RATE, 1) as writer:  # noqa: PT012 - the block is the test
        writer.write(sound(1, 1000))
        assert path.read_bytes() == b"old"  # not touched before the end
        raise KeyError
    with pytest.raises(InputError, match="NaN"):
        audio.write(path, np.array([[0.0, np.nan]], np.float32), RATE)
    assert folder_of(tmp_path) == ["a.wav"]
    assert path.read_bytes() == b"old"
    audio.write(path, sound(1, 1000), RATE)
    assert audio.read(path)[0].shape == (1, 1000)
    assert folder_of(tmp_path) == ["a.wav"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("a.mp3", {}, r"\.wav or \.flac"),
        ("a", {}, r"\.wav or \.flac"),
        ("a.flac", {"subtype": "FLOAT"}, "use PCM_16, PCM_24\\."),
        ("a.wav", {"subtype": "PCM_U8"}, "use PCM_16, PCM_24, FLOAT"),
        ("folder.wav", {}, "it is a folder"),
        ("none/a.wav", {}, "folder does not exist"),
        ("a.flac", {"channels": 9}, "cannot be written"),
        ("a.flac", {"sample_rate": 768_000}, "768000 Hz.* write .wav"),
        ("a.flac", {"sample_rate": 65_537}, "65537 Hz.* write .wav"),
        ("a.wav", {"samples": 0}, "no samples"),
        ("a.flac", {"samples": 0}, "no samples"),
    ],
)
def test_what_cannot_be_written_is_said_and_leaves_nothing(
    name: str, arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "folder.wav").mkdir()
    settings_ = {"sample_rate": RATE, "channels": 1, **arguments}
    block = np.zeros((settings_["channels"], settings_.pop("samples", 100)), np.float32)
    refusal = pytest.raises(AudioFileError, match=message)
    with refusal as caught, AudioWriter(tmp_path / name, **settings_) as writer:
        writer.write(block)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert folder_of(tmp_path) == ["folder.wav"]


@pytest.mark.parametrize(
    "block",
    [
        np.zeros(5, np.float32),
        np.zeros((2, 5), np.float32),
        np.zeros((1, 5)),
        np.zeros((1, 5), "i2"),
    ],
)
def test_blocks_of_another_shape_are_refused(block: Any, tmp_path: Path) -> None:
    bad_block = pytest.raises(InputError, match=r"float32 \[1, samples\]")
    with bad_block, AudioWriter(tmp_path / "a.wav", RATE, 1) as writer:
        writer.write(block)
    assert folder_of(tmp_path) == []
    for rate, channels in ((999, 1), (RATE, 0)):
        with pytest.raises(InputError):
            AudioWriter(tmp_path / "a.wav", rate, channels)
    with pytest.raises(InputError):
        audio.write(tmp_path / "a.wav", np.zeros(5, np.float32), RATE)


def test_a_wav_beyond_four_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_writer, "_WAV_LIMIT", 2000)
    audio.write(tmp_path / "a.wav", sound(1, 1000), RATE)
    audio.write(tmp_path / "a.flac", sound(1, 5000), RATE)
    with pytest.raises(AudioFileError, match=r"4 GiB .* write \.flac"):
        audio.write(tmp_path / "b.wav", sound(1, 1001), RATE)
    assert folder_of(tmp_path) == ["a.flac", "a.wav"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name in ("a.wav", "a.flac"):
        refusal = pytest.raises(AudioFileError, match=rf"{name} cannot be written \(.+\)\.$")
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        try:
            with refusal:
                audio.write(tmp_path / name, sound(1, 200_000), RATE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert folder_of(tmp_path) == []


rates = st.integers(8000, 192_000) | st.sampled_from([8000, 16000, 22050, 44100, 48000, 96000])


@settings(max_examples=examples(150), deadline=None)
@given(
    source=rates,
    target=rates,
    channels=st.integers(1, 8),
    sizes=st.lists(st.integers(0, 3000) | st.sampled_from([1, 256, 1024]), max_size=8),
    seed=st.integers(0, 9),
)
def test_the_length_is_exact_and_blocks_do_not_matter(
    source: int, target: int, channels: int, sizes: list[int], seed: int
) -> None:
    total = sum(sizes)
    wave = np.random.default_rng(seed).standard_normal((channels, total)).astype(np.float32)
    whole = resample(wave, source, target)
    assert whole.dtype == np.float32
    assert whole.shape == (channels, resampled_length(total, source, target))
    assert whole.shape[1] == -(-total * target // source)

    stream = Resampler(source, target, channels)
    ends = np.cumsum(sizes, dtype=int)
    pieces = [stream.push(wave[:, e - s : e]) for s, e in zip(sizes, ends, strict=True)]
    np.testing.assert_array_equal(np.concatenate([*pieces, stream.flush()], axis=1), whole)


@pytest.mark.parametrize(("source", "target"), [(44100, 48000), (48000, 44100), (44101, 191999)])
def test_long_signals_in_many_blocks(source: int, target: int) -> None:
    wave = sound(2, 300_001)
    stream = Resampler(source, target, 2)
    pieces = [stream.push(wave[:, i : i + 4321]) for i in range(0, wave.shape[1], 4321)]
    streamed = np.concatenate([*pieces, stream.flush()], axis=1)
    np.testing.assert_array_equal(streamed, resample(wave, source, target))
    assert streamed.shape[1] == -(-300_001 * target // source)


@pytest.mark.parametrize("source", [1000, 8000, 44100, 768_000])
@pytest.mark.parametrize("target", [1000, 11025, 44100, 768_000])
@pytest.mark.parametrize("samples", [1, 2, 500])
def test_extreme_rates_and_lengths(source: int, target: int, samples: int) -> None:
    out = resample(np.ones((1, samples), np.float32), source, target)
    assert out.shape == (1, max(1, -(-samples * target // source)))
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 2


@pytest.mark.parametrize("source", [8000, 44100, 48000, 192_000])
@pytest.mark.parametrize("target", [16000, 44100, 96000])
def test_a_tone_stays_in_place_and_level(source: int, target: int) -> None:
    def tone(rate: int) -> FloatArray:
        return np.sin(2 * np.pi * 997 * np.arange(rate)[None] / rate + 0.3).astype(np.float32)

    out = resample(tone(source), source, target)
    middle = slice(target // 4, 3 * target // 4)  # away from the edges of the signal
    assert np.abs(out - tone(target))[:, middle].max() < 2e-5


def test_what_a_lower_rate_cannot_hold_is_removed() -> None:
    tone = np.sin(2 * np.pi * 10_000 * np.arange(48000)[None] / 48000).astype(np.float32)
    assert np.abs(resample(tone, 48000, 16000))[:, 4000:-4000].max() < 1e-4


def test_equal_rates_hand_the_signal_through() -> None:
    wave = sound(2, 1000)
    assert resample(wave, 44100, 44100) is wave
    stream = Resampler(44100, 44100, 2)
    assert stream.push(wave) is wave
    assert stream.flush().shape == (2, 0)


@pytest.mark.parametrize("rate", [999, 768_001, 0, -44100, 44100.5, "44100", None])
def test_impossible_rates_are_refused(rate: Any) -> None:
    wave = sound(1, 10)
    for call in (
        lambda: resample(wave, rate, 44100),
        lambda: resample(wave, 44100, rate),
        lambda: resampled_length(10, rate, 44100),
        lambda: Resampler(44100, rate, 1),
    ):
        with pytest.raises(InputError, match=re.escape(repr(rate))):
            call()


def test_misuse_of_a_resampler_is_refused() -> None:
    with pytest.raises(InputError, match="channel"):
        Resampler(8000, 16000, 0)
    with pytest.raises(InputError, match="negative"):
        resampled_length(-1, 8000, 16000)
    with pytest.raises(InputError, match="channels, samples"):
        resample(np.zeros(5, np.float32), 8000, 16000)
    for target in (8000, 16000):
        stream = Resampler(8000, target, 2)
        bad: Any
        for bad in (np.zeros((1, 5), np.float32), np.zeros((2, 5)), np.zeros(2, np.float32)):
            with pytest.raises(InputError, match="float32"):
                stream.push(bad)
        stream.flush()
        with pytest.raises(InputError, match="flushed"):
            stream.flush()
        with pytest.raises(InputError, match="flushed"):
            stream.push(np.zeros((2, 5), np.float32))


def test_importing_the_module_loads_no_codec_library() -> None:
    program = "import sys, melcap.audio; print({'soundfile', 'soxr', 'av'} & set(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "set()\n"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a\xff.wav")
    audio.write(path, sound(1, 1000), RATE)
    assert audio.read(path)[0].shape == (1, 1000)
