"""Audio that decoders read in part, in silence: all of it is read, or the file is refused."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import numpy as np
import pytest

from melcap import audio
from melcap.audio import AUDIO_SUFFIXES, AudioReader
from melcap.errors import AudioFileError
from melcap.io.resample import FloatArray
from tests.io.audio_files import RATE, av, ffmpeg, fidelity, sndfile, sound, with_soundfile

ID3V1 = b"TAG" + b"title".ljust(125, b"\0")
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8)
APE_WITH_HEADER = (
    b"APETAGEX"
    + struct.pack("<IIII", 2000, 42, 1, 0xA0000000)
    + bytes(8)
    + b"x" * 10
    + b"APETAGEX"
    + struct.pack("<IIII", 2000, 42, 1, 0x80000000)
    + bytes(8)
)
LYRICS = b"LYRICSBEGININD00002" + b"10" + b"000021LYRICS200"
ID3V2 = b"ID3\x04\0\0\x01\x40\0\0" + bytes(3 << 20)
"""A picture of 3 MB, as shops put one into their files."""


def read(data: bytes, folder: Path, name: str = "a") -> FloatArray:
    (folder / name).write_bytes(data)
    return audio.read(folder / name)[0]


def refusal(data: bytes, folder: Path) -> str:
    with pytest.raises(AudioFileError) as caught:
        read(data, folder)
    message = str(caught.value)
    assert message.startswith(str(folder / "a"))
    assert message.endswith(".")
    return message.removeprefix(f"{folder / 'a'} ")


def quiet_then_loud(seconds: int) -> FloatArray:
    """A length guessed from the size of the first frames is far off."""
    wave = sound(1, seconds * RATE).copy()
    wave[:, : seconds * RATE // 2] *= 0.002
    return wave


def without_xing(wave: FloatArray, **options: str) -> bytes:
    return ffmpeg(wave, "mp3", "libmp3lame", pipe=True, **options)


def test_an_mp3_of_unknown_length_and_varying_bit_rate_is_read_to_its_end(tmp_path: Path) -> None:
    wave = quiet_then_loud(8)
    decoded = read(without_xing(wave, q="4"), tmp_path)
    assert decoded.shape[1] >= wave.shape[1]
    assert fidelity(decoded[:, 1105:][:, : wave.shape[1]], wave) > 15


@pytest.mark.parametrize("lengths", [(1, 3), (3, 1), (2, 2)])
@pytest.mark.parametrize("between", [b"", ID3V1, ID3V2])
def test_joined_mp3s_are_read_to_the_end(
    lengths: tuple[int, int], between: bytes, tmp_path: Path
) -> None:
    waves = [sound(1, seconds * RATE, seed=seconds) for seconds in lengths]
    parts = [ffmpeg(wave, "mp3", "libmp3lame", b="192k") for wave in waves]
    decoded = read(between.join(parts), tmp_path)
    assert decoded.shape[1] == sum(lengths) * RATE
    assert fidelity(decoded, np.concatenate(waves, axis=1)) > 15
    with AudioReader(tmp_path / "a") as reader:
        assert reader.samples == sum(lengths) * RATE
        stretch = np.concatenate(list(reader.blocks(first=RATE - 10, until=RATE + 10)), axis=1)
    np.testing.assert_array_equal(stretch, decoded[:, RATE - 10 : RATE + 10])


@pytest.mark.parametrize("muxer", ["mp3", "opus", "flac", "wav", "adts", "webm"])
def test_recordings_in_a_row_are_read_as_one(muxer: str, tmp_path: Path) -> None:
    codecs = {"mp3": "libmp3lame", "opus": "libopus", "webm": "libopus", "adts": "aac"}
    codecs |= {"wav": "pcm_s16le", "flac": "flac"}
    one, two = (ffmpeg(sound(1, n * RATE), muxer, codecs[muxer]) for n in (1, 2))
    alone = [read(data, tmp_path).shape[1] for data in (one, two)]
    assert read(one + two + one, tmp_path).shape[1] == 2 * alone[0] + alone[1]


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_a_chain_of_ogg_streams_with_one_serial_number_is_read(codec: str, tmp_path: Path) -> None:
    waves = [sound(2, n * RATE, seed=n) for n in (1, 2)]
    # libsndfile's serial numbers are random
    one, two = (renumbered(sndfile(wave, format="OGG", subtype=codec), 7) for wave in waves)
    decoded = read(one + two + one, tmp_path)
    assert decoded.shape == (2, 4 * RATE)
    assert fidelity(decoded[:, RATE : 3 * RATE], waves[1]) > 10


@pytest.mark.parametrize("second", [(1, 44100), (2, RATE)])
@pytest.mark.parametrize("muxer", ["mp3", "ogg", "wav", "flac"])
def test_recordings_that_differ_are_refused_with_both(
    muxer: str, second: tuple[int, int], tmp_path: Path
) -> None:
    channels, rate = second
    if muxer == "ogg":
        parts = [
            sndfile(sound(c, r), r, format="OGG", subtype="VORBIS") for c, r in ((1, RATE), second)
        ]
    else:
        codec = {"mp3": "libmp3lame", "wav": "pcm_s16le", "flac": "flac"}[muxer]
        parts = [ffmpeg(sound(c, r), muxer, codec, r) for c, r in ((1, RATE), second)]
    message = refusal(b"".join(parts), tmp_path)
    assert f"48000 Hz with 1 channel up to 1.00 s, then {rate} Hz with {channels}" in message


def pages(data: bytes) -> list[bytes]:
    starts = [at for at in range(len(data)) if data.startswith(b"OggS\0", at)]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def checksum(page: bytes) -> int:
    """The definition in RFC 3533, bit by bit."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


