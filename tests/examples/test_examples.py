"""The scripts in examples/ run as they are."""

from __future__ import annotations

import json
import runpy
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import melcap
from melcap import audio
from melcap.bulk.token_sets.rows import TokenRow
from melcap.bulk.token_sets.shards import read_rows, token_files, write_shard
from melcap.codec import Codec
from melcap.errors import InputError
from melcap.io import container
from melcap.io.container.header import Header
from melcap.lm import ContextModel
from tests.helpers import ID, noise

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("av")
pytest.importorskip("soxr")

DATA = Path(__file__).parents[1] / "data"
EXAMPLES = Path(__file__).parents[2] / "examples"

Script = Callable[..., int | str | None]


@pytest.fixture
def script(small_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Return a function that runs a script as `python examples/NAME` does, and its exit status."""

    def call(name: str, *arguments: object) -> int | str | None:
        words = [name, *map(str, arguments), "--weights", str(small_weights)]
        monkeypatch.setattr(sys, "argv", words)
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as ended:
            return ended.code
        return 0

    return call


class TestBatchTranscode:
    def test_a_folder_there_and_back(
        self, script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        music = tmp_path / "music"
        (music / "deep").mkdir(parents=True)
        shutil.copy(DATA / "speech.flac", music / "a.flac")
        audio.write(music / "a.wav", noise(2, 4001).numpy(), 8000)
        (music / "deep" / "bad.mp3").write_bytes(b"no audio")
        out = music / "out"  # inside the input folder: results are not taken for inputs
        assert script("batch_transcode.py", music, out) == 1

        manifest = out / "manifest.jsonl"
        first, second, third = map(json.loads, manifest.read_text().splitlines())
        assert first["source"] == str(music / "a.flac")
        assert second["sample_rate"] == 8000
        assert second["channels"] == 2
        assert "bad.mp3" in third["error"]
        for line in (first, second):
            before, after = soundfile.info(line["source"]), soundfile.info(line["audio"])
            assert (before.frames, before.samplerate) == (after.frames, after.samplerate)
            assert container.read_header(line["tokens"]).samples == before.frames

        audio.write(music / "deep" / "bad.mp3.wav", noise(1, 99).numpy(), 8000)
        (music / "deep" / "bad.mp3").unlink()
        written = Path(first["tokens"]).stat().st_mtime_ns
        assert script("batch_transcode.py", music, out) == 0
        assert "1 files to do, 2 done before" in capsys.readouterr().out
        assert len(manifest.read_text().splitlines()) == 4
        assert Path(first["tokens"]).stat().st_mtime_ns == written


class TestTokensForLm:
    def test_there_and_back(
        self,
        script: Script,
        codec: Codec,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        other = tmp_path / "other.wav"
        audio.write(other, noise(2, 8000).numpy(), 16000)
        clips = [DATA / "speech.flac", other]
        path = tmp_path / "tokens.npz"
        assert script("tokens_for_lm.py", "encode", *clips, "--out", path) == 0
        assert "vocabulary of 300" in capsys.readouterr().out

        with np.load(path) as data:
            assert data["tokens"].dtype == np.uint16
            assert list(data["offsets"]) == [0, 130 * 3, 130 * 3 + 22 * 3]
            assert list(data["lengths"]) == [132300, 8000]
            wave, rate = audio.read(clips[0])
            codes = codec.encode(wave[0], rate)
            assert np.array_equal(data["tokens"][: 130 * 3], codes.flatten()[0])

        out = tmp_path / "decoded"
        assert script("tokens_for_lm.py", "decode", path, "--out", out) == 0
        speech, rate = audio.read(out / "0000-speech.wav")
        assert rate == 44100
        assert np.abs(speech - codec.decode(codes).numpy()).max() < 1e-4
        assert soundfile.info(out / "0001-other.wav").frames == 8000


@pytest.fixture(scope="module")
def tokens(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of tokens of two clips, one of each of two classes, one of them stereo."""
    folder, rows = tmp_path_factory.mktemp("tokens"), []
    for kind, channels in (("speech", 1), ("music", 2)):
        codes = codec.encode(noise(channels, 100_000), 44100)
        header = Header(
            "small", codec.tokenizer_id, 44100, channels, 100_000, 3, codes.columns[0], 9
        )
        flat = torch.cat(codes.flatten()).numpy().astype(np.uint16)
        rows.append(TokenRow(f"{kind}/a", f"clips/{kind}/a.wav", header, flat))
    write_shard(folder, 0, "parquet", rows)
    return folder


class TestTokenLm:
    @pytest.fixture(autouse=True)
    def restored(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        before = signal.getsignal(signal.SIGINT)  # `train` sets another handler
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.slow
    def test_train_measure_continue(
        self,
        script: Script,
        codec: Codec,
        tokens: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        out = tmp_path / "lm"
        words = ("token_lm.py", "train", tokens, "--unseen", tokens, "--out", out, "--steps", 2)
        assert script(*words) == 0
        table = (out / "bits.md").read_text()
        printed = capsys.readouterr().out
        assert printed.startswith("2 steps in ")
        assert printed.endswith(table)
        lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
        assert [line[0] for line in lines] == [
            "class music",
            "class speech",
            "row 0",
            "row 1",
            "row 2",
            "all",
        ]
        columns = codec.encode(noise(100_000), 44100).tokens.shape[1]
        assert [int(line[1]) for line in lines] == [
            6 * columns,
            3 * columns,
            3 * columns,
            3 * columns,
            3 * columns,
            9 * columns,
        ]
        model = ContextModel.load(out / "model.safetensors")
        rows = [row for file in token_files(tokens) for row in read_rows(file, tokens)]
        bits, unigram = [], []
        counts = np.ones((3, 300))
        for row in rows:
            for grid in row.grid.astype(np.int64):
                np.add.at(counts, (np.arange(3)[:, None], grid), 1)
        counts /= counts.sum(1, keepdims=True)
        for row in rows:
            for grid in row.grid.astype(np.int64):
                bits.append(model.bits(grid[None]).detach().numpy()[0])
                unigram.append(-np.log2(np.take_along_axis(counts, grid, 1)))
        for name, values in (("unigram", unigram), ("model", bits)):
            at = ("unigram", "model").index(name) + 2
            assert float(lines[-1][at]) == pytest.approx(np.concatenate(values, 1).mean(), abs=0.02)
            by_row = np.concatenate(values, 1).mean(1)
            assert [float(line[at]) for line in lines[2:5]] == pytest.approx(by_row, abs=0.02)

        measured = (out / "model.safetensors", tokens, "--counts", tokens)
        assert script("token_lm.py", "measure", *measured) == 0
        again = capsys.readouterr().out
        assert again.splitlines()[:2] == table.splitlines()[:2]
        assert float(again.split()[-2]) == pytest.approx(float(lines[-1][3]), abs=0.02)

        heard = tmp_path / "heard"
        words = ("token_lm.py", "continue", out / "model.safetensors", tokens, "--out", heard)
        assert script(*words, "--begin", 1, "--seconds", 1) == 0
        channels = {row.source: row.grid for row in rows}
        grids = np.concatenate([channels[each] for each in sorted(channels)])
        begun = [codec.decode_tokens(grid[:, :43].T.ravel()).numpy() for grid in grids]
        files = sorted(heard.iterdir())
        assert [file.name for file in files] == ["00-a.wav", "01-a.wav", "02-a.wav"]
        for file in files:
            wave, _ = audio.read(file)
            assert wave.shape == (1, (43 + 43) * 1024)
            # The clip itself, up to the samples that the model's first columns change.
            assert (
                min(np.abs(wave[0, : 20 * 1024] - each[: 20 * 1024]).max() for each in begun) < 1e-3
            )

    @pytest.mark.slow
    def test_a_run_that_was_stopped_goes_on(
        self, script: Script, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A stopped and resumed run ends with the weights of an uninterrupted one."""

        def train(name: str) -> int | str | None:
            words = ("train", tokens, "--unseen", tokens, "--out", tmp_path / name, "--steps", 4)
            return script("token_lm.py", *words)

        assert train("whole") == 0
        bits, calls = ContextModel.bits, iter(range(99))

        def stopped(model: ContextModel, grid: Any) -> Any:
            if next(calls) == 1:
                signal.raise_signal(signal.SIGINT)
            return bits(model, grid)

        with monkeypatch.context() as patch:
            patch.setattr(ContextModel, "bits", stopped)
            assert str(train("parts")).startswith("stopped at step 2; the same command resumes")
        assert not (tmp_path / "parts" / "model.safetensors").exists()
        assert torch.load(tmp_path / "parts" / "checkpoint.pt")["step"] == 2
        assert train("parts") == 0
        whole, parts = (
            torch.load(tmp_path / name / "checkpoint.pt")["model"] for name in ("whole", "parts")
        )
        for name, weights in whole.items():
            assert torch.equal(parts[name], weights), name

    @pytest.mark.slow
    def test_time_counts_over_all_parts_of_a_run(
        self, script: Script, tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "lm"
        words = ("token_lm.py", "train", tokens, "--unseen", tokens, "--out", out)
        assert script(*words, "--minutes", 1e-6, "--bf16") == 0
        assert (
            script(*words, "--minutes", 1e-6, "--bf16") == 0
        )  # the run is over, so no step is added
        assert capsys.readouterr().out.count("1 steps in ") == 2
        settings = ContextModel.load(out / "model.safetensors").training_settings
        assert (settings["minutes"], settings["steps"], settings["bf16"]) == (1e-6, 1, True)

    def test_a_second_interrupt_stops_at_once(
        self, script: Script, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def twice(model: ContextModel, grid: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(ContextModel, "bits", twice)
        words = ("train", tokens, "--unseen", tokens, "--out", tmp_path / "lm")
        with pytest.raises(KeyboardInterrupt):
            script("token_lm.py", *words)

    @pytest.mark.slow
    def test_arguments_that_do_not_fit_are_refused(
        self, script: Script, lite: Codec, tokens: Path, tmp_path: Path
    ) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        words = ("token_lm.py", "train", empty, "--unseen", tokens, "--out", tmp_path / "lm")
        assert "holds no Parquet shards" in str(script(*words))
        ContextModel.of(lite).save(tmp_path / "lite.safetensors")
        words = ("token_lm.py", "continue", tmp_path / "lite.safetensors", tokens)
        said = str(script(*words, "--out", tmp_path / "heard"))
        assert f"lite.safetensors is a model of tokenizer {lite.tokenizer_id}, and small" in said

        out = tmp_path / "lm"
        words = ("token_lm.py", "train", tokens, "--unseen", tokens, "--steps", 1, "--out")
        assert script(*words, out) == 0
        said = str(script(*words, out, "--seed", 1))
        assert "checkpoint.pt was begun with" in said
        assert said.endswith("choose another --out")
        (out / "checkpoint.pt").write_bytes(b"damaged")
        assert "checkpoint.pt is not a checkpoint" in str(script(*words, out))
        assert str(script(*words, out / "bits.md")).startswith("error: ")
        for wrong in (("--steps", 0), ("--minutes", -1), ("--device", "gpu")):
            assert script(*words[:4], *wrong) == 2

    def test_tokens_of_two_tokenizers_are_refused(
        self, script: Script, tokens: Path, tmp_path: Path
    ) -> None:
        """The error names the weights of the tokens that do not fit."""
        header = Header("other", ID, 44100, 1, 1024, 3, 1, 9)
        flat = np.zeros(3, np.uint16)
        folder = tmp_path / "two[1]"  # a name that must not be taken for a pattern
        shutil.copytree(tokens, folder)
        write_shard(folder, 1, "parquet", [TokenRow("b", "clips/b.wav", header, flat)])
        words = ("train", tokens, "--unseen", folder, "--out", tmp_path / "lm", "--steps", 1)
        assert f"tokenizer {ID} (made with other)" in str(script("token_lm.py", *words))

    def test_a_loss_that_is_not_finite_ends_the_run(
        self, script: Script, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            ContextModel, "bits", lambda model, grid: torch.full(grid.shape, torch.nan)
        )
        words = ("train", tokens, "--unseen", tokens, "--out", tmp_path / "lm", "--steps", 3)
        assert "the loss is nan at step 0" in str(script("token_lm.py", *words))
        assert not list((tmp_path / "lm").iterdir())


class TestStreamMicrophone:
    @pytest.mark.parametrize("rate", [44100, 48000])
    def test_from_a_file(
        self,
        script: Script,
        codec: Codec,
        tmp_path: Path,
        rate: int,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The streamed audio is what the codec returns for the whole clip."""
        clip, out = tmp_path / "clip.wav", tmp_path / "out.wav"
        audio.write(clip, noise(1, 2 * rate + 17).numpy(), rate)
        assert script("stream_microphone.py", "--file", clip, "--out", out) == 0
        wave, _ = audio.read(clip)
        decoded = codec.decode(codec.encode(wave, rate)).numpy()
        live, live_rate = audio.read(out)
        assert (live_rate, live.shape) == (rate, wave.shape)
        assert np.abs(live - decoded).max() < 1e-3
        printed = capsys.readouterr().out
        encoding, decoding = melcap.StreamEncoder(codec), melcap.StreamDecoder(codec)
        latency = 1024 / 44100 + encoding.latency + decoding.latency
        assert f"latency by design: {latency:.3f} s" in printed
        assert "computing, for each 100 ms" in printed

    def test_without_a_microphone(self, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sounddevice", None)
        ended = script("stream_microphone.py")
        assert "pip install sounddevice, or name a --file" in str(ended)


class TestDemo:
    @pytest.mark.slow
    def test_of_named_clips(
        self, script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pytest.importorskip("matplotlib")
        out = tmp_path / "demo"
        audio.write(tmp_path / "short.wav", noise(2, 4410).numpy(), 22050)
        clips = (tmp_path / "short.wav", DATA / "sound.flac")
        assert script("demo.py", *clips, "--out", out) == 0
        printed = capsys.readouterr().out
        before = (out / "short.png").stat().st_mtime_ns
        assert script("demo.py", clips[0], "--out", out) == 0  # replaces the files of the first run
        assert (out / "short.png").stat().st_mtime_ns > before
        assert sorted(path.name for path in out.iterdir()) == [
            f"{name}.{suffix}" for name in ("short", "sound") for suffix in ("melcap", "png", "wav")
        ]
        assert soundfile.info(out / "short.wav").frames == 4410
        header = container.read_header(out / "sound.melcap")
        size = (out / "sound.melcap").stat().st_size
        (line,) = [line for line in printed.splitlines() if "sound.flac" in line]
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        seconds = header.samples / 44100
        kbps = f"{size * 8 / 1000 / seconds:.2f}"
        assert cells[:4] == ["sound.flac", f"{seconds:.2f}", str(size), kbps]
        assert printed.splitlines()[-1].startswith(f"Listen: {out}/*.wav")

    def test_mistakes_are_one_sentence(self, script: Script, tmp_path: Path) -> None:
        missing = tmp_path / "missing.wav"
        assert str(script("demo.py", missing, "--out", tmp_path)).startswith(f"error: {missing}")
        assert script("demo.py", "a/x.wav", "b/x.wav") == 2

    def test_the_clips_of_the_repository_are_found(
        self, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken: list[str] = []

        def refuse(source: Path, *_: object, **__: object) -> None:
            taken.append(source.name)
            raise InputError("seen")

        monkeypatch.setattr(melcap, "encode_file", refuse)
        monkeypatch.chdir(tmp_path)
        assert script("demo.py") == "error: seen"
        assert taken == ["music.flac"]
        assert sorted(path.name for path in (EXAMPLES / "audio").glob("*.flac")) == [
            "music.flac",
            "sound.flac",
            "speech.flac",
        ]
