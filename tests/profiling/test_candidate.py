"""profiling/candidate.py: what came back is compared clip by clip, and ships whole or not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import melcap
from melcap.errors import MelcapError
from melcap.evaluation.measures.predictor import RECIPE
from melcap.lm import ContextModel
from melcap.pretrained import DEFAULT, load
from melcap.training.start import prepare
from tests.helpers import SMALL
from tests.training.helpers import (
    cache_of_clips,
    files_of,
    stage_1,
    stage_2,
    states_for_stage_2,
    train_to,
)

ROOT = Path(__file__).parents[2]
KINDS = (".row-tables.safetensors", ".predictor.safetensors")
CHANGELOG = "# Changelog\n\n## Unreleased\n\n- First.\n\n## 0.1.0\n\n- Old.\n"


pytestmark = pytest.mark.usefixtures("profiling_scripts")


def row(mean: float, change: float, width: float) -> dict[str, float]:
    return {"mean": mean, "change": change, "low": change - width, "high": change + width}


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("pesq", row(2.6, 0.1, 0.05), True),
        ("pesq", row(2.6, -0.1, 0.05), False),
        ("pesq", row(2.6, 0.1, 0.2), None),
        ("mel_l1", row(0.3, -0.1, 0.05), True),
        ("lsd", row(0.7, 0.1, 0.05), False),
        ("over_smoothing", row(0.9, 0.1, 0.05), True),
        ("over_smoothing", row(1.3, 0.2, 0.05), False),
        ("over_smoothing", row(1.02, -0.2, 0.05), True),
    ],
)
def test_better_or_worse(name: str, found: dict[str, float], expected: bool | None) -> None:
    from candidate import better

    assert better(name, found) is expected


def test_only_the_two_are_compared_and_clip_by_clip() -> None:
    from candidate import changelog, compare, comparison

    rows = [
        {"codec": codec, "clip": f"{clip}", "class": "speech", "pesq": 2 + clip + gain}
        for codec, gain in (("melcap", 0.0), ("new", 0.25), ("other", 9.0))
        for clip in range(4)
    ]
    found = compare(rows, "new")
    assert found.keys() == {"pesq"}
    assert found["pesq"]["change"] == pytest.approx(0.25)
    assert found["pesq"]["low"] == pytest.approx(0.25), "the same difference on every clip"
    assert "| pesq | 3.500 | 3.750 | +0.250 (+0.250 to +0.250) | better |" in comparison(found)
    assert changelog(found, "melcap-lite-1", True) == (
        "- New weights, melcap-lite-1: pesq 3.75 (3.50) (in brackets the weights before); the "
        "tokens are the same.\n"
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both stages, of the small codec."""
    folder = tmp_path_factory.mktemp("run")
    cache = cache_of_clips(folder)
    first = stage_1(codebook_warmup=0)
    train_to(2, first, cache, folder / "stage1")
    train_to(2, stage_2(states_for_stage_2(first)), cache, folder / "stage2")
    return folder


