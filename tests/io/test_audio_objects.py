"""Audio from and to file objects: memory, pipes, open files, members of archives."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melcap import audio
from melcap.audio import AudioReader, AudioWriter
from melcap.errors import AudioFileError, InputError
from melcap.io.audio import input_file
from tests.io.audio_files import RATE, ffmpeg, sndfile, sound

WAVE = sound(2, RATE)
WAV = sndfile(WAVE, format="WAV", subtype="FLOAT")


class Trickle(io.RawIOBase):
    """A stream that cannot seek, and gives seven bytes at a time, or fails at some point."""

    def __init__(self, data: bytes, fails_at: int | None = None) -> None:
        self.data = data
        self.at = 0
        self.fails_at = fails_at

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.fails_at is not None and self.at >= self.fails_at:
            raise OSError("the network is gone")
        piece = self.data[self.at : self.at + min(7, len(buffer))]
        buffer[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)


KINDS = ("memory", "trickle", "open", "unbuffered", "zip", "tar", "gzip")


def opened(kind: str, folder: Path, stack: ExitStack) -> Any:
    """The file a.wav in a folder, by another door."""
    if kind == "memory":
        return io.BytesIO(WAV)
    if kind == "trickle":
        return Trickle(WAV)
    if kind == "zip":
        with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(folder / "a.wav", "a.wav")
        return stack.enter_context(zipfile.ZipFile(folder / "a.zip")).open("a.wav")
    if kind == "tar":
        with tarfile.open(folder / "a.tar", "w:gz") as packed:
            packed.add(folder / "a.wav", "a.wav")
        shard = stack.enter_context(tarfile.open(folder / "a.tar"))  # noqa: SIM115 - the stack closes it
        return shard.extractfile("a.wav")
    if kind == "gzip":
        (folder / "a.gz").write_bytes(gzip.compress(WAV))
        return stack.enter_context(gzip.open(folder / "a.gz"))
    return stack.enter_context((folder / "a.wav").open("rb", 0 if kind == "unbuffered" else -1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_object_is_read_like_its_file(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(WAV)
    with ExitStack() as stack:
        file = opened(kind, tmp_path, stack)
        decoded, rate = audio.read(file)
        assert not file.closed
        assert not file.read(1)  # it was read to its end
        np.testing.assert_array_equal(decoded, WAVE)
        assert rate == RATE
        with AudioReader(opened(kind, tmp_path, stack)) as reader:
            (stretch,) = reader.blocks(first=100, until=200)
        np.testing.assert_array_equal(stretch, WAVE[:, 100:200])


@pytest.mark.parametrize(
    ("muxer", "codec"),
    [
        ("mp4", "aac"),
        ("opus", "libopus"),
        ("mp3", "libmp3lame"),
        ("flac", "flac"),
        ("caf", "alac"),
    ],
)
def test_every_decoder_takes_what_a_pipe_holds(muxer: str, codec: str, tmp_path: Path) -> None:
    data = ffmpeg(WAVE, muxer, codec)
    (tmp_path / "a").write_bytes(data)
    source, sink = os.pipe()
    with os.fdopen(sink, "wb") as writing, os.fdopen(source, "rb") as reading:
        thread = threading.Thread(target=lambda: (writing.write(data), writing.close()))
        thread.start()
        decoded, _ = audio.read(reading)
        thread.join()
    np.testing.assert_array_equal(decoded, audio.read(tmp_path / "a")[0])


def test_a_file_object_is_read_from_its_position_on(tmp_path: Path) -> None:
    path = tmp_path / "many.bin"
    path.write_bytes(b"header" + WAV)
    for file in (path.open("rb"), io.BytesIO(b"header" + WAV)):
        with file:
            file.seek(6)
            np.testing.assert_array_equal(audio.read(file)[0], WAVE)
    path.write_bytes(WAV)
    with path.open("rb") as file:
        file.read(1000)
        with pytest.raises(AudioFileError, match="is not audio"):
            audio.read(file)


def test_an_open_file_that_has_another_name_by_now_is_read_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(WAV)
    with path.open("rb") as file:
        path.rename(tmp_path / "b.wav")
        path.write_text("something else")
        np.testing.assert_array_equal(audio.read(file)[0], WAVE)


def test_errors_name_the_object(tmp_path: Path) -> None:
    named = io.BytesIO(b"no audio")
    named.name = "clip 7"  # type: ignore[attr-defined]
    (tmp_path / "b.wav").write_bytes(b"no audio")
    with pytest.raises(AudioFileError, match=r"^clip 7 is not audio"):
        audio.read(named)
    with pytest.raises(AudioFileError, match=r"^<stream> is not audio"):
        audio.read(io.BytesIO(b"no audio"))
    with (tmp_path / "b.wav").open("rb") as file, pytest.raises(AudioFileError, match=r"b\.wav is"):
        audio.read(file)
    with pytest.raises(AudioFileError, match=r"^<stream> is an empty file"):
        audio.read(io.BytesIO())


def test_an_object_that_fails_part_way_is_no_shorter_recording() -> None:
    data = sndfile(WAVE, format="OGG", subtype="VORBIS")
    with pytest.raises(AudioFileError, match=r"<stream> cannot be read \(the network is gone"):
        audio.read(Trickle(data, fails_at=len(data) // 2))


def test_an_archive_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(WAV)[:-2000])
    with gzip.open(path) as file, pytest.raises(AudioFileError, match="cannot be read"):
        audio.read(file)


def test_what_is_taken_from_an_object_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_file, "MAX_COPIED", 1000)
    with pytest.raises(AudioFileError, match="<stream> holds more than 1000 bytes"):
        audio.read(io.BytesIO(WAV))


@pytest.mark.parametrize("source", [WAV, 7, None, ["a.wav"]])
def test_what_is_neither_path_nor_file_object_is_refused(source: Any) -> None:
    with pytest.raises(InputError, match=f"not {type(source).__name__}"):
        audio.read(source)


def test_text_mode_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("text")
    with (tmp_path / "a.wav").open() as file, pytest.raises(InputError, match="binary mode"):
        audio.read(file)  # type: ignore[arg-type]


class Sink:
    """A target that cannot seek and takes 1000 bytes at a time, up to a limit."""

    def __init__(self, limit: int = 10**9) -> None:
        self.data = b""
        self.limit = limit

    def write(self, data: bytes) -> int:
        if len(self.data) >= self.limit:
            raise BrokenPipeError(32, "Broken pipe")
        self.data += data[:1000]
        return len(data[:1000])

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_a_pipe_gets_the_bytes_of_the_file(kind: str, tmp_path: Path) -> None:
    wave = np.round(WAVE * 2**15).astype(np.float32) / 2**15
    audio.write(tmp_path / f"a.{kind}", wave, RATE)
    sink: Any = Sink()
    audio.write(sink, wave, RATE, format=kind)
    assert sink.data == (tmp_path / f"a.{kind}").read_bytes()
    np.testing.assert_array_equal(audio.read(io.BytesIO(sink.data))[0], wave)


def test_an_object_gets_nothing_unless_all_is_well() -> None:
    sink: Any = Sink()
    with pytest.raises(KeyError), AudioWriter(sink, RATE, 2, format="wav") as writer:  # noqa: PT012 - the block is the test
        writer.write(WAVE)
        raise KeyError
    assert sink.data == b""
    with pytest.raises(AudioFileError, match="<stream> would be empty"):
        with AudioWriter(sink, RATE, 2, format="wav"):
            pass
    assert sink.data == b""
    with pytest.raises(AudioFileError, match=r"<stream> cannot be written \(Broken pipe\)"):
        audio.write(Sink(5000), WAVE, RATE, format="wav")  # type: ignore[arg-type]


def test_a_file_object_needs_a_format() -> None:
    with pytest.raises(InputError, match="format='wav' or 'flac'"):
        audio.write(io.BytesIO(), WAVE, RATE)
    with pytest.raises(InputError, match="wav or flac, not 'mp3'"):
        audio.write(io.BytesIO(), WAVE, RATE, format="mp3")


def test_a_format_overrules_the_name(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.bin", WAVE, RATE, format="flac")
    assert (tmp_path / "a.bin").read_bytes().startswith(b"fLaC")


def test_a_wav_that_will_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    samples = 2**30
    with pytest.raises(AudioFileError, match="4 GiB"):
        AudioWriter(tmp_path / "a.wav", RATE, 2, samples=samples)
    AudioWriter(tmp_path / "a.wav", RATE, 1, samples=samples - 2**11)
    AudioWriter(tmp_path / "a.flac", RATE, 2, samples=samples)
    assert list(tmp_path.iterdir()) == []


def test_standard_input_and_output_work(tmp_path: Path) -> None:
    program = (
        "import sys; from melcap import audio; wave, rate = audio.read(sys.stdin.buffer); "
        "audio.write(sys.stdout.buffer, wave, rate, 'FLOAT', format='wav')"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, input=WAV, capture_output=True, check=True)
    np.testing.assert_array_equal(audio.read(io.BytesIO(run.stdout))[0], WAVE)
