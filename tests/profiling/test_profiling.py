"""The scripts of profiling/ that measure: gates refuse, rounds are fair, tables are right."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import melcap
from melcap.codec import Codec
from melcap.config import BaseConfig
from melcap.errors import MelcapError
from melcap.model.base.layers import Attention
from melcap.model.layers import Conv2d as LayerConv2d
from melcap.model.layers import Down2d, ResBlock2d
from melcap.model.stages import inputs_for, run
from melcap.ops.flops import count
from tests.model.base.published import TINY, codec_of

SCRIPTS = Path(__file__).parents[2] / "profiling"


pytestmark = pytest.mark.usefixtures("profiling_scripts")


def contender(name: str, decode: Callable[[Any], Tensor] = lambda codes: codes) -> Any:
    from melcap.bench.speed import Contender

    return Contender(name, 1000, "cpu", lambda wave: wave, decode)


@pytest.fixture
def small(small_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Codec:
    """Let the scripts load a small codec in place of the one that ships, and return one."""
    loaded = partial(melcap.load, small_weights)
    monkeypatch.setattr(melcap, "load", lambda **device: loaded(**device))
    return loaded()


class TestGate:
    def test_melcap_passes(self) -> None:
        from clips import clip
        from contenders import melcap_on
        from gates import agreement

        assert agreement(melcap_on("torch")("cpu"), clip(1.0, 44100)) is None

    @pytest.mark.usefixtures("small")
    @pytest.mark.parametrize(
        ("where", "by", "words"),
        [
            (slice(20000, 20001), 0.05, r"95% of the samples by 0.0e\+00 \(rms\), one by 5.0e-02"),
            (slice(None), 5e-5, r"95% of the samples by 5.0e-05 \(rms\), one by 5.0e-05"),
        ],
    )
    def test_other_samples(self, where: slice, by: float, words: str) -> None:
        from clips import clip
        from contenders import melcap_on
        from gates import agreement

        right = melcap_on("torch")("cpu")

        def decode(codes: Any) -> Tensor:
            heard = right.decode(codes)
            heard[0, where] += by
            return heard

        reason = agreement(replace(right, decode=decode), clip(1.0, 44100))
        assert reason is not None
        assert re.fullmatch("0 of 132 tokens differ, " + words, reason)

    @pytest.mark.usefixtures("small")
    def test_other_tokens(self) -> None:
        from clips import clip
        from contenders import melcap_on
        from gates import agreement

        right = melcap_on("torch")("cpu")

        def encode(wave: Tensor) -> Any:
            codes = right.encode(wave)
            codes.tokens[0, 2, 4] ^= 1
            return codes

        reason = agreement(replace(right, encode=encode), clip(1.0, 44100))
        assert reason is not None
        assert reason.startswith("1 of 132 tokens")

    def test_base_is_compared_with_base(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import contenders
        from clips import clip
        from gates import agreement

        tiny = partial(codec_of, TINY[0])
        monkeypatch.setitem(contenders.CODECS, "melcap base", tiny)
        right, wave = contenders.MELCAP["base-torch"]("cpu"), clip(1.0, 44100)
        assert right.name == "melcap base, torch"
        assert agreement(right, wave) is None
        wrong = replace(right, decode=lambda codes: right.decode(codes) + 1e-4)
        assert agreement(wrong, wave) is not None
        monkeypatch.setitem(contenders.CODECS, "melcap base", partial(codec_of, TINY[2]))
        reason = agreement(right, wave)
        assert reason is not None
        assert "of 264 tokens differ" in reason

    @pytest.mark.parametrize("heard", [torch.full((1, 10000), torch.nan), torch.zeros(1, 2000)])
    def test_a_peer_that_does_not_work(self, heard: Tensor) -> None:
        from gates import agreement

        wave = torch.zeros(10000)
        assert agreement(contender("peer"), wave) is None
        reason = agreement(contender("peer", lambda codes: heard), wave)
        assert reason is not None
        assert "for 10000" in reason


@pytest.mark.slow
def test_random_weights_of_the_published_size() -> None:
    """Tokens vary, and samples are neither silent nor clipped."""
    from clips import clip
    from contenders import base

    codec = base()
    assert codec.config == BaseConfig()
    codes = codec.encode(clip(0.7, 44100), 44100)
    assert len(codes.tokens.unique()) > 80
    assert codes.tokens.flatten().bincount().max() < 25
    decoded = codec.decode(codes)
    assert decoded.std() > 0.01
    assert decoded.abs().max() < 0.5


def test_random_weights_are_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import contenders

    monkeypatch.setattr(contenders, "BaseConfig", lambda: codec_of(TINY[0]).config)
    state = torch.get_rng_state()
    codec = contenders.base()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)  # other programs draw other numbers before
    again = contenders.base()
    for name, value in codec.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contenders take turns; slow calls have fewer rounds, and what takes too long has none."""
    from clips import clip

    from melcap.bench import speed

    order: list[str] = []
    clock = {"quick": iter([9.0, *(0.1 * n for n in range(1, 100))]), "slow": iter([20.0] * 99)}

    def timed(call: Callable[[], object], device: str) -> tuple[float, object]:
        name = str(call())
        order.append(name)
        return 31.0 if name == "endless" else next(clock[name]), name

    def of(name: str) -> Any:
        return replace(contender(name, lambda codes: name), encode=lambda wave: name)

    monkeypatch.setattr(speed, "timed", timed)
    monkeypatch.setattr(speed, "LONGEST_CALL", 30.0)
    contenders = {name: of(name) for name in ("quick", "slow", "endless")}
    rows, left_out = speed.in_turns(contenders, speed.Setting(2.0, 3, 7, 1), clip)
    assert left_out == ["endless: encode of 3 clips of 2 s takes 31 s"]
    assert order[:5] == ["quick", "quick", "slow", "slow", "endless"]
    assert order[5:9] == ["quick", "quick", "slow", "slow"]
    by = {(row["codec"], row["way"]): row for row in rows}
    assert by["slow", "encode"]["rounds"] == 3
    assert by["slow", "decode"]["x_real_time"] == pytest.approx(2 * 3 / 20)
    quick = by["quick", "decode"]
    assert quick["rounds"] == 7
    assert quick["p25"] < quick["x_real_time"] < quick["p75"]


