"""The command line: what each command does, and how it refuses what it cannot do."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import melcap
from melcap import pretrained, transcode
from melcap.cli import batch
from melcap.cli import commands as cli
from melcap.codec import Codec
from melcap.errors import WeightsError
from melcap.io import container
from melcap.ops import registry
from melcap.streaming import StreamDecoder, StreamEncoder
from tests.helpers import SMALL

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("av")
pytest.importorskip("soxr")

DATA = Path(__file__).parents[1] / "data"
ROOT = Path(__file__).parents[2]
PEAK = "Linux says what a process took at most; getrusage includes what the one before it had"


@pytest.fixture(scope="module")
def tokens(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "speech.melcap"
    melcap.encode_file(DATA / "speech.flac", path, codec)
    return path


@pytest.fixture(scope="module")
def melcap_cli(small_weights: Path) -> Callable[..., Result]:
    """Calls a command with the small weights, where it takes any."""

    def call(*arguments: object) -> Result:
        words = [str(argument) for argument in arguments]
        if words[0] in ("encode", "decode", "transcode", "plot") and "--weights" not in words:
            words += ["--weights", str(small_weights)]
        result = CliRunner().invoke(cli.app, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


Cli = Callable[..., Result]


def refused(result: Result, *parts: object, status: int = 1) -> str:
    """One sentence on stderr, nothing on stdout."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    for part in parts:
        assert str(part) in lines[0]
    return lines[0]


def clip(path: Path, rate: int = 44100, channels: int = 1, seconds: float = 0.3) -> Path:
    """A sound file, of a length that no frame or column divides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(int(seconds * rate) + 1) / rate
    wave = [0.3 * np.sin(2 * np.pi * 330 * (channel + 1) * times) for channel in range(channels)]
    soundfile.write(path, np.stack(wave, axis=1).astype(np.float32), rate)
    return path


def names(folder: Path) -> list[str]:
    """Everything in it, hidden or not."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