def renumbered(data: bytes, serial: int) -> bytes:
    found = b""
    for page in pages(data):
        page = page[:14] + struct.pack("<I", serial) + page[18:22] + bytes(4) + page[26:]
        found += page[:22] + struct.pack("<I", checksum(page)) + page[26:]
    return found


def unmarked(data: bytes) -> bytes:
    """An Ogg as phones write it: its last page is not marked as such."""
    *first, last = pages(data)
    last = last[:5] + bytes([last[5] & 3]) + last[6:22] + bytes(4) + last[26:]
    return b"".join(first) + last[:22] + struct.pack("<I", checksum(last)) + last[26:]


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_pages_of_an_ogg_that_are_missing_or_too_many_are_refused(
    codec: str, tmp_path: Path
) -> None:
    data = sndfile(sound(1, 12 * RATE), format="OGG", subtype=codec)
    one = pages(data)
    assert len(one) > 5
    assert "Ogg pages are missing" in refusal(b"".join(one[:3] + one[4:]), tmp_path)
    assert "Ogg pages are missing" in refusal(b"".join([*one[:4], *one[3:]]), tmp_path)
    assert "after the end of its stream" in refusal(data + one[-1], tmp_path)
    assert "no Ogg page at byte" in refusal(data + b"something else", tmp_path)
    assert "no Ogg page at byte" in refusal(one[0] + b"x" + b"".join(one[1:]), tmp_path)
    assert read(data + ID3V1, tmp_path).shape == (1, 12 * RATE)
    # Without the mark FFmpeg leaves the end of the last packet of Opus on.
    assert 0 <= read(unmarked(data), tmp_path).shape[1] - 12 * RATE < 960


@pytest.mark.parametrize("bit", range(0, 64, 7))
@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_a_flipped_bit_in_an_ogg_is_refused(codec: str, bit: int, tmp_path: Path) -> None:
    data = bytearray(sndfile(quiet_then_loud(3), format="OGG", subtype=codec))
    data[len(data) * (bit + 1) // 66] ^= 1 << bit % 8
    assert "is damaged: " in refusal(bytes(data), tmp_path)


PCM = (sound(1, 2 * RATE)[0] * 32767).astype("<i2").tobytes()


def wav(size: int, sound_bytes: bytes, after: bytes = b"") -> bytes:
    form = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I4s4sI", size, b"WAVE", b"fmt ", 16)
        + form
        + struct.pack("<4sI", b"data", size)
        + sound_bytes
        + after
    )


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_of_a_recorder_that_crashed_is_read_to_its_end(size: int, tmp_path: Path) -> None:
    expected = np.frombuffer(PCM, "<i2").astype(np.float32) / 32768
    np.testing.assert_array_equal(read(wav(size, PCM), tmp_path), expected[None])