def test_what_needs_too_much_memory_is_named() -> None:
    from clips import clip

    from melcap.bench.speed import Setting, in_turns

    def decode(codes: Any) -> Tensor:
        raise torch.OutOfMemoryError("out of memory")

    contenders = {"small": contender("small"), "large": contender("large", decode)}
    rows, left_out = in_turns(contenders, Setting(1.0, 64, 3), clip)
    assert left_out == ["large: no memory for decode of 64 clips of 1 s"]
    found = [(row["codec"], row["way"]) for row in rows]
    assert found == [("small", "encode"), ("small", "decode"), ("large", "encode")]


def test_a_copy_without_history_is_told_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import machine

    monkeypatch.setenv("MELCAP_COMMIT", "c0ffee")
    assert machine.commit() == "c0ffee"


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_quick_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that is not installed is named, and the run goes on."""
    import rtf

    monkeypatch.setattr(rtf, "CHECKED_SECONDS", 1.0)
    monkeypatch.setitem(sys.modules, "snac", None)
    words = ["--quick", "--device", "cpu", "--seconds", "1", "--threads", "1"]
    words += ["--codec", "melcap-torch", "--codec", "snac", "--out", str(tmp_path)]
    app = rtf.typer.Typer()
    app.command()(rtf.main)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "rtf-cpu.json").read_text())
    assert [(row["codec"], row["way"]) for row in found["rows"]] == [
        ("melcap, torch", "encode"),
        ("melcap, torch", "decode"),
    ]
    assert {row["rounds"] for row in found["rows"]} == {5}
    assert [row["codec"] for row in found["gflop"]] == ["melcap"]
    assert "snac cannot be imported" in found["skipped"]["snac"]
    assert {"machine", "torch", "model", "commit", "date"} <= found["origin"].keys()
    text = (tmp_path / "rtf-cpu.md").read_text()
    speeds = [
        format(row["x_real_time"], ".1f" if row["x_real_time"] < 100 else ".0f")
        for row in found["rows"]
    ]
    (line,) = (line for line in text.splitlines() if line.startswith("| melcap, torch | 1 | 1 s |"))
    assert [cell.split()[0] for cell in line.split(" | ")[4:6]] == speeds
    assert "- snac: " in text


@pytest.mark.parametrize("quick", [True, False])
def test_the_codecs_that_are_timed(
    quick: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them by default, and with --quick those that are not slow."""
    import contenders
    import rtf

    asked = []

    def measure(plan: Any, keep: object) -> dict[str, Any]:
        asked.extend(plan.names)
        return {"rows": [], "skipped": {}, "left_out": []}

    monkeypatch.setattr(rtf, "measure", measure)
    monkeypatch.setattr(rtf, "rates", dict)
    monkeypatch.setattr(rtf, "memory_of", list)
    monkeypatch.setattr(rtf, "write", lambda *_: SCRIPTS / "rtf.py")
    rtf.main(device=["cpu"], quick=quick, out=tmp_path)
    every = [*contenders.MELCAP, *contenders.PEERS]
    assert {"melcap-torch", "base-torch", "base-triton", "encodec", "dac"} <= {*every}
    left_out = {"base-torch", "snac", "dac"} if quick else set()
    assert asked == [name for name in every if name not in left_out]


