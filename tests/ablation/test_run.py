"""Plans of ablations are read, run, measured and resumed, and differences have intervals."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import numpy as np
import pytest
from typer.testing import CliRunner

from melcap import audio
from melcap.ablation.plan import read_plan
from melcap.ablation.run import train_variant
from melcap.ablation.table import markdown, paired_difference
from melcap.cli.commands import app
from melcap.config import CodecConfig
from melcap.errors import InputError, MelcapError
from melcap.evaluation import report
from melcap.evaluation.measures import metrics
from melcap.evaluation.measures.perceptual import Dnsmos
from melcap.training import run as training_run
from melcap.training.checkpoint import Checkpoint
from melcap.training.loop import LoopOptions, train
from tests.training.helpers import cache_of_clips, files_of

TINY = {
    "tokenizer": {
        "channels": [4, 4, 4],
        "encoder_blocks": [0, 0, 1],
        "decoder_blocks": [0, 0, 1],
        "codebook_size": 64,
        "codebook_dim": 4,
    }
}


def plan_file(folder: Path, **plan: Any) -> Path:
    path = folder / "plan.json"
    path.write_text(json.dumps(plan))
    return path


def test_settings_of_a_variant_are_over_those_of_the_plan(tmp_path: Path) -> None:
    plan = read_plan(
        plan_file(
            tmp_path,
            minutes=2,
            settings={"stage": 1, "batch": 3, "rate": 1e-3, "codec": TINY},
            options=["--bf16"],
            variants=[
                {"name": "as it is"},
                {"name": "more rate", "settings": {"rate": 2e-3}, "options": ["--no-bf16"]},
                {"name": "wide", "settings": {"codec": {"tokenizer": {"codebook_dim": 9}}}},
            ],
        )
    )
    first, second, third = plan.variants
    assert (first.config.rate, second.config.rate, third.config.rate) == (1e-3, 2e-3, 1e-3)
    assert {variant.config.batch for variant in plan.variants} == {3}
    assert first.options == ["--bf16"]
    assert second.options == ["--bf16", "--no-bf16"]
    assert first.config.codec.tokenizer.codebook_dim == 4
    expected = {**asdict(first.config.codec.tokenizer), "codebook_dim": 9}
    assert asdict(third.config.codec.tokenizer) == expected
    assert first.config.codec.vocoder == CodecConfig().vocoder
    assert second.checkpoint(Path("out")) == Path("out/more-rate/stage1")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"variants": [{"name": "a"}]}, "not a plan of an ablation: KeyError..minutes"),
        ({"minutes": 1, "variants": []}, "needs variants"),
        ({"minutes": 1, "variants": [{"name": "a b"}, {"name": "a-b"}]}, "a name of its own"),
        ({"minutes": 1, "variants": [{"settings": {}}]}, "not a plan"),
        ({"minutes": 1, "variants": [{"name": "a", "settings": {"size": 1}}]}, "no setting"),
        ({"minutes": 1, "variants": 3}, "not a plan"),
        ({"minutes": 0, "variants": [{"name": "a"}]}, "minutes must be above 0"),
        (
            {"minutes": 1, "variants": [{"name": "a"}, {"name": "b", "settings": {"stage": 2}}]},
            "different recipes",
        ),
    ],
)
def test_what_is_no_plan(tmp_path: Path, plan: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_plan(plan_file(tmp_path, **plan))


def test_stage_2_and_the_joint_stage_compare(tmp_path: Path) -> None:
    """Both make a whole codec. Their checkpoints need folders of their own all the same."""
    variants = [{"name": "as it is"}, {"name": "joint", "settings": {"joint": True}}]
    plan = {"minutes": 1, "settings": {"stage": 2, "columns": 5}, "variants": variants}
    first, second = read_plan(plan_file(tmp_path, **plan)).variants
    assert first.checkpoint(Path("out")) == Path("out/as-it-is/stage2")
    assert second.checkpoint(Path("out")) == Path("out/joint/joint")
    assert (first.config.columns, second.config.columns) == (5, 5)
    assert (first.config.constant_phase, second.config.constant_phase) == (False, True)
    variants[1]["name"] = "as it is"
    with pytest.raises(InputError, match="a name of its own"):
        read_plan(plan_file(tmp_path, **plan))
    variants[1] = {"name": "vocoder", "settings": {"from_mels": True}}
    with pytest.raises(InputError, match="different recipes"):
        read_plan(plan_file(tmp_path, **plan))


JSON_OF_DOCS = sorted((Path(__file__).parents[2] / "docs" / "ablations").glob("*.json"))
PLANS = [path for path in JSON_OF_DOCS if "variants" in json.loads(path.read_text())]


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_plans_of_the_documentation_are_plans(path: Path) -> None:
    plan = read_plan(path)
    assert len({variant.checkpoint(Path()).parent for variant in plan.variants}) > 1


def rows(values: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {"clip": f"{kind}/{index}", "class": kind, "visqol": value, "pesq": None}
        for kind, of in values.items()
        for index, value in enumerate(of)
    ]


def test_differences_are_of_pairs_and_of_classes_alike() -> None:
    base = {"music": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "speech": [4.0, 2.0]}
    better = {kind: [value + 0.1 for value in of] for kind, of in base.items()}
    better["speech"] = [4.3, 2.3]
    found = paired_difference(rows(better), rows(base), "visqol")
    assert found is not None
    assert found["mean"] == pytest.approx((3.6 + 3.3) / 2)
    assert found["change"] == pytest.approx(0.2)
    assert found["low"] == pytest.approx(found["high"]) == pytest.approx(0.2)
    assert paired_difference(rows(better), rows(base), "pesq") is None
    random = np.random.default_rng(0)
    unsure = {kind: [value + random.normal() for value in of] for kind, of in base.items()}
    found = paired_difference(rows(unsure), rows(base), "visqol")
    assert found is not None
    assert found["low"] < found["change"] < found["high"]


def test_what_is_sure_is_bold() -> None:
    measure = {"mean": 2.0, "change": 0.1, "low": 0.05, "high": 0.2}
    line = {
        "name": "x",
        "steps": 3,
        "processor_minutes": 1.5,
        "parameters": 2e6,
        "codebook": None,
        "measures": dict.fromkeys(
            ("visqol", "stoi", "pesq", "dnsmos", "over_smoothing", "mel_l1"), measure
        ),
    }
    unsure = {**line, "measures": {**line["measures"], "stoi": {**measure, "low": -0.1}}}
    first, second = markdown([line, unsure]).splitlines()[2:]
    assert first.startswith("| x | 3 | 1.5 | 2.00 M | 2.000 | 2.000 |")
    assert second.startswith("| x | 3 | 1.5 | 2.00 M | 2.000 (**+0.100**) | 2.000 (+0.100) |")


def in_this_process(command: list[str], stderr: TextIO, check: bool) -> SimpleNamespace:
    """Run a command of melcap as `subprocess.run` does, without a process that imports torch."""
    assert command[:3] == [sys.executable, "-m", "melcap"]
    assert not check
    done = CliRunner().invoke(app, command[3:])
    stderr.write(done.stderr)
    return SimpleNamespace(returncode=done.exit_code)


@pytest.mark.slow
def test_a_plan_is_run_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in report.MODULES:
        pytest.importorskip(module)
    cache_of_clips(tmp_path)
    clip, rate = audio.read(tmp_path / "clips" / "speech" / "speech.flac")
    (tmp_path / "valid" / "speech").mkdir(parents=True)
    audio.write(tmp_path / "valid" / "speech" / "a.wav", clip[:, rate // 2 : 2 * rate], rate)
    settings = {"codec": TINY, "columns": 2, "batch": 1, "codebook_warmup": 1}
    plan = plan_file(
        tmp_path,
        minutes=1e-4,
        settings=settings,
        options=["--picture-minutes", "inf"],
        variants=[{"name": "one"}, {"name": "other", "settings": {"loudness": 0.0}}],
    )
    out = tmp_path / "out"

    def run() -> str:
        arguments = ["ablate", plan, "--data", tmp_path / "clips", "--valid", tmp_path / "valid"]
        arguments += ["--out", out, "--cache", tmp_path / "cache"]
        arguments += ["--threads", 1, "--clips-per-class", 1]
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    asked: list[tuple[float, float | None]] = []

    def eight_steps(recipe: Any, sampler: Any, path: Path, loop: LoopOptions, *rest: Any) -> None:
        """Train for more than the minutes of the plan, however slow the machine is."""
        asked.append((loop.minutes, loop.schedule_minutes))
        train(recipe, sampler, path, replace(loop, minutes=9, schedule_minutes=9, steps=8), *rest)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", in_this_process)
        patch.setattr(training_run, "train", eight_steps)
        # A rating takes two seconds, and what it is worth is measured elsewhere.
        patch.setattr(metrics, "dnsmos", lambda *_: Dnsmos(3.0, 3.0, 3.0))
        printed = run()
    assert asked == [(1e-4, 1e-4)] * 2
    trained = {name: files_of(out / name / "stage1") for name in ("one", "other")}
    assert trained["one"] != trained["other"]
    summary = json.loads((out / "ablation.json").read_text())
    one, other = summary["table"]
    assert [line["name"] for line in summary["table"]] == ["one", "other"]
    assert one["steps"] == Checkpoint(out / "one" / "stage1").step == 8
    assert one["measures"]["mel_l1"]["change"] == 0
    assert other["measures"]["mel_l1"]["change"] != 0
    assert {"visqol", "stoi", "pesq", "dnsmos"} <= {k for k, v in one["measures"].items() if v}
    (session,) = Checkpoint(out / "one" / "stage1").records
    assert one["processor_minutes"] == session["processor_minutes"]  # 0.0 on a busy machine
    assert 0 < one["codebook"]["usage"] <= 1
    assert printed == (out / "ablation.md").read_text()
    assert (out / "ablation.png").stat().st_size > 5000
    run()
    assert all(files_of(out / name / "stage1") == trained[name] for name in trained)
    first = read_plan(plan).variants[0]
    with pytest.raises(InputError, match="'one' has been trained here with other settings"):
        train_variant(first, 0.5, out, ["--data=nowhere"])
    with pytest.raises(MelcapError, match=r"'one' failed, see the end of .*stage1\.log"):
        train_variant(first, 0.5, tmp_path / "new", ["--nowhere"])
    assert "No such option: --nowhere" in (tmp_path / "new" / "one" / "stage1.log").read_text()