def test_a_long_wav_that_was_cut_is_no_recorders_wav(tmp_path: Path) -> None:
    assert "is cut short: 2999808000 of 3000000000 bytes" in refusal(
        wav(3_000_000_000, PCM), tmp_path
    )


@pytest.mark.parametrize("size", [0, -1])
def test_an_rf64_of_a_recorder_that_crashed_is_read_to_its_end(size: int, tmp_path: Path) -> None:
    data = bytearray(sndfile(sound(1, RATE), format="RF64", subtype="PCM_16"))
    at = data.find(b"ds64") + 8
    data[at : at + 24] = struct.pack("<qqq", size, size, size)
    assert read(bytes(data), tmp_path).shape == (1, RATE)


@pytest.mark.parametrize("muxer", ["wav", "aiff", "au", "w64", "caf", "flac", "ogg", "webm"])
def test_what_ffmpeg_writes_into_a_pipe_is_read_to_its_end(muxer: str, tmp_path: Path) -> None:
    codecs = {"flac": "flac", "ogg": "flac", "webm": "libopus", "aiff": "pcm_s16be"}
    codecs["au"] = "pcm_s16be"
    wave = sound(1, RATE + 77)
    decoded = read(ffmpeg(wave, muxer, codecs.get(muxer, "pcm_s16le"), pipe=True), tmp_path)
    assert decoded.shape == wave.shape
    assert fidelity(decoded, wave) > 14


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "after",
    [
        chunk(b"LIST", b"INFO" + bytes(90)),
        chunk(b"id3 ", b"x" * 31) + b"\0" + chunk(b"bext", bytes(602)),
        chunk(b"LIST", b"INFO" + bytes(90))[:50],
        ID3V1,
        APE,
        bytes(511),
    ],
)
def test_metadata_after_the_samples_of_a_wav_is_passed_over(after: bytes, tmp_path: Path) -> None:
    assert read(wav(len(PCM), PCM, after), tmp_path).shape == (1, 2 * RATE)


@pytest.mark.parametrize("declared", [2, RATE, 2 * RATE - 2])
def test_samples_after_the_declared_end_of_a_wav_are_refused(declared: int, tmp_path: Path) -> None:
    message = refusal(wav(declared, PCM), tmp_path)
    assert f"declares {declared} bytes of samples, but {len(PCM) - declared} more bytes" in message
    second = wav(len(PCM), PCM, chunk(b"LIST", b"INFO") + chunk(b"data", PCM))
    assert "second chunk of samples" in refusal(second, tmp_path)


def test_a_wav_with_contradictory_channels_is_refused_from_its_header(tmp_path: Path) -> None:
    data = bytearray(wav(len(PCM), PCM))
    for channels, reason in ((65, "65 channels"), (2000, "2000 channels"), (3, "do not fit")):
        data[22:24] = struct.pack("<H", channels)
        assert reason in refusal(bytes(data), tmp_path)


@pytest.mark.parametrize("codec", ["pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav", "g726"])
def test_other_codecs_in_wav_are_read(codec: str, tmp_path: Path) -> None:
    wave = sound(1, 2 * 8000, 8000)
    decoded = read(ffmpeg(wave, "wav", codec, 8000), tmp_path)
    assert 0 <= decoded.shape[1] - wave.shape[1] < 1024  # whole blocks
    assert fidelity(decoded[:, : wave.shape[1]], wave) > 8


def test_the_padding_of_a_block_is_cut_off_where_the_length_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for subtype in ("MS_ADPCM", "GSM610"):
        with_soundfile(path, sound(1, 16_001, 8000), 8000, subtype=subtype)
        data = bytearray(path.read_bytes())
        at = data.find(b"fact")
        assert at > 0
        data[at + 8 : at + 12] = struct.pack("<I", 16_010)
        assert read(bytes(data), tmp_path).shape == (1, 16_010)