@pytest.mark.usefixtures("small")
def test_graphs_have_a_row_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are used by default, so that they are switched off for the row without them."""
    import contenders

    from melcap.model.network import Network

    codec = melcap.load()
    monkeypatch.setattr(contenders, "unavailable", lambda backend: [])
    monkeypatch.setattr(Network, "device", torch.device("cuda"))
    monkeypatch.setattr(Codec, "to", lambda codec, device: codec)
    monkeypatch.setitem(contenders.CODECS, "melcap", lambda: codec)
    assert contenders.MELCAP["melcap-triton"]("cuda").name == "melcap, triton"
    assert codec._graphs is None
    assert contenders.MELCAP["melcap-graphs"]("cuda").name == "melcap, triton + CUDA graphs"
    assert codec._graphs is not None
    assert codec._graphs.encode.required


def test_work_is_that_of_melcaps_codecs(
    small_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoding takes convolutions, attention and the search; the front end takes hardly any."""
    import contenders
    import report
    import rtf

    base, done = codec_of(TINY[0]), []

    def convolved(layer: torch.nn.Conv2d, _: object, y: Tensor) -> None:
        done.append(2 * y.numel() * layer.weight[0].numel())

    def attended(_: Attention, __: object, y: Tensor) -> None:
        done.append(2 * 2 * y.shape[1] * y[0, 0].numel() ** 2)

    for layer in base.encoder.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(convolved)
        elif isinstance(layer, Attention):
            layer.register_forward_hook(attended)
    monkeypatch.setattr(rtf, "COUNTED_SECONDS", 0.5)
    monkeypatch.setitem(contenders.CODECS, "melcap", partial(melcap.load, small_weights))
    monkeypatch.setitem(contenders.CODECS, "melcap base", lambda: base)
    names = ("EnCodec 24 kHz", "melcap base, torch", "melcap, torch", "melcap base, triton")
    with torch.no_grad():
        rows = rtf.work({"codec": name} for name in names)
    assert [row["codec"] for row in rows] == ["melcap base", "melcap"]
    search = 2 * base.columns(22050) * base.codebook.vectors.numel() * base.rows
    expected = (sum(done) + search) / 0.5 / 1e9
    assert expected < rows[0]["encode"] < 1.03 * expected
    assert rows[0]["decode"] > rows[0]["encode"] > rows[1]["encode"]
    found = {"rows": [], "skipped": {}, "left_out": [], "gflop": rows}
    text = report.TABLES["rtf"](found)
    for row in rows:
        assert f"| {row['codec']} | {row['encode']:.3g} | {row['decode']:.3g} |" in text


