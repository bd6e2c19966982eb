"""`melcap bench`: what it measures and says. No test asserts a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from melcap import audio
from melcap.base_codec import BaseCodec
from melcap.bench import agreement, clips, kernels, speed
from melcap.bench.agreement import disagreement
from melcap.cli import commands
from melcap.codec import Codec
from melcap.errors import AudioFileError
from melcap.ops import registry
from melcap.pretrained import save
from tests.model.base.published import TINY, codec_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(small_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call the command, with a small codec by default; threads stay as they are."""
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)

    def call(*arguments: object, weights: Path = small_weights) -> Result:
        words = ["bench", "--weights", str(weights), *map(str, arguments)]
        result = CliRunner().invoke(commands.app, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture(scope="module")
def base() -> BaseCodec:
    """Return a small codec of the published architecture."""
    return codec_of(TINY[0])


@pytest.fixture(scope="module")
def base_weights(base: BaseCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save(base, path)
    return path


@pytest.mark.slow
def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, melcap.cli.commands\n"
        "try: melcap.cli.commands.app(['bench', '--help'])\n"
        "finally: print('loaded:', sorted({'torch', 'numpy', 'triton', 'av'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert "loaded: []" in done.stdout
    for word in ("--seconds", "--batch", "--rounds", "--threads", "--kernels", "--device"):
        assert word in done.stdout


@pytest.mark.slow
def test_each_length_with_each_batch(
    bench: Callable[..., Result], codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    words = ("--seconds", 0.2, "--seconds", 0.4, "--batch", 1, "--batch", 2, "--rounds", 3)
    data = json.loads(bench(*words, "--threads", 1, "--json").stdout)
    assert threads == [1]
    found = [(row["seconds"], row["batch"], row["way"]) for row in data["rows"]]
    assert found == [
        (seconds, size, way)
        for seconds in (0.2, 0.4)
        for size in (1, 2)
        for way in ("encode", "decode")
    ]
    for row in data["rows"]:
        assert row["rounds"] == 3
        assert 0 < row["p25"] <= row["x_real_time"] <= row["p75"]
    assert (data["device"], data["backend"], data["graphs"]) == ("cpu", "torch", False)
    assert data["threads"] == torch.get_num_threads()
    assert data["clip"] == "synthetic"
    assert data["origin"]["model"] == codec.model
    assert data["left_out"] == []
    assert {"machine", "cores", "load before", "python", "torch", "melcap", "date"} < data[
        "origin"
    ].keys()


def test_the_text_has_what_the_json_has(bench: Callable[..., Result], codec: Codec) -> None:
    text = bench("--seconds", 0.3, "--batch", 2, "--rounds", 3).stdout
    (line,) = (line for line in text.splitlines() if line.startswith("| 0.3 s | 2 | "))
    assert line.count(" to ") == 2, "quartiles of encode and of decode"
    for part in (codec.model, "backend", "threads", "machine", "x real time"):
        assert part in text


def test_speed_is_audio_over_time() -> None:
    """The median of 4 clips of 2 s in 1, 2 and 4 s is 4 times real time."""
    row = speed._row("x", "encode", speed.Setting(2.0, 4, 3), [4.0, 1.0, 2.0])
    assert (row["p25"], row["x_real_time"], row["p75"]) == (2.0, 4.0, 8.0)
    assert speed.speed_in_words(row) == "4.0 (2.0 to 8.0)"


def test_nothing_is_timed_whose_samples_are_not_the_references(
    bench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = speed.contender_of

    def wrong(*arguments: Any) -> speed.Contender:
        contender = right(*arguments)
        return replace(contender, decode=lambda codes: contender.decode(codes) + 0.05)

    def never(*_: object) -> Any:
        raise AssertionError("it was timed")

    monkeypatch.setattr(speed, "contender_of", wrong)
    monkeypatch.setattr(speed, "in_turns", never)
    done = bench("--seconds", 0.3, "--batch", 1, "--json")
    assert done.exit_code == 1
    assert "nothing is timed" in json.loads(done.stdout)["error"]
    assert "0 of " in done.stderr


class TestGraphs:
    """CUDA graphs are required or switched off by name, and their results are compared."""

    def test_on_a_cpu(self, bench: Callable[..., Result]) -> None:
        words = ("--seconds", 0.3, "--batch", 1, "--rounds", 3, "--json")
        done = bench("--graphs", *words)
        assert done.exit_code == 1
        assert "need a codec on a CUDA device" in json.loads(done.stdout)["error"]
        assert json.loads(bench("--no-graphs", *words).stdout)["graphs"] is False

    def test_the_second_result_is_compared(self) -> None:
        """The first one was computed before there was a graph."""
        results = iter(range(9))
        assert speed.settled(lambda: next(results), "cpu") == 0
        assert speed.settled(lambda: next(results), "cuda") == 2


class TestPublished:
    """Codecs of the published architecture are measured as others are."""

    def test_it_is_timed(self, bench: Callable[..., Result], base_weights: Path) -> None:
        words = ("--seconds", 0.3, "--batch", 2, "--rounds", 3, "--json")
        data = json.loads(bench(*words, weights=base_weights).stdout)
        assert [row["way"] for row in data["rows"]] == ["encode", "decode"]
        assert data["origin"]["model"].startswith("tiny-tanh-24320-")

    def test_it_is_compared_with_itself(self, base: BaseCodec) -> None:
        wave = clips.synthetic(1.0, base.sample_rate)[None]
        codes = base.encode(wave, base.sample_rate)
        decoded = base.decode(codes)
        assert disagreement(codes, decoded, wave, base) is None
        assert disagreement(codes, decoded + 1e-4, wave, base) is not None
        codes.tokens[0, 3, 4] ^= 1
        reason = disagreement(codes, decoded, wave, base)
        assert reason is not None
        assert reason.startswith("1 of 264 tokens")

    def test_graphs_are_refused(self, bench: Callable[..., Result], base_weights: Path) -> None:
        done = bench("--graphs", "--seconds", 0.3, weights=base_weights)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "melcap bench --graphs cannot work with tiny-tanh-24320-" in done.stderr

    def test_its_kernels(self, base: BaseCodec) -> None:
        calls = kernels.calls_of(base, clips.synthetic(0.5, base.sample_rate))
        by = Counter[str]()
        for call in calls:
            by[call.operation] += call.count
        blocks = base.config.vocoder.blocks
        assert len(calls) < sum(by.values()), "like calls are one"
        convolutions = by.pop("conv2d")
        assert convolutions >= sum(isinstance(part, nn.Conv2d) for part in base.modules())
        assert by == {"log_mel": 1, "nearest_code": 1, "channel_norm": 2, "convnext1d": blocks}


def test_the_reference_works_in_other_chunks(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = clips.synthetic(0.3, codec.sample_rate)[None]
    codes = codec.encode(wave, codec.sample_rate)
    decoded, before, seen = codec.decode(codes), codec.chunk_columns, []
    monkeypatch.setattr(
        Codec, "decode", lambda self, codes: seen.append(self.chunk_columns) or decoded
    )
    assert disagreement(codes, decoded, wave, codec) is None
    assert seen == [agreement.CHUNK_COLUMNS]
    assert codec.chunk_columns == before != agreement.CHUNK_COLUMNS


class TestClips:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """A second of a ramp in the first channel, at 8 kHz, and silence in the second."""
        path = tmp_path / "ramp.wav"
        wave = np.stack((np.linspace(0, 0.5, 8000), np.zeros(8000)))
        audio.write(path, wave.astype(np.float32), 8000)
        return path

    def test_a_file_is_cut_or_repeated(self, file: Path) -> None:
        clip = clips.of_file(file, 2.5)
        long, short = clip(2.5, 8000), clip(0.25, 8000)
        assert (len(long), len(short)) == (20000, 2000)
        assert torch.equal(long[:8000], long[8000:16000])
        assert torch.equal(long[:2000], short)
        assert long[7999] > 0.4, "the first channel"
        assert len(clip(2.5, 44100)) == 110250

    def test_no_more_is_read_than_is_measured(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clip = clips.of_file(file, 0.5)
        assert torch.equal(clip(1.0, 8000)[4000:], clip(0.5, 8000))

    def test_a_file_without_audio(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.wav"
        soundfile.write(path, np.zeros(0, np.float32), 44100)
        with pytest.raises(AudioFileError, match=r"empty\.wav"):
            clips.of_file(path, 1.0)

    def test_the_command_takes_one(self, bench: Callable[..., Result], file: Path) -> None:
        done = bench(file, "--seconds", 0.2, "--batch", 1, "--rounds", 3, "--json")
        assert json.loads(done.stdout)["clip"] == str(file)

    def test_the_synthetic_one_is_always_the_same_and_sounds(self) -> None:
        first, second = (clips.synthetic(1.0, 8000) for _ in range(2))
        assert torch.equal(first, second)
        assert 0.02 < first.std() < 0.5
        assert first.abs().max() < 1


class TestKernels:
    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
    def test_every_reason_why_not(
        self, bench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kernels, "unavailable", lambda name: ["no luck", "no time"])
        done = bench("--kernels")
        assert done.exit_code == 1
        assert done.stdout == ""
        assert done.stderr == "error: kernels cannot be timed here: no luck; no time\n"

    def test_not_in_the_interpreter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        monkeypatch.setattr(kernels, "unavailable", lambda name: [])
        (reason,) = kernels.reasons_against_timing("cuda")
        assert "TRITON_INTERPRET" in reason
        monkeypatch.delenv("TRITON_INTERPRET")
        assert kernels.reasons_against_timing("cuda") == []
        assert "--device cuda" in kernels.reasons_against_timing("cpu")[0]

    def test_the_calls_are_those_of_the_codec(self, codec: Codec) -> None:
        calls = kernels.calls_of(codec, clips.synthetic(0.1, codec.sample_rate))
        by = {call.operation: call for call in calls}
        assert by.keys() == {*registry.OPERATIONS}
        assert by["log_mel"].count == by["nearest_code"].count == 1
        assert torch.equal(by["nearest_code"].arguments[1], codec.codebook.vectors)
        assert by["upsample_conv1d"].arguments[0].shape[1] == 16
        convolutions = [call.count for call in calls if call.operation == "conv2d"]
        # Each end of the encoder and decoder, two levels up and down, and three of the vocoder.
        assert sum(convolutions) == 11
        norms = [call.count for call in calls if call.operation == "channel_norm"]
        assert sum(norms) == 2  # those in convolutions are parts of these

    @pytest.mark.slow
    def test_each_operation_is_checked_and_timed(
        self,
        bench: Callable[..., Result],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """In Triton's interpreter, with times that are made up."""
        pytest.importorskip("triton")
        monkeypatch.setattr(kernels, "reasons_against_timing", lambda device: [])
        asked = []

        def timed(contenders: dict[str, Any]) -> dict[str, kernels.Timing]:
            asked.append([*contenders])
            return {
                "triton": kernels.Timing(1.0, 0.9, 1.1, None),
                "torch": kernels.Timing(2.5, 2.4, 2.6, None),
            }

        monkeypatch.setattr(kernels, "timed", timed)
        assert registry.unavailable("triton") == []
        wrong = registry.implementation("upsample_conv1d", "triton")

        def shifted(*arguments: Any) -> Tensor:
            return wrong.run(*arguments) + 1e-2

        monkeypatch.setitem(
            registry._implementations, ("upsample_conv1d", "triton"), replace(wrong, run=shifted)
        )
        calls_of = kernels.calls_of

        def few(*given: Any) -> list[kernels.Call]:
            """One call of each operation, without those that take long in the interpreter."""
            by = {call.operation: call for call in calls_of(*given)}
            return [by[name] for name in ("nearest_code", "channel_norm", "upsample_conv1d")]

        monkeypatch.setattr(kernels, "calls_of", few)
        data = json.loads(bench("--kernels", "--seconds", 0.1, "--json").stdout)
        rows = {row["operation"]: row for row in data["kernels"]}
        assert rows.keys() == registry.OPERATIONS.keys()
        for name in ("nearest_code", "channel_norm"):
            row = rows[name]
            assert row["error"] <= row["allowed"] < 1e-3
            assert (row["triton"]["median"], row["speedup"]) == (1.0, 2.5)
        assert rows["upsample_conv1d"]["error"] == pytest.approx(1e-2, rel=0.01)
        assert "wrong" in rows["upsample_conv1d"]["why"]
        assert "triton" not in rows["upsample_conv1d"]
        assert "no layer" in rows["convnext1d"]["why"]
        assert asked == [["triton", "torch"]] * 2
        monkeypatch.setattr(kernels, "compare", lambda *_: data["kernels"])
        text = bench("--kernels", "--seconds", 0.1).stdout
        assert "1.000 (0.900 to 1.100) | 2.500 (2.400 to 2.600) | 2.50 |" in text
        assert "| convnext1d |  |  |  |  |  | no layer of these weights uses it |" in text