def test_mp3_in_wav_is_read(tmp_path: Path) -> None:
    wave = quiet_then_loud(3)
    data = ffmpeg(wave, "wav", "libmp3lame", b="128k")
    decoded = read(data, tmp_path)
    assert fidelity(decoded[:, 1105:][:, : wave.shape[1]], wave) > 15
    assert "cut short" in refusal(data[: len(data) // 2], tmp_path)


def test_bw64_is_read(tmp_path: Path) -> None:
    data = sndfile(sound(1, RATE), format="RF64", subtype="PCM_16")
    assert read(b"BW64" + data[4:], tmp_path).shape == (1, RATE)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (0, ""),
        (RATE - 5, "declares 95990 bytes of samples, but 10 more bytes"),
        (RATE + 5, "declares 48005 samples and holds 48000"),
    ],
)
def test_an_aiff_whose_counts_disagree_is_refused(frames: int, reason: str, tmp_path: Path) -> None:
    data = bytearray(sndfile(sound(1, RATE), format="AIFF", subtype="PCM_16"))
    at = data.find(b"COMM")
    data[at + 10 : at + 14] = struct.pack(">I", frames)
    if frames == 0:  # the recorder did not come back to write it
        assert read(bytes(data), tmp_path).shape == (1, RATE)
    else:
        assert reason in refusal(bytes(data), tmp_path)


@pytest.mark.parametrize("size", [-1, 0, 2 * RATE - 20, 2 * RATE + 20])
def test_an_au_whose_size_is_wrong(size: int, tmp_path: Path) -> None:
    data = bytearray(sndfile(sound(1, RATE), format="AU", subtype="PCM_16"))
    data[8:12] = struct.pack(">i", size)
    if size <= 0:
        assert read(bytes(data), tmp_path).shape == (1, RATE)
    else:
        assert "20" in refusal(bytes(data), tmp_path)


def test_a_nist_file_whose_count_is_wrong_is_refused(tmp_path: Path) -> None:
    data = sndfile(sound(1, RATE), format="NIST", subtype="PCM_16")
    assert read(data, tmp_path).shape == (1, RATE)
    for count in (b"47990", b"48010"):
        other = data.replace(b"sample_count -i 48000", b"sample_count -i " + count)
        assert other != data
        assert "20 " in refusal(other, tmp_path)


TAGS_BEHIND = [ID3V1, APE, APE_WITH_HEADER, LYRICS + ID3V1, APE + ID3V1]


@pytest.mark.parametrize("tags", TAGS_BEHIND)
@pytest.mark.parametrize("kind", ["flac", "mp3", "raw mp3", "aac"])
def test_tags_before_and_after_the_sound_are_passed_over(
    kind: str, tags: bytes, tmp_path: Path
) -> None:
    wave = sound(1, RATE)
    data = {
        "flac": lambda: sndfile(wave, format="FLAC", subtype="PCM_16"),
        "mp3": lambda: sndfile(wave, format="MP3"),
        "raw mp3": lambda: without_xing(wave),
        "aac": lambda: ffmpeg(wave, "adts", "aac"),
    }[kind]()
    plain = read(data, tmp_path)
    np.testing.assert_allclose(read(data + tags, tmp_path), plain, atol=1e-5)
    np.testing.assert_allclose(read(ID3V2 + data + tags, tmp_path), plain, atol=1e-5)


def test_a_flac_whose_declared_length_is_wrong_is_refused(tmp_path: Path) -> None:
    data = bytearray(sndfile(sound(1, 3 * RATE), format="FLAC", subtype="PCM_16"))
    for samples in (3 * RATE - 5000, 3 * RATE + 5000):
        data[22:26] = struct.pack(">I", samples)
        message = refusal(bytes(data), tmp_path)
        assert str(samples) in message
        assert str(3 * RATE) in message


def test_a_streamed_flac_with_a_lost_frame_is_refused(tmp_path: Path) -> None:
    data = ffmpeg(sound(1, 3 * RATE), "flac", "flac", pipe=True)
    whole = read(data, tmp_path)
    assert whole.shape == (1, 3 * RATE)
    starts = [at for at in range(len(data)) if data.startswith(b"\xff\xf8", at)]
    frames = [at for at in starts if data[at + 2 : at + 4] == data[starts[0] + 2 : starts[0] + 4]]
    cut = data[: frames[4]] + data[frames[5] :]
    assert "are missing" in refusal(cut, tmp_path)


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".opus", ".wav", ".mp3", ".m4a"])
@pytest.mark.parametrize("change", [1000, -1000])
def test_a_file_that_grows_or_shrinks_while_it_is_read_is_refused(
    suffix: str, change: int, tmp_path: Path
) -> None:
    codecs = {".flac": "flac", ".ogg": "flac", ".opus": "libopus", ".wav": "pcm_s16le"}
    codecs |= {".mp3": "libmp3lame", ".m4a": "aac"}
    muxer = {".m4a": "mp4"}.get(suffix, suffix[1:])
    path = tmp_path / f"a{suffix}"
    path.write_bytes(ffmpeg(sound(1, 4 * RATE), muxer, codecs[suffix]))
    size = path.stat().st_size
    with AudioReader(path) as reader:
        blocks = reader.blocks(1000)
        next(blocks)
        os.truncate(path, size + change)
        verb = "grew" if change > 0 else "shrank"
        with pytest.raises(AudioFileError, match=f"{verb} while .* {size} bytes.* {size + change}"):
            list(blocks)