@pytest.mark.slow
def test_the_profile(small: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile has every stage, and together they have the operations of the whole."""
    import layers
    import report
    import rtf

    monkeypatch.setattr(layers, "SECONDS", 1.0)
    monkeypatch.setattr(layers, "ROUNDS", 1)
    with torch.no_grad():
        found = {"origin": {"machine": "this"}} | layers.profile("cpu")
    columns = small.columns(44100)
    first, last = inputs_for(small.encode_stages, 0, columns)
    kinds, _ = count(
        lambda x: small.codebook.tokens(run(small.encode_stages, x)), torch.zeros(1, last - first)
    )
    encoding = [row for row in found["rows"] if row["way"] == "encode"]
    assert len(encoding) == len(small.encode_stages) + 3
    assert encoding[-1]["stage"] == "all"
    assert encoding[-1]["gflop"] == pytest.approx(kinds.total() / 1e9)
    monkeypatch.setattr(rtf, "COUNTED_SECONDS", 1.0)
    whole = {row["way"]: row["gflop"] for row in found["rows"] if row["stage"] == "all"}
    assert rtf.gflop(small) == pytest.approx(whole)
    text = report.write(tmp_path / "profile", "profile", found).read_text()
    assert all(f"| {row['stage']} |" in text for row in found["rows"])


@pytest.mark.usefixtures("small")
def test_growth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import growth
    import report

    asked = []

    def peak_memory(name: str, seconds: float, batch: int) -> dict[str, float]:
        asked.append((name, seconds, batch))
        return {"peak_mb": 300.0, "before_mb": 200.0}

    monkeypatch.setattr(growth, "peak_memory", peak_memory)
    monkeypatch.setattr(growth, "LENGTHS", (0.3, 1.0))
    monkeypatch.setattr(growth, "BATCHES", (1, 2))
    monkeypatch.setattr(growth, "BATCH_SECONDS", 0.3)
    found = {"origin": {"machine": "this"}} | growth.growth()
    assert asked == [("melcap-torch", 0.3, 1), ("melcap-torch", 1.0, 1), ("melcap-torch", 0.3, 2)]
    assert all(row["encode_ms_per_s"] > 0 and row["work_mb"] == 100 for row in found["rows"])
    text = report.write(tmp_path / "growth", "growth", found).read_text()
    assert "| 1 s | 1 |" in text


@pytest.mark.slow
def test_memory_is_that_of_the_work() -> None:
    from memory import peak_memory

    found = peak_memory("melcap-torch", 5.0)
    assert found["before_mb"] > 50
    assert found["peak_mb"] - found["before_mb"] > 10


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    import streams

    monkeypatch.setattr(streams, "_cold", lambda rounds: [1.0] * rounds)
    monkeypatch.setattr(streams, "PIECES", (1, 20))
    monkeypatch.setattr(streams, "SECONDS", 0.8)
    rows = streams.streaming(rounds=2)
    assert len(rows) == 3 * 2 + 1
    pieces = [row["what"].partition("pieces of ")[2] for row in rows[1:5]]
    assert pieces == ["23 ms", "23 ms", "464 ms", "464 ms"]
    assert all(0 < row["p25"] <= row["median"] <= row["p75"] for row in rows)


@pytest.mark.slow
def test_a_cold_start_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command succeeds, and prints how long it took; the first round is left out."""
    import streams

    run, said = subprocess.run, []

    def run_once(*command: Any, **options: Any) -> Any:
        said.append(said[0] if said else run(*command, **options))
        return said[-1]

    monkeypatch.setattr(streams.subprocess, "run", run_once)
    monkeypatch.setattr(streams, "SOURCE", SCRIPTS.parent / "tests" / "data" / "speech.flac")
    (seconds,) = streams._cold(1)
    assert seconds > 0
    assert len(said) == 2


class TestBulk:
    @pytest.mark.slow
    def test_the_figures(
        self, small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("pyarrow")
        import bulk

        small = melcap.load(small_weights)
        monkeypatch.setattr(melcap, "load", lambda: small)
        bulk.main(clips=6, rounds=1, encoders=1, readers=1, out=tmp_path / "x.json")
        found = json.loads((tmp_path / "x.json").read_text())
        assert found["clips"] == 6
        assert found["folder, times real time"] == found["folder, of each round"][0] > 0
        alone = found["codec alone, times real time"]
        assert found["ratio"] == pytest.approx(found["folder, times real time"] / alone)

    @pytest.mark.slow
    def test_other_tokens_are_not_timed(self, codec: Codec, tmp_path: Path) -> None:
        pytest.importorskip("pyarrow")
        import bulk

        from melcap.bulk.tokenize import Options, tokenize
        from tests.helpers import draw_weights

        bulk.make_folder(tmp_path / "clips", 6)
        options = Options(readers=1, encoders=1)
        tokenize([str(tmp_path / "clips")], tmp_path / "tokens", codec, options)
        bulk.gate(tmp_path / "clips", tmp_path / "tokens", codec)
        with pytest.raises(SystemExit, match="tokens differ: not timed"):
            bulk.gate(tmp_path / "clips", tmp_path / "tokens", draw_weights(Codec(codec.config), 1))
        (tmp_path / "clips" / "more.wav").write_bytes(b"")
        with pytest.raises(SystemExit, match="6 rows for 7 clips"):
            bulk.gate(tmp_path / "clips", tmp_path / "tokens", codec)

    def test_the_arithmetic_of_scale(self) -> None:
        from scale import Plan

        row = Plan("x", 100.0, 2.0).row(1e6, 10, 0.5)
        assert row == ["x", "100", "20,000", "84", "67", "40,000"]

    def test_the_arithmetic_of_training_at_scale(self) -> None:
        from train_scale import row

        measured = {"run": "x", "batch": 10, "step_ms": 50.0, "audio_seconds_per_second": 900.0}
        told = row(measured, hours=10, gpus=4, share=0.5)
        assert told == ["x", "10", "40", "100 ms", "1,800 s", "200", "0.3 min", "0.2 GB/s"]

    def test_the_page_has_the_table_of_training_at_scale(self) -> None:
        import train_scale

        page = (Path(__file__).parents[2] / "docs" / "training-at-scale.md").read_text()
        app = train_scale.typer.Typer()
        app.command()(train_scale.main)
        done = CliRunner().invoke(app, ["--hours", "1000", "--gpus", "8"])
        rows = [line for line in done.output.splitlines() if line.startswith("| stage")]
        assert len(rows) == 4
        assert all(line in page for line in rows)
        assert "audio: 317.5 GB" in done.output
        assert "gradients of stage 1: 6.5 MB" in done.output
        assert "gradients of stage 2: 8.8 MB" in done.output


def test_the_table_of_kernels_has_the_last_run_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kernels

    monkeypatch.setattr(kernels, "RESULTS", tmp_path)
    columns = [*kernels.COLUMNS, "gpu", "torch", "triton", "melcap", "commit", "date"]
    runs = [
        ("log_mel", "A", "old"),
        ("nearest_code", "A", "old"),
        ("convnext1d", "B", "old"),
        ("griffin_lim", "B", "old"),
        ("convnext1d", "A", "old"),
        ("log_mel", "A", "new"),
    ]
    with (tmp_path / "kernels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="x")
        writer.writeheader()
        for operation, gpu, commit in runs:
            case = f"{commit} on {gpu}"
            writer.writerow({"operation": operation, "case": case, "gpu": gpu, "commit": commit})
    kernels.write({"copy B/s": 1e12})
    text = (tmp_path / "kernels.md").read_text()
    rows = [line.split(" | ")[:2] for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        ["| nearest_code", "old on A"],
        ["| convnext1d", "old on A"],
        ["| log_mel", "new on A"],
    ]
    assert text.startswith("# Kernels on A\n")


def test_the_table_of_training_says_what_was_measured(tmp_path: Path) -> None:
    import training

    timed = training.Row("stage 1", 2, False, "log_mel", 9.0, 70.0, 0.0, 0, 0, 0.0, [])
    profiled = ("stage 1", 32, True, "", 43.2, 2489.8, 2.05, 1904, 5, 0.31, [("gemm", 0.25)])
    rows = [training.Row(*profiled), timed]
    training.write(tmp_path / "training-cuda", rows, {"machine": "a GPU"})
    text = (tmp_path / "training-cuda.md").read_text()
    assert "| stage 1 | 32 | yes |  | 43 ms | 2490 s | 2.0 GB | 1904 | 5 | 31% |" in text
    assert "| stage 1 | 2 | no | log_mel | 9 ms | 70 s |  |  |  |  |" in text
    assert "- 25.0% `gemm`" in text
    found = json.loads((tmp_path / "training-cuda.json").read_text())
    assert found["rows"][0]["busy"] == 0.31


class TestQuality:
    @pytest.mark.slow
    def test_the_levels_are_timed_and_told(
        self, small_weights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import quality

        monkeypatch.setattr(quality, "SECONDS", 0.5)
        codecs = {level: melcap.load(small_weights, quality=level) for level in quality.QUALITIES}
        quality.check(codecs)
        before = torch.get_num_threads()
        rows = quality.speeds(codecs, rounds=3)
        torch.set_num_threads(before)
        assert {(row["codec"], row["threads"]) for row in rows} == {
            (level, threads) for level in quality.QUALITIES for threads in (1, 2)
        }
        measures = {name: {"mean": 1.0} for name in quality.MEASURES}
        names = ("melcap", "melcap-fast", "melcap-best")
        found = {
            "origin": {"machine": "this"},
            "steps": dict.fromkeys(quality.QUALITIES, 4),
            "rounds": 3,
            "speeds": rows,
            "scores": [{"codec": name, "class": "mean", **measures} for name in names],
            "clips": 3,
            "data": "clips",
        }
        text = quality.text(found)
        assert "| default | 4 | " in text
        assert text.count("(1.00)") >= 2

    def test_what_is_not_the_level_it_says_is_not_timed(self, small_weights: Path) -> None:
        import quality

        codecs = {level: melcap.load(small_weights, quality=level) for level in quality.QUALITIES}
        with pytest.raises(MelcapError, match="fast does not give the samples of"):
            quality.check({**codecs, "fast": codecs["best"]})


class TestEstimate:
    def test_every_launch_is_counted_and_none_runs(self) -> None:
        import estimate

        from melcap.kernels.launch import launched

        before = launched.copy()
        small, large = (estimate.passes(batch, 0.3) for batch in (1, 4))
        assert launched == before
        codec = melcap.load()
        encoding = small["encode"].costs
        blocks = sum(isinstance(layer, ResBlock2d) for layer in codec.encoder)
        others = sum(isinstance(layer, (LayerConv2d, Down2d)) for layer in codec.encoder)
        assert len(encoding["conv2d_kernel"]) == 2 * blocks + others + 1  # and the Haar patches
        assert len(encoding["log_mel_kernel"]) == 1
        assert len(small["decode"].costs["griffin_lim_step"]) == 16
        for way in ("encode", "decode"):
            assert small[way].costs.keys() == large[way].costs.keys()
            for one, four in zip(
                small[way].costs["conv2d_kernel"], large[way].costs["conv2d_kernel"], strict=True
            ):
                assert [kind for kind, _ in one.products] == [kind for kind, _ in four.products]
                assert four.products[0][1] == 4 * one.products[0][1]
                assert one.memory < four.memory < 4 * one.memory  # weights are read once

    def test_the_slowest_need_counts(self) -> None:
        from estimate import CEILINGS, LAUNCH, REACHED, Cost

        copied = Cost(CEILINGS["memory"] * REACHED["memory"])
        assert copied.seconds() == 1
        assert replace(copied, products=(("half", 1.0),)).seconds() == 1
        assert Cost(1.0, serial=3e-6).seconds(2.0) == pytest.approx(2 * (LAUNCH + 3e-6))

    def test_the_page(self, tmp_path: Path) -> None:
        import estimate

        estimate.main(tmp_path / "estimate.md", small=True)
        page = (tmp_path / "estimate.md").read_text()
        cells = r"[0-9.]+ \| [0-9]+ \| [0-9,]+ \| [0-9,]+"
        assert re.search(rf"\| decode, 1 x 1 s \| {cells} \|", page)
        assert "not measured" in page