@pytest.fixture
def shipped(tmp_path: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of which nothing but changelog, card and weights is there."""
    import candidate

    weights = tmp_path / "melcap" / "weights"
    weights.mkdir(parents=True)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (weights / "README.md").write_text("# Card\n")
    (weights / "melcap-lite.mel-decoder.safetensors").write_bytes(b"of the weights before")
    for kind in KINDS:
        (weights / f"{load(small_weights).tokenizer_id}{kind}").write_bytes(b"of the one before")
    shutil.copyfile(small_weights, weights / DEFAULT)
    monkeypatch.setattr(candidate, "ROOT", tmp_path)
    monkeypatch.setattr(candidate, "SHIPPED", weights)
    monkeypatch.setattr(candidate, "make", made)
    monkeypatch.setattr(melcap, "load", lambda path=None: load(path or small_weights))
    return tmp_path


def made(weights: Path, training: list[Path], held_out: Path, out: Path) -> Any:
    """Files of a tokenizer, which took no time to make."""
    import candidate

    assert training == [Path("train.tar")]
    assert held_out == Path("valid.tar")
    name = load(weights).tokenizer_id
    files = candidate.TokenizerFiles(*(out / f"{name}{kind}" for kind in KINDS))
    for path in files:
        path.write_bytes(path.name.encode())
    return files


def measured(data: Path, names: list[str], out: Path, **settings: Any) -> dict[str, Any]:
    """Scores as `melcap.evaluation` writes them, with an earlier candidate's among them."""
    candidate = melcap.load(Path(names[1]))
    models = {"melcap": melcap.load().model, names[1]: candidate.model}
    if settings["predictor"] is not None:
        assert settings["predictor"].name == f"{candidate.tokenizer_id}{KINDS[1]}"
    rows = [
        {
            "codec": name,
            "identity": models[name],
            "clip": str(clip),
            "class": "speech",
            "pesq": 2.0 + (name != "melcap"),
            "visqol": 4.0,
        }
        for name in names
        for clip in range(3)
    ]
    rows.append({**rows[-1], "identity": "an earlier one", "pesq": 99.0})
    (out / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"failures": [], "data": data.name, "clips_per_class": 8, "date": "2026-11-29T10:00:00"}


def command(run: Path, out: Path, *arguments: str) -> Any:
    import candidate
    import typer

    app = typer.Typer()
    app.command()(candidate.main)
    words = [str(run), "--data", "valid.tar", "--out", str(out), *arguments]
    return CliRunner().invoke(app, words)


@pytest.mark.slow
def test_from_a_run_to_the_package(
    run: Path, shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import candidate

    monkeypatch.setattr(candidate, "score", measured)
    out = tmp_path / "out"
    before = files_of(shipped / "melcap")
    done = command(run, out)
    assert done.exit_code == 0, done.output
    assert "Tokens: others." in done.output
    assert "Row tables and predictor of the new tokenizer are left out" in done.output
    assert "| pesq | 2.000 | 3.000 | +1.000 (+1.000 to +1.000) | better |" in done.output
    assert files_of(shipped / "melcap") == before, "nothing is shipped that was not asked for"
    done = command(run, out, "--ship")
    assert done.exit_code == 1
    assert "another tokenizer than those that ship" in done.stderr
    assert "give --training with the training audio" in done.stderr
    assert files_of(shipped / "melcap") == before, "weights ship without their row tables"
    done = command(run, out, "--ship", "--training", "train.tar")
    assert done.exit_code == 0, done.output
    assert "left out" not in done.output
    weights = shipped / "melcap" / "weights"
    for name in (DEFAULT, "melcap-lite.sha256", "melcap-lite.mel-decoder.safetensors"):
        assert (weights / name).read_bytes() == (out / name).read_bytes()
    name = load(weights / DEFAULT).tokenizer_id
    for kind in KINDS:
        assert [path.name for path in weights.glob(f"*{kind}")] == [f"{name}{kind}"]
        assert (weights / f"{name}{kind}").read_bytes() == f"{name}{kind}".encode()
    model = load(weights / DEFAULT).model
    line = f"- New weights, {model}: visqol 4.00 (4.00), pesq 3.00 (2.00)"
    head, _, released = (shipped / "CHANGELOG.md").read_text().partition("\n## 0.1.0\n")
    assert head.startswith("# Changelog\n\n## Unreleased\n\n- First.\n" + line)
    assert head.endswith("tokens of the earlier weights differ.\n")
    assert released == "\n- Old.\n"
    card = (weights / "README.md").read_text()
    assert "| stage2, batch 2 x 6 columns, peak rate 0.0007 | CPU, " in card
    assert f"| these are {model} |  |  |  |" in card
    assert f"Their tokenizer is another one. `{name}.row-tables.safetensors` and" in card
    assert load(weights / DEFAULT).config == SMALL


def test_the_mel_decoder_of_other_weights_does_not_stay(
    run: Path, shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import candidate

    monkeypatch.setattr(candidate, "score", measured)
    alone = tmp_path / "alone"
    shutil.copytree(run / "stage2", alone / "stage2")
    done = command(alone, tmp_path / "out", "--ship", "--training", "train.tar")
    assert done.exit_code == 0, done.output
    assert not (shipped / "melcap" / "weights" / "melcap-lite.mel-decoder.safetensors").exists()


def test_a_clip_that_failed_stops_it(
    run: Path, shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import candidate

    monkeypatch.setattr(
        candidate, "score", lambda *_, **__: {"failures": ["pesq: no speech"], "table": []}
    )
    before = files_of(shipped / "melcap")
    done = command(run, tmp_path / "out", "--ship", "--training", "train.tar")
    assert done.exit_code == 1
    assert "not compared: pesq: no speech" in done.stderr
    assert files_of(shipped / "melcap") == before


@pytest.mark.slow
def test_weights_of_the_same_tokenizer_need_no_files(
    shipped: Path, small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that was trained alone leaves the files of its tokenizer where they are."""
    import candidate

    monkeypatch.setattr(candidate, "score", measured)
    cache, out = cache_of_clips(tmp_path / "audio"), tmp_path / "run"
    start = prepare(out, {"stage": 2, "columns": 6}, str(small_weights), batch=2)
    train_to(2, start.recipe, cache, start.checkpoint, start.history)
    weights = shipped / "melcap" / "weights"
    before = {path: path.read_bytes() for kind in KINDS for path in weights.glob(f"*{kind}")}
    done = command(out, tmp_path / "out", "--ship")
    assert done.exit_code == 0, done.output
    assert "Tokens: the same." in done.output
    assert "left out" not in done.output
    after = {path: path.read_bytes() for kind in KINDS for path in weights.glob(f"*{kind}")}
    assert after == before
    assert "Their tokenizer" not in (weights / "README.md").read_text()


@pytest.mark.slow
def test_a_joint_stage_is_the_candidate(
    run: Path, shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import candidate

    monkeypatch.setattr(candidate, "score", measured)
    out = tmp_path / "run"
    shutil.copytree(run, out)
    start = prepare(out, {"joint": True, "columns": 6, "rate": 1e-3, "warmup": 1}, None, batch=2)
    cache = cache_of_clips(tmp_path / "audio")
    train_to(2, start.recipe, cache, start.checkpoint, start.history)
    done = command(out, tmp_path / "out", "--ship", "--training", "train.tar")
    assert done.exit_code == 0, done.output
    weights = shipped / "melcap" / "weights"
    assert (
        "| joint, batch 2 x 6 columns, peak rate 0.001 | CPU, "
        in (weights / "README.md").read_text()
    )
    assert load(weights / DEFAULT).config == SMALL


@pytest.mark.slow
def test_row_tables_and_predictor_are_made(small_weights: Path, tmp_path: Path) -> None:
    """The commands run on real clips, and what they make is found and used by its name."""
    pytest.importorskip("datasets")
    import tokenizer_files

    cache_of_clips(tmp_path / "audio")
    clips, out = tmp_path / "audio" / "clips", tmp_path / "out"
    files = tokenizer_files.make(small_weights, [clips], clips, out, steps=2)
    name = load(small_weights).tokenizer_id
    assert [path.name for path in files] == [f"{name}{kind}" for kind in KINDS]
    predictor = ContextModel.load(files.predictor)
    assert predictor.tokenizer_id == name
    assert predictor.training_settings["steps"] == 2
    assert not predictor.training_settings["bf16"]
    assert RECIPE["steps"] == tokenizer_files.STEPS
    codec = load(small_weights)
    environment = {**os.environ, "MELCAP_ROW_TABLES": str(out)}
    source, target = clips / "speech" / "speech.flac", tmp_path / "a.melcap"
    command = [sys.executable, "-m", "melcap", "encode", source, "--weights", small_weights]
    subprocess.run([*command, "--compact", "-o", target], env=environment, check=True)
    assert target.stat().st_size > 0
    assert codec.rows == predictor.config.rows
    before = files_of(out)
    assert tokenizer_files.make(small_weights, [clips], clips, out, steps=2) == files
    assert files_of(out) == before, "what is there is not made again"
    with pytest.raises(MelcapError, match="melcap tokenize ended with status 1, see above"):
        tokenizer_files.make(small_weights, [tmp_path / "none"], clips, tmp_path / "b", steps=2)