@pytest.mark.parametrize(
    ("muxer", "codec"),
    [
        ("webm", "libopus"),
        ("matroska", "aac"),
        ("matroska", "pcm_s16le"),
        ("mp4", "aac"),
        ("mp4", "flac"),
        ("mov", "pcm_s24le"),
        ("3gp", "aac"),
        ("caf", "alac"),
        ("mp2", "mp2"),
        ("w64", "pcm_s16le"),
        ("asf", "wmav2"),
    ],
)
def test_containers_of_video_and_old_formats_are_read(
    muxer: str, codec: str, tmp_path: Path
) -> None:
    wave = sound(1, 2 * RATE)
    options = {"b": "128k"} if codec == "wmav2" else {}
    data = ffmpeg(wave, muxer, codec, **options)
    decoded = read(data, tmp_path)
    frame = 2048 if codec == "wmav2" else 1152
    assert abs(decoded.shape[1] - 2 * RATE) <= frame
    assert "is cut short" in refusal(data[: len(data) * 3 // 5], tmp_path)


def test_a_webm_of_a_recorder_declares_no_length_and_is_read(tmp_path: Path) -> None:
    data = ffmpeg(sound(1, 3 * RATE), "webm", "libopus", pipe=True)
    assert read(data, tmp_path).shape == (1, 3 * RATE)
    with AudioReader(tmp_path / "a") as reader:
        assert reader.samples is None
    assert "is cut short" in refusal(data[:-100], tmp_path)
    assert "no Matroska element" in refusal(data[:9000] + data[9100:], tmp_path)


def test_a_webm_shorter_than_it_declares_is_refused(tmp_path: Path) -> None:
    data = bytearray(ffmpeg(sound(1, 2 * RATE), "webm", "libopus"))
    at = data.find(b"\x44\x89\x88")
    (milliseconds,) = struct.unpack(">d", data[at + 3 : at + 11])
    assert 2000 <= milliseconds < 2020
    data[at + 3 : at + 11] = struct.pack(">d", 3000)
    assert "ends after 96000 of 144000 samples" in refusal(bytes(data), tmp_path)


def test_fragments_without_a_total_are_read_and_a_cut_one_is_refused(tmp_path: Path) -> None:
    live = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "300000"}
    data = ffmpeg(sound(1, 3 * RATE), "mp4", "flac", pipe=True, mux_options=live)
    assert read(data, tmp_path).shape == (1, 3 * RATE)
    assert "is cut short" in refusal(data[: len(data) // 2], tmp_path)
    assert "several mp4 files" in refusal(data + data, tmp_path)


def test_an_mp4_of_too_many_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melcap.io.audio.formats.mp4._MOST", 50)
    data = ffmpeg(sound(1, RATE), "mp4", "flac")
    assert "more than 50 boxes" in refusal(data + 50 * b"\0\0\0\x08free", tmp_path)


@pytest.mark.parametrize("codec", ["alac", "flac"])
@pytest.mark.parametrize("samples", [40_000, 48_000, 49_000])
def test_the_last_packet_in_caf_is_read_whole(codec: str, samples: int, tmp_path: Path) -> None:
    wave = sound(1, samples)
    assert fidelity(read(ffmpeg(wave, "caf", codec), tmp_path), wave) > 60


def test_an_edit_list_is_kept(tmp_path: Path) -> None:
    """The encoder's delay is cut off at the start, and the padding at the end."""
    wave = sound(1, 2 * RATE)
    exact = {"movie_timescale": str(RATE)}
    data = ffmpeg(wave, "mp4", "aac", mux_options=exact, b="256k")
    decoded = read(data, tmp_path)
    assert decoded.shape == wave.shape
    assert fidelity(decoded, wave) > 18


def test_the_default_of_several_audio_tracks_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    waves = [sound(1, RATE, seed=seed) for seed in range(2)]
    for default in (0, 1):
        with av.open(str(path), "w") as container:
            streams = [container.add_stream("flac", rate=RATE, layout="mono") for _ in waves]
            streams[default].disposition = av.stream.Disposition.default
            streams[1 - default].disposition = av.stream.Disposition.dub
            for wave, stream in zip(waves, streams, strict=True):
                frame = av.AudioFrame.from_ndarray(wave, format="flt", layout="mono")
                frame.sample_rate, frame.pts = RATE, 0
                for packet in (*stream.encode(frame), *stream.encode(None)):
                    container.mux(packet)
        assert fidelity(audio.read(path)[0], waves[default]) > 60


@pytest.mark.parametrize("name", ["a.mp3", "a.aac", "a.wav", "a.webm"])
@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE html>\n<html><title>404 Not Found</title>" + "<p>No such file</p>\n" * 500,
        '{"error": "rate limit exceeded"}',
        "version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 12345\n",
    ],
)
def test_a_page_saved_as_audio_is_refused(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="is not audio"):
        read(text.encode(), tmp_path, name)


def test_an_mp3_cut_in_its_last_frame(tmp_path: Path) -> None:
    """One frame of those declared may be missing; where none are declared, a part of one tells."""
    wave = sound(1, 2 * RATE)
    declared = ffmpeg(wave, "mp3", "libmp3lame")
    assert 2 * RATE - read(declared[:-50], tmp_path).shape[1] <= 1152
    assert "is cut short: it ends after" in refusal(declared[:-2000], tmp_path)
    raw = without_xing(wave)
    whole = read(raw, tmp_path)
    assert "last frame is incomplete" in refusal(raw[:-50], tmp_path)
    np.testing.assert_array_equal(read(raw + b"rubbish" * 99, tmp_path), whole)


def test_frames_after_other_bytes_are_not_lost(tmp_path: Path) -> None:
    raw = without_xing(sound(1, 4 * RATE))
    middle = len(raw) // 2
    for damaged in (raw[:middle] + raw[middle + 500 :], raw[:middle] + bytes(999) + raw[middle:]):
        assert "are no frames, but frames follow" in refusal(damaged, tmp_path)


@pytest.mark.parametrize("frames", [5, 50])
def test_more_frames_than_an_mp3_declares_are_read(frames: int, tmp_path: Path) -> None:
    wave = quiet_then_loud(2)
    data = bytearray(ffmpeg(wave, "mp3", "libmp3lame", b="128k"))
    at = data.find(b"Info")
    data[at + 8 : at + 12] = struct.pack(">I", frames)
    decoded = read(bytes(data), tmp_path)
    assert fidelity(decoded[:, 1105:][:, : wave.shape[1]], wave) > 15


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "link.wav").symlink_to("fifo.wav")
    (tmp_path / "folder.wav").mkdir()
    places = [tmp_path / "fifo.wav", tmp_path / "link.wav", tmp_path / "folder.wav"]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.wav"))
        for path in (*places, tmp_path / "socket.wav", Path("/dev/zero")):
            with pytest.raises(AudioFileError, match=f"{path} is not a regular file, but a "):
                audio.read(path)
            with pytest.raises(AudioFileError, match="cannot be written: "):
                audio.write(path, sound(1, 10), RATE, format="wav")


@pytest.mark.parametrize(("channels", "size"), [(1, 1 << 16), (2, 1 << 16), (64, 1 << 11)])
def test_blocks_hold_no_more_for_many_channels(channels: int, size: int, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    audio.write(path, np.zeros((channels, 3 * size), np.float32), RATE)
    with AudioReader(path) as reader:
        assert next(reader.blocks()).shape == (channels, size)
    with AudioReader(path) as reader:
        assert next(reader.blocks(2 * size)).shape == (channels, 2 * size)


def test_suffixes_are_lower_case_and_begin_with_a_point() -> None:
    assert len(set(AUDIO_SUFFIXES)) == len(AUDIO_SUFFIXES)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in AUDIO_SUFFIXES)
    assert {".webm", ".mp4", ".m4b", ".caf", ".au", ".w64", ".aifc", ".mka"} <= set(AUDIO_SUFFIXES)