class TestRoundTrip:
    @pytest.mark.parametrize(
        ("rate", "channels"), [(44100, 1), (44100, 2), (8000, 1), (37800, 3), (96000, 2)]
    )
    def test_rate_channels_and_length_survive(
        self, melcap_cli: Cli, tmp_path: Path, rate: int, channels: int
    ) -> None:
        source = clip(tmp_path / "a.wav", rate, channels)
        assert melcap_cli("encode", source).exit_code == 0
        (tmp_path / "a.melcap").rename(tmp_path / "b.melcap")
        assert melcap_cli("decode", tmp_path / "b.melcap").exit_code == 0
        before, after = soundfile.info(source), soundfile.info(tmp_path / "b.wav")
        assert (after.samplerate, after.channels, after.frames) == (rate, channels, before.frames)
        assert names(tmp_path) == ["a.wav", "b.melcap", "b.wav"]

    def test_transcode_is_encode_and_decode(self, melcap_cli: Cli, tmp_path: Path) -> None:
        source = DATA / "music.flac"
        kept = tmp_path / "new" / "folder" / "both.melcap"
        result = melcap_cli("transcode", source, "-o", kept.with_suffix(".wav"), "--keep")
        assert result.exit_code == 0
        melcap_cli("encode", source, "-o", tmp_path / "one.melcap")
        melcap_cli("decode", tmp_path / "one.melcap", "-o", tmp_path / "one.wav")
        assert kept.read_bytes() == (tmp_path / "one.melcap").read_bytes()
        assert kept.with_suffix(".wav").read_bytes() == (tmp_path / "one.wav").read_bytes()

    def test_transcode_leaves_audio_only(
        self, melcap_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        source = clip(tmp_path / "a.wav")
        assert melcap_cli("transcode", source, "-o", tmp_path / "b.flac").exit_code == 0
        assert names(tmp_path) == ["a.wav", "b.flac"]
        assert soundfile.info(tmp_path / "b.flac").format == "FLAC"
        assert not list(scratch.iterdir())

    @pytest.mark.parametrize("command", ["decode", "transcode"])
    def test_another_rate_and_format(
        self, melcap_cli: Cli, tmp_path: Path, tokens: Path, command: str
    ) -> None:
        source = tokens if command == "decode" else DATA / "speech.flac"
        out = tmp_path / "out"
        result = melcap_cli(
            command, source, "-o", out, "--sample-rate", 16000, "--format", "flac", "--json"
        )
        (record,) = json.loads(result.stdout)["files"]
        info = soundfile.info(out / "speech.flac")
        assert (info.format, info.samplerate, info.frames) == ("FLAC", 16000, 48000)
        assert (record["sample_rate"], record["seconds"]) == (16000, 3.0)

    def test_json_of_transcode(self, melcap_cli: Cli, tmp_path: Path) -> None:
        result = melcap_cli(
            "transcode", DATA / "speech.flac", "-o", tmp_path / "s.wav", "--keep", "--json"
        )
        (record,) = json.loads(result.stdout)["files"]
        assert record["source"] == str(DATA / "speech.flac")
        assert record["target"] == str(tmp_path / "s.wav")
        assert record["tokens"] == str(tmp_path / "s.melcap")
        size = (tmp_path / "s.melcap").stat().st_size
        assert record["kbps"] == pytest.approx(size * 8 / 1000 / 3)
        assert record["encode_speed"] > 0
        assert record["decode_speed"] > 0

    def test_a_line_of_results_unless_quiet(self, melcap_cli: Cli, tmp_path: Path) -> None:
        source = clip(tmp_path / "a.wav")
        result = melcap_cli("encode", source)
        assert re.fullmatch(
            r".*a\.wav -> .*a\.melcap: 0\.30 s, 1 ch, 44100 Hz, [\d.]+ kbps, "
            r"encoded [\d.]+x real time\n",
            result.stdout,
        )
        result = melcap_cli("encode", source, "--force", "--quiet")
        assert (result.exit_code, result.output) == (0, "")


class TestFolders:
    def test_structure_is_kept(self, melcap_cli: Cli, tmp_path: Path) -> None:
        music = tmp_path / "music"
        for name in ("a.wav", "deep/er/b.FLAC", "deep/c.wav", ".hidden.wav", ".trash/d.wav"):
            clip(music / name)
        (music / "notes.txt").write_text("no audio")
        out = tmp_path / "out"
        result = melcap_cli("encode", music, "-o", out, "--json")
        assert names(out) == ["a.melcap", "deep/c.melcap", "deep/er/b.melcap"]
        report = json.loads(result.stdout)
        assert [Path(record["source"]).name for record in report["files"]] == [
            "a.wav",
            "c.wav",
            "b.FLAC",
        ]
        assert report["failed"] == []
        assert melcap_cli("decode", out).exit_code == 0
        assert soundfile.info(out / "deep" / "er" / "b.wav").frames == 13231

    def test_the_output_folder_is_no_input(self, melcap_cli: Cli, tmp_path: Path) -> None:
        clip(tmp_path / "a.wav")
        for _ in range(2):
            done = melcap_cli("transcode", tmp_path, "-o", tmp_path / "out", "--force")
            assert done.exit_code == 0
        assert names(tmp_path) == ["a.wav", "out/a.wav"]

    def test_the_same_file_twice_is_done_once(self, melcap_cli: Cli, tmp_path: Path) -> None:
        source = clip(tmp_path / "a.wav")
        result = melcap_cli("encode", tmp_path, source, "--json")
        assert len(json.loads(result.stdout)["files"]) == 1

    def test_a_bad_file_does_not_stop_the_rest(self, melcap_cli: Cli, tmp_path: Path) -> None:
        music = tmp_path / "music"
        for name in ("a.wav", "c.wav"):
            clip(music / name)
        (music / "b").mkdir()
        (music / "b" / "b.wav").write_bytes(b"not audio")
        out = tmp_path / "out"
        result = melcap_cli("encode", music, "-o", out, "--json")
        assert result.exit_code == 1
        assert names(out) == ["a.melcap", "c.melcap"]
        assert not (out / "b").exists()
        report = json.loads(result.stdout)
        assert len(report["files"]) == 2
        (failure,) = report["failed"]
        assert failure["source"] == str(music / "b" / "b.wav")
        assert result.stderr == f"error: {failure['error']}\n1 of 3 files failed\n"

    def test_two_files_for_one_name(self, melcap_cli: Cli, tmp_path: Path) -> None:
        clip(tmp_path / "b.wav")
        clip(tmp_path / "a.wav")
        clip(tmp_path / "a.flac")
        refused(melcap_cli("encode", tmp_path), "a.wav", "a.flac", "a.melcap")
        assert names(tmp_path) == ["a.flac", "a.wav", "b.wav"]

    def test_two_folders_for_one_name(self, melcap_cli: Cli, tmp_path: Path) -> None:
        one, two = clip(tmp_path / "1" / "a.wav"), clip(tmp_path / "2" / "a.wav")
        out = tmp_path / "out"
        refused(melcap_cli("encode", tmp_path / "1", tmp_path / "2", "-o", out), one, two)
        assert not out.exists()

    def test_an_input_is_never_an_output(self, melcap_cli: Cli, tmp_path: Path) -> None:
        source = clip(tmp_path / "a.wav")
        other = clip(tmp_path / "b" / "a.flac")
        before = source.read_bytes()
        for inputs, out in (
            ([source], source),
            ([tmp_path], tmp_path),
            ([source, other], tmp_path),
        ):
            result = melcap_cli("transcode", *inputs, "-o", out, "--force")
            refused(result, source)
            assert source.read_bytes() == before

    @pytest.mark.parametrize("out", ["x.melcap", "x.dir"])
    def test_many_files_need_a_folder(self, melcap_cli: Cli, tmp_path: Path, out: str) -> None:
        clip(tmp_path / "in" / "a.wav")
        refused(melcap_cli("encode", tmp_path / "in", "-o", tmp_path / out), out)
        done = melcap_cli("encode", tmp_path / "in", "-o", f"{tmp_path / out}/")
        assert done.exit_code == 0
        assert names(tmp_path / out) == ["a.melcap"]

    @pytest.mark.parametrize(
        ("command", "out"), [("encode", "x.mel"), ("transcode", "x.mp3"), ("transcode", "x.melcap")]
    )
    def test_an_unknown_suffix(
        self, melcap_cli: Cli, tmp_path: Path, command: str, out: str
    ) -> None:
        source = clip(tmp_path / "a.wav")
        refused(melcap_cli(command, source, "-o", tmp_path / out), out, "must end in")
        assert names(tmp_path) == ["a.wav"]

    def test_a_folder_with_nothing_to_do(self, melcap_cli: Cli, tmp_path: Path) -> None:
        refused(melcap_cli("decode", tmp_path), tmp_path, "holds no .melcap files")

    def test_a_file_where_a_folder_must_be(self, melcap_cli: Cli, tmp_path: Path) -> None:
        source = clip(tmp_path / "a.wav")
        (tmp_path / "out").write_text("a file")
        for command, out in (("encode", "out/"), ("plot", "out/x.png")):
            refused(melcap_cli(command, source, "-o", f"{tmp_path}/{out}"), tmp_path / "out")


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


class TestOptions:
    def test_no_such_device(self, melcap_cli: Cli, tmp_path: Path) -> None:
        source = clip(tmp_path / "a.wav")
        refused(melcap_cli("encode", source, "--device", "cuda:99"), "cuda:99", "melcap doctor")
        assert names(tmp_path) == ["a.wav"]

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
    def test_no_device_at_all(self, melcap_cli: Cli, tmp_path: Path) -> None:
        refused(melcap_cli("encode", clip(tmp_path / "a.wav"), "--device", "cuda"), "0 CUDA")

    def test_every_reason_against_a_backend(
        self, melcap_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry, "unavailable", lambda name: ["no luck", "no time"])
        result = melcap_cli("encode", clip(tmp_path / "a.wav"), "--backend", "triton")
        refused(result, "triton", "no luck", "no time")
        assert registry.get_backend() == "auto"
        assert names(tmp_path) == ["a.wav"]

    def test_the_backends_are_those_of_the_operations(self) -> None:
        from melcap.cli.options import Backend

        assert tuple(backend.value for backend in Backend) == registry.BACKENDS

    @pytest.mark.parametrize(
        "arguments",
        [
            ["encode"],
            ["encode", "a.wav", "--device", "gpu"],
            ["encode", "a.wav", "--device", "cuda:"],
            ["encode", "a.wav", "--backend", "numpy"],
            ["encode", "a.wav", "--what"],
            ["decode", "a.melcap", "--format", "mp3"],
            ["decode", "a.melcap", "--sample-rate", "0"],
            ["decode", "a.melcap", "--sample-rate", "many"],
            ["transcode", "a.wav"],
            ["plot", "a.wav", "--channel", "0"],
            ["enhance", "a.wav"],
        ],
    )
    def test_wrong_usage(self, melcap_cli: Cli, arguments: list[str]) -> None:
        result = melcap_cli(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "Usage: " in result.stderr

    def test_missing_and_wrong_weights(self, melcap_cli: Cli, tmp_path: Path) -> None:
        source = clip(tmp_path / "a.wav")
        for name in ("nowhere.safetensors", "a.wav"):
            refused(melcap_cli("encode", source, "--weights", tmp_path / name), name, "weights")
        assert names(tmp_path) == ["a.wav"]


def _ctrl_c() -> None:
    raise KeyboardInterrupt


def _kill() -> None:
    signal.raise_signal(signal.SIGTERM)


class TestInterrupted:
    @pytest.mark.parametrize(("how", "status"), [(_ctrl_c, 130), (_kill, 143)])
    @pytest.mark.parametrize("stage", [StreamEncoder, StreamDecoder])
    def test_nothing_is_left(
        self,
        melcap_cli: Cli,
        tmp_path: Path,
        stage: Any,
        how: Callable[[], None],
        status: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(transcode, "_piece_seconds", lambda _: 1)
        push, pushed = stage.push, []

        def interrupted(self: Any, piece: Any) -> Any:
            pushed.append(piece)
            if len(pushed) == 2:
                how()
            return push(self, piece)

        monkeypatch.setattr(stage, "push", interrupted)
        before = signal.getsignal(signal.SIGTERM)
        batch.prepare_process()
        try:
            out = tmp_path / "out" / "x.wav"
            result = melcap_cli("transcode", DATA / "speech.flac", "-o", out, "--keep")
        finally:
            signal.signal(signal.SIGTERM, before)
        assert len(pushed) == 2
        assert (result.exit_code, result.stdout) == (status, "")
        assert not list(tmp_path.iterdir())

    @pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
    def test_the_program(self, tmp_path: Path, small_weights: Path, codec: Codec) -> None:
        grid = np.random.default_rng(0).integers(0, 300, (1, 3, 400_000))
        samples = grid.shape[2] * SMALL.column_samples
        header = container.Header(
            codec.model, codec.tokenizer_id, 44100, 1, samples, *grid.shape[1:], 9
        )
        container.write(tmp_path / "long.melcap", header, grid)
        command = [sys.executable, "-m", "melcap", "decode", "long.melcap"]
        process = subprocess.Popen(
            [*command, "--weights", small_weights],
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            # A shell's background job ignores SIGINT, and hands that down.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        with process:
            deadline = time.monotonic() + 120
            while not list(tmp_path.glob(".melcap-*")):  # until it writes
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=120)
        assert (process.returncode, stderr) == (130, b"interrupted\n")
        assert names(tmp_path) == ["long.melcap"]


@pytest.fixture(scope="module")
def on_a_terminal(
    tmp_path_factory: pytest.TempPathFactory, small_weights: Path
) -> tuple[bytes, bytes, list[str]]:
    """stdout (a pipe), stderr (a terminal) and the files of one process, for several tests."""
    pty = pytest.importorskip("pty")
    folder = tmp_path_factory.mktemp("program")
    ours, theirs = pty.openpty()
    for name in ("caf\udce9.wav", "ü [b].wav"):
        source = clip(folder / "plain.wav", seconds=2)
        with suppress(OSError):  # where a name must be UTF-8, which the first one is not
            source.rename(folder / name)
    process = subprocess.Popen(
        [sys.executable, "-m", "melcap", "encode", ".", "--weights", small_weights],
        cwd=folder,
        env={**environment(), "TERM": "xterm", "COLUMNS": "120", "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    # At its end Linux raises an error, other systems give nothing.
    with suppress(OSError):
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    stdout, _ = process.communicate()
    return stdout, shown, names(folder)


class TestProgram:
    def test_any_file_name(self, on_a_terminal: tuple[bytes, bytes, list[str]]) -> None:
        stdout, shown, files = on_a_terminal
        assert "ü [b].melcap" in files
        assert "ü [b].wav -> ü [b].melcap: 2.00 s".encode() in stdout
        assert b"Traceback" not in shown

    def test_results_with_any_file_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", stdout)
        before = signal.getsignal(signal.SIGTERM)
        batch.prepare_process()
        signal.signal(signal.SIGTERM, before)
        print("caf\udce9 ü", file=stdout, flush=True)
        assert stdout.buffer.getvalue() == b"caf\\udce9 \\xfc\n"  # type: ignore[attr-defined]

    def test_the_bar_is_on_stderr_alone(
        self, on_a_terminal: tuple[bytes, bytes, list[str]]
    ) -> None:
        stdout, shown, _ = on_a_terminal
        assert "2/2 ü [b].wav".encode() in shown
        assert b"\x1b" not in stdout
        assert b"real time" not in shown

    def test_help_needs_nothing_heavy(self) -> None:
        heavy = {"soundfile", "soxr", "av", "matplotlib", "triton", "scipy"}
        script = (
            "import sys, melcap.cli.commands, melcap.plot.spectrogram\n"
            "try: melcap.cli.commands.app(['encode', '--help'])\n"
            f"finally: print('loaded:', sorted({heavy} & set(sys.modules)))"
        )
        result = subprocess.run(
            [sys.executable, "-c", script], env=environment(), capture_output=True, text=True
        )
        assert result.returncode == 0
        for option in ("--out", "--device", "--backend", "--weights", "--force", "--json"):
            assert option in result.stdout
        assert "loaded: []" in result.stdout

    def test_version(self, melcap_cli: Cli) -> None:
        assert melcap_cli("--version").stdout == f"melcap {melcap.__version__}\n"

    def test_memory_does_not_grow_with_the_length(
        self, tmp_path: Path, small_weights: Path
    ) -> None:
        """Whole, the six more minutes would be 63 MB of wave alone.

        The first six are not counted: allocators keep what they have had, and take more the second
        time, of the same clip as well.
        """
        if not sys.platform.startswith("linux"):
            pytest.skip(PEAK)
        for minutes in (6, 12):
            with soundfile.SoundFile(tmp_path / f"{minutes}.wav", "w", 44100, 1) as file:
                for _ in range(minutes):
                    file.write(np.random.default_rng(0).normal(0, 0.1, 60 * 44100))
        script = (
            "import sys\n"
            "from melcap.cli.commands import app\n"
            "for minutes in (6, 6, 12):\n"
            "    words = ['transcode', f'{minutes}.wav', '-o', f'{minutes}.flac', '-q']\n"
            "    app([*words, '--force', '--weights', sys.argv[1]], standalone_mode=False)\n"
            "    peak = next(line for line in open('/proc/self/status') if 'VmHWM' in line)\n"
            "    print(peak.split()[1])"
        )
        result = subprocess.run(
            [sys.executable, "-c", script, small_weights],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        _, short, long = (int(line) / 2**10 for line in result.stdout.splitlines())
        assert soundfile.info(tmp_path / "12.flac").frames == 12 * 60 * 44100
        assert long - short < 20, f"{short:.0f} MiB, then {long:.0f} MiB"

    def test_six_minutes_with_the_weights_that_ship(self, tmp_path: Path) -> None:
        """Under 1.5 GB; the speeds, of one minute and of six, are printed and not asserted."""
        if not sys.platform.startswith("linux"):
            pytest.skip(PEAK)
        clip, rate = soundfile.read(DATA / "music.flac")
        minute = np.resize(clip, 60 * rate)
        for minutes in (1, 6):
            with soundfile.SoundFile(tmp_path / f"{minutes}.wav", "w", rate, 1) as file:
                for _ in range(minutes):
                    file.write(minute)
        script = (
            "from melcap.cli.commands import app\n"
            "for minutes in (1, 6):\n"
            "    words = ['transcode', f'{minutes}.wav', '-o', f'{minutes}.flac', '--json']\n"
            "    app(words, standalone_mode=False)\n"
            "peak = next(line for line in open('/proc/self/status') if 'VmHWM' in line)\n"
            "print(peak.split()[1])"
        )
        result = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        *records, peak = result.stdout.splitlines()
        for speed in (line.strip() for line in records if "_speed" in line):
            print(speed)
        assert int(peak) * 2**10 < 1.5e9
        assert soundfile.info(tmp_path / "6.flac").frames == 6 * 60 * rate


class TestInfo:
    def test_tokens(self, melcap_cli: Cli, tokens: Path, codec: Codec) -> None:
        data = json.loads(melcap_cli("info", tokens, "--json").stdout)
        assert data == {
            "file": str(tokens),
            "model": codec.model,
            "tokenizer_id": codec.tokenizer_id,
            "sample_rate": 44100,
            "channels": 1,
            "samples": 132300,
            "seconds": 3.0,
            "rows": 3,
            "columns": 130,
            "bits_per_token": 9,
            "tokens": 390,
            "compact": False,
            "bytes": tokens.stat().st_size,
            "kbps": tokens.stat().st_size * 8 / 3000,
        }
        table = melcap_cli("info", tokens).stdout
        for part in (
            tokens,
            codec.model,
            codec.tokenizer_id,
            "3.00 s",
            "44100 Hz",
            "3 rows x 130 columns",
        ):
            assert str(part) in table

    def test_weights(self, melcap_cli: Cli, small_weights: Path, codec: Codec) -> None:
        data = json.loads(melcap_cli("info", small_weights, "--json").stdout)
        assert data["model"] == codec.model
        assert data["sha256"].startswith(codec.model.rpartition("-")[2])
        trained = sum(parameter.numel() for parameter in codec.parameters())
        assert data["parameters"]["total"] == trained + 300 * 8
        assert data["latency_seconds"]["encoder"] == StreamEncoder(codec).latency
        assert data["latency_seconds"]["decoder"] == StreamDecoder(codec).latency

    def test_a_decoder_alone(self, melcap_cli: Cli, tmp_path: Path, codec: Codec) -> None:
        path = tmp_path / "decoder.safetensors"
        digest = pretrained.save_decoder(codec, path)
        data = json.loads(melcap_cli("info", path, "--json").stdout)
        assert data["decoder_for_tokenizer"] == codec.tokenizer_id
        assert (data["sha256"], data["model"]) == (digest, f"small-{digest[:16]}")
        assert "a decoder alone" in melcap_cli("info", path).stdout

    def test_the_receptive_field_is_what_a_column_sees(
        self, melcap_cli: Cli, small_weights: Path, codec: Codec
    ) -> None:
        """Samples beyond it change nothing; the ones just inside reach the front end."""
        sees = json.loads(melcap_cli("info", small_weights, "--json").stdout)[
            "encoder_sees_seconds"
        ]
        before, after = round(sees["before"] * 44100), round(sees["after"] * 44100)
        column, unit = 30, SMALL.column_samples
        torch.manual_seed(2)
        wave = 0.1 * torch.randn(60 * unit)
        same = codec.encode(wave, 44100).tokens[:, column]
        outside = wave.clone()
        outside[: column * unit - before] = 0.5 * torch.randn(column * unit - before)
        outside[(column + 1) * unit + after :] = 0
        assert torch.equal(codec.encode(outside, 44100).tokens[:, column], same)
        inside = wave.clone()
        inside[column * unit : (column + 1) * unit] = 0
        assert not torch.equal(codec.encode(inside, 44100).tokens[:, column], same)

    def test_the_default_model(self, melcap_cli: Cli) -> None:
        data = json.loads(melcap_cli("info", "--json").stdout)
        assert round(data["tokens_per_second"], 1) == 258.4
        assert round(data["kbps"], 2) == 3.36
        assert data["parameters"]["total"] < 12e6
        assert data["bytes"] < 20e6
        table = melcap_cli("info").stdout
        for part in (data["model"], data["sha256"], "258.4 a second", "3.36 kbps"):
            assert part in table

    def test_neither(self, melcap_cli: Cli, tmp_path: Path) -> None:
        refused(melcap_cli("info", clip(tmp_path / "a.wav")), "a.wav", "is audio")
        (tmp_path / "notes.txt").write_text("hello")
        refused(melcap_cli("info", tmp_path / "notes.txt"), "notes.txt", "not a melcap weights")
        refused(melcap_cli("info", tmp_path / "nowhere"), "nowhere")


class TestDoctor:
    def test_every_reason_has_an_advice(self, melcap_cli: Cli) -> None:
        result = melcap_cli("doctor", "--json")
        assert result.exit_code == 0
        data = json.loads(result.stdout)
        assert data["problems"] == []
        assert data["weights"]["model"] == melcap.load().model
        assert data["threads"] == torch.get_num_threads()
        advice = {note["what"]: note["do"] for note in data["notes"]}
        text = melcap_cli("doctor").stdout
        for name, reasons in data["backends"]["available"].items():
            for reason in reasons:
                assert advice[f"the {name} backend cannot run: {reason}"]
                assert reason in text
        for note in data["notes"]:
            assert f"note: {note['what']}\n    {note['do']}\n" in text

    def test_who_runs_which_layer(self, melcap_cli: Cli) -> None:
        pytest.importorskip("triton")
        rows = json.loads(melcap_cli("doctor", "--json").stdout)["backends"]["layers"]
        by = {(row["layer"], row["dtype"]): row["by"] for row in rows["upsample_conv1d"]}
        text = melcap_cli("doctor").stdout
        assert by["1024 to 512", "float16"] == "cuDNN"
        for (layer, dtype), code in by.items():
            (line,) = [row for row in text.splitlines() if row.startswith(f"  {layer} ")]
            assert f"{dtype} {code}" in line

    def test_each_known_reason_is_one_that_the_registry_gives(
        self, melcap_cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from melcap.cli.doctor import ADVICE

        monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        reasons = registry.unavailable("triton")
        assert len(reasons) == len(ADVICE)
        for reason, known in zip(reasons, ADVICE, strict=True):
            assert known in reason

    def test_broken_weights_are_a_problem(
        self, melcap_cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken() -> None:
            raise WeightsError("the weights are damaged")

        monkeypatch.setattr("melcap.cli.doctor.load", broken)
        result = melcap_cli("doctor")
        assert result.exit_code == 1
        assert "problem: the weights are damaged\n    install melcap again" in result.stdout


class TestPipes:
    """`-` is stdin and stdout: the same bytes as with files."""

    @staticmethod
    def call(small_weights: Path, *words: object, given: bytes = b"") -> Result:
        command = [*map(str, words), "--weights", str(small_weights)]
        return CliRunner().invoke(cli.app, command, input=given)

    def test_encode_and_decode(self, small_weights: Path, tmp_path: Path) -> None:
        source = clip(tmp_path / "tone.wav", channels=2, rate=22050)
        packed, back = tmp_path / "tone.melcap", tmp_path / "back.wav"
        assert not self.call(small_weights, "encode", source).exit_code
        assert not self.call(small_weights, "decode", packed, "--out", back).exit_code
        encoded = self.call(small_weights, "encode", "-", "-o", "-", given=source.read_bytes())
        assert encoded.exit_code == 0, encoded.stderr
        assert encoded.stdout_bytes == packed.read_bytes()
        assert "<stdin> -> <stdout>: 0.30 s, 2 ch" in encoded.stderr
        decoded = self.call(small_weights, "decode", "-", given=encoded.stdout_bytes)
        assert decoded.exit_code == 0, decoded.stderr
        assert decoded.stdout_bytes == back.read_bytes()
        both = self.call(
            small_weights, "transcode", "-q", "-", "-o", "-", given=source.read_bytes()
        )
        assert both.exit_code == 0, both.stderr
        assert both.stdout_bytes == back.read_bytes()
        assert both.stderr == ""
        flac = self.call(
            small_weights, "decode", packed, "--out", "-", "--format", "flac", "--sample-rate", 8000
        )
        wave, rate = soundfile.read(io.BytesIO(flac.stdout_bytes))
        assert (wave.shape, rate) == ((-(-6616 * 8000 // 22050), 2), 8000)
        assert flac.stdout_bytes.startswith(b"fLaC")

    def test_stdin_to_a_file(self, tmp_path: Path, small_weights: Path) -> None:
        source, target = clip(tmp_path / "tone.wav"), tmp_path / "new" / "named.melcap"
        done = self.call(
            small_weights, "encode", "-", "-o", target, "--json", given=source.read_bytes()
        )
        told = json.loads(done.stdout)["files"][0]
        assert (told["source"], told["target"]) == ("<stdin>", str(target))
        assert container.read_header(target).samples == 13231

    @pytest.mark.parametrize(
        ("words", "given", "said"),
        [
            (["encode", "-"], b"", "<stdin> is an empty file"),
            (["encode", "-"], b"no audio at all" * 99, "<stdin> is not audio"),
            (["decode", "-"], b"MELCAP", "'<stdin>' cannot be read: the file is truncated"),
            (["encode", "-", "other.wav"], b"", "goes with one file alone"),
            (["encode", "a.wav", "b.wav", "-o", "-"], b"", "goes with one file alone"),
            (["encode", ".", "-o", "-"], b"", "goes with one file alone"),
            (["encode", "-", "-o", "folder/"], b"", "name a file"),
            (["decode", "-", "-o", "back.mp3"], b"", "must end in .wav or .flac"),
            (["transcode", "-", "-o", "-", "--keep"], b"", "--keep needs an --out FILE"),
        ],
    )
    def test_what_is_refused(
        self, words: list[str], given: bytes, said: str, small_weights: Path
    ) -> None:
        words = [*words, "--weights", str(small_weights)]
        refused(CliRunner().invoke(cli.app, words, input=given), said)

    def test_a_reader_that_goes_away_ends_it_in_silence(
        self, small_weights: Path, tmp_path: Path
    ) -> None:
        source = clip(tmp_path / "tone.wav", seconds=30)  # more than a pipe holds
        command = f"{sys.executable} -m melcap transcode -q - -o - --weights {small_weights}"
        done = subprocess.run(
            f"{command} < {source} | head -c 100 > {tmp_path}/head",
            shell=True,
            capture_output=True,
            env=environment(),
        )
        assert done.stderr == b""
        assert (tmp_path / "head").stat().st_size == 100


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


def test_what_a_folder_holds_beside_audio_is_counted(melcap_cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    for name in ("a.wav", "sub/b.WAV"):
        clip(folder / name)
    for name in ("notes.txt", "sub/more.txt", "list", ".hidden"):
        (folder / name).write_text("no audio")
    done = melcap_cli("encode", folder, "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert done.stderr == "passed over: 2 .txt, 1 hidden files, 1 without a suffix\n"
    told = json.loads(melcap_cli("encode", folder, "--json", "--out", tmp_path / "json").stdout)
    assert told["passed_over"] == {".txt": 2, "hidden files": 1, "without a suffix": 1}
    assert melcap_cli("encode", folder, "--quiet", "--out", tmp_path / "quiet").stderr == ""
    refused(melcap_cli("decode", folder), "holds no .melcap files: it has 2 .wav, 2 .txt, 1 hidden")


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
