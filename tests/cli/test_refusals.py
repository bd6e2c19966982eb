"""Files that the commands refuse: one sentence, and nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from melcap import pretrained
from melcap.codec import Codec
from tests.cli.helpers import DATA, Cli, clip, names, refused
from tests.helpers import SMALL


def _nan(path: Path) -> None:
    wave = np.zeros(9999, np.float32)
    wave[7777] = np.nan
    soundfile.write(path, wave, 44100, subtype="FLOAT")


def _infinite(path: Path) -> None:
    soundfile.write(path, np.full(9999, np.inf, np.float32), 44100, subtype="FLOAT")


def _truncated(path: Path) -> None:
    path.write_bytes((clip(path)).read_bytes()[:-5000])


def _truncated_flac(path: Path) -> None:
    shutil.copy(DATA / "music.flac", path)
    path.write_bytes(path.read_bytes()[:-9000])


BAD_AUDIO: dict[str, Callable[[Path], object]] = {
    "nan": _nan,
    "infinite": _infinite,
    "empty file": lambda path: path.write_bytes(b""),
    "no samples": lambda path: soundfile.write(path, np.zeros(0, np.float32), 44100),
    "text": lambda path: path.write_text("this is no audio\n" * 99),
    "truncated": _truncated,
    "truncated flac": _truncated_flac,
    "misnamed": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500)),
    "missing": lambda path: None,
}


class TestBadAudio:
    @pytest.mark.parametrize("make", BAD_AUDIO.values(), ids=BAD_AUDIO.keys())
    @pytest.mark.parametrize("command", ["encode", "transcode", "plot"])
    def test_one_sentence_and_nothing_left(
        self, melcap_cli: Cli, tmp_path: Path, command: str, make: Callable[[Path], object]
    ) -> None:
        source = tmp_path / "bad.wav"
        make(source)
        before = names(tmp_path)
        out = {"encode": "x.melcap", "transcode": "x.wav", "plot": "x.png"}[command]
        result = melcap_cli(command, source, "-o", tmp_path / "out" / out)
        refused(result, "bad.wav")
        assert names(tmp_path) == before
        assert not (tmp_path / "out").exists()

    def test_tokens_are_no_audio(self, melcap_cli: Cli, tmp_path: Path, tokens: Path) -> None:
        shutil.copy(tokens, tmp_path / "x.wav")
        refused(melcap_cli("encode", tmp_path / "x.wav"), "x.wav")
        assert names(tmp_path) == ["x.wav"]


class TestBadTokens:
    @pytest.mark.parametrize("command", ["decode", "plot", "info"])
    @pytest.mark.parametrize("place", [0, 6, 9, 16, 20, 26, 33, 40, 45, 60, -1])
    def test_an_altered_byte(
        self, melcap_cli: Cli, tmp_path: Path, tokens: Path, command: str, place: int
    ) -> None:
        data = bytearray(tokens.read_bytes())
        data[place] ^= 0x10
        path = tmp_path / "x.melcap"
        path.write_bytes(data)
        refused(melcap_cli(command, path), "x.melcap")
        assert names(tmp_path) == ["x.melcap"]

    @pytest.mark.parametrize("left", [0, 5, 30, 50, -1])
    def test_truncated(self, melcap_cli: Cli, tmp_path: Path, tokens: Path, left: int) -> None:
        path = tmp_path / "x.melcap"
        path.write_bytes(tokens.read_bytes()[:left])
        refused(melcap_cli("decode", path), "x.melcap")
        assert names(tmp_path) == ["x.melcap"]

    def test_a_header_that_asks_for_terabytes(self, melcap_cli: Cli, tmp_path: Path) -> None:
        fields = (b"MELCAP", 2, 1, bytes(8), 44100, 9, 2**40, 999, 2**28, 16, 0, 1)
        head = struct.pack("<6sBB8sIHQHIBBB", *fields) + b"x"
        path = tmp_path / "x.melcap"
        path.write_bytes(head + zlib.crc32(head).to_bytes(4, "little") + bytes(99))
        for command in ("decode", "info", "plot"):
            refused(melcap_cli(command, path), "x.melcap", "more than a file holds")
        assert names(tmp_path) == ["x.melcap"]

    def test_audio_is_no_tokens(self, melcap_cli: Cli, tmp_path: Path) -> None:
        path = clip(tmp_path / "x.wav").rename(tmp_path / "x.melcap")
        for command in ("decode", "info", "plot"):
            refused(melcap_cli(command, path), "x.melcap", "not a .melcap file")
        assert names(tmp_path) == ["x.melcap"]

    @pytest.mark.parametrize("command", ["decode", "plot"])
    def test_made_with_other_weights(
        self, melcap_cli: Cli, tmp_path: Path, tokens: Path, codec: Codec, command: str
    ) -> None:
        other = tmp_path / "other.safetensors"
        torch.manual_seed(1)
        pretrained.save(Codec(SMALL), other)
        path = Path(shutil.copy(tokens, tmp_path / "x.melcap"))
        refused(melcap_cli(command, path, "--weights", other), "x.melcap", codec.model)
        assert names(tmp_path) == ["other.safetensors", "x.melcap"]


class TestOverwriting:
    @pytest.mark.slow
    @pytest.mark.parametrize("command", ["encode", "decode", "transcode", "keep", "plot"])
    def test_only_with_force(
        self, melcap_cli: Cli, tmp_path: Path, tokens: Path, command: str
    ) -> None:
        source = tokens if command == "decode" else DATA / "speech.flac"
        name = {"encode": "x.melcap", "keep": "x.melcap", "plot": "x.png"}.get(command, "x.wav")
        taken = tmp_path / name
        taken.write_text("precious")
        call: tuple[Any, ...] = (command, source, "-o", taken)
        if command == "keep":
            call = ("transcode", source, "-o", tmp_path / "x.wav", "--keep")
        refused(melcap_cli(*call), name, "--force")
        assert names(tmp_path) == [name]
        assert taken.read_text() == "precious"
        assert melcap_cli(*call, "--force").exit_code == 0
        assert taken.read_bytes() != b"precious"

    def test_what_fails_leaves_the_old_file(self, melcap_cli: Cli, tmp_path: Path) -> None:
        _nan(tmp_path / "bad.wav")
        (tmp_path / "bad.melcap").write_text("precious")
        refused(melcap_cli("encode", tmp_path / "bad.wav", "--force"))
        assert (tmp_path / "bad.melcap").read_text() == "precious"


@pytest.mark.parametrize(
    "words",
    [
        ["encode", "missing-folder/", "--json"],
        ["encode", ".", "--json"],
        ["info", "missing.melcap", "--json"],
        ["plot", "missing.wav", "--json"],
        ["stats", "missing", "--json"],
        ["tokenize", "missing", "--out", "set", "--json"],
        ["encode", "a.wav", "-o", "-", "--json"],
    ],
)
def test_failures_are_json_where_json_is_asked_for(
    words: list[str], melcap_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = melcap_cli(*words)
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    said = told["error"] if "error" in told else told["failed"][0]["error"]
    assert done.stderr == f"error: {said}\n"


@pytest.fixture
def _seconds() -> Iterator[None]:
    """End a test that waits for the other end of a pipe."""

    def end(*_: object) -> None:
        raise TimeoutError("it opened the pipe")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("_seconds")
@pytest.mark.parametrize(
    "words",
    [
        ["encode", "pipe.wav", "--out", "out.melcap"],
        ["transcode", "pipe.wav", "--out", "out/"],
        ["plot", "pipe.wav"],
        ["decode", "pipe.melcap", "--out", "out.wav"],
        ["plot", "pipe.melcap"],
        ["info", "pipe.melcap"],
        ["info", "pipe.safetensors"],
        ["encode", "tone.wav", "--weights", "pipe.safetensors"],
        ["encode", "tone.wav", "--weights", "/dev/zero"],
        ["tokenize", "pipe.wav", "--out", "set"],
        ["tokenize", "tone.wav", "--out", "set", "--weights", "pipe.safetensors"],
        ["stats", "pipe.parquet"],
        ["detokenize", "pipe.parquet", "--out", "heard"],
    ],
)
def test_a_pipe_is_refused_and_not_waited_for(
    words: list[str], melcap_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "tone.wav")
    for name in ("pipe.wav", "pipe.melcap", "pipe.safetensors", "pipe.parquet"):
        os.mkfifo(tmp_path / name)
    refused(melcap_cli(*words), "regular file")
