"""`melcap evaluate`: what it writes, how it goes on, and how it refuses what it cannot do."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from melcap import audio, processes
from melcap.cli import commands
from melcap.codec import Codec
from melcap.evaluation import report
from melcap.evaluation.measures import metrics, predictor
from melcap.evaluation.peers import CODECS
from melcap.evaluation.peers.registry import peer
from tests.forks import FORKS

RATE = 44100
ROOT = Path(__file__).parents[2]

needs_eval = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, report.MODULES)),
    reason='needs pip install "melcap[eval]"',
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clip of speech and one of music, the shortest that ViSQOL takes."""
    for name, seed in (("speech/a_0001", 1), ("music/a_0001", 3)):
        path = tmp_path / "data" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.1 * np.random.default_rng(seed).standard_normal((1, int(1.01 * RATE)))
        audio.write(path, wave.astype(np.float32), RATE)
    return tmp_path / "data"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(commands.app, ["evaluate", *map(str, arguments)])


@pytest.mark.slow
@needs_eval
def test_a_run_resumes_and_goes_on_past_a_bad_clip(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, scores = tmp_path / "out", tmp_path / "out" / "scores.jsonl"
    (folder / "music" / "c_0001.wav").write_bytes(b"RIFF")
    arguments = (folder, "--codecs", "original", "--out", out)
    first = run(*arguments, "--processes", 1)
    assert first.exit_code == 1
    assert "c_0001.wav" in first.stderr
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    assert sorted(row["clip"] for row in rows) == ["music/a_0001.wav", "speech/a_0001.wav"]
    assert all(("stoi" in row) == (row["class"] == "speech") for row in rows)
    assert all(("dnsmos" in row) == (row["class"] == "speech") for row in rows)
    assert all(row["lsd"] == 0 and row["visqol"] > 4.7 for row in rows)

    # Mark the results, and leave the last line as a killed run would.
    (folder / "music" / "c_0001.wav").unlink()
    marked = [json.dumps(row | {"lsd": 7.0}) + "\n" for row in rows]
    scores.write_text(marked[0] + marked[1][:40])
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "measure", lambda *_, **__: {"lsd": 0.0})
        second = run(*arguments, "--processes", 1)
    assert second.exit_code == 0
    again = [json.loads(line) for line in scores.read_text().splitlines()]
    assert [row["lsd"] for row in again] == [7.0, 0.0]
    assert sorted(row["clip"] for row in again) == sorted(row["clip"] for row in rows)

    summary = json.loads((out / "scorecard.json").read_text())
    assert summary["failures"] == []
    assert summary["torch"] == torch.__version__
    assert summary["machine"]
    assert [line["class"] for line in summary["table"]] == ["music", "speech", "mean"]

    # Nothing left to do: the same file, the same table.
    third = run(*arguments)
    assert [json.loads(line) for line in scores.read_text().splitlines()] == again
    assert second.stdout == third.stdout == (out / "scorecard.md").read_text() + "\n"

    # A worker process fails at a bad clip.
    monkeypatch.setattr(processes, "SPAWN", FORKS)  # which has imported torch
    (folder / "music" / "c_0001.wav").write_bytes(b"RIFF")
    last = run(*arguments, "--processes", 2, "--json")
    assert last.exit_code == 1
    assert "c_0001.wav" in last.stderr
    assert json.loads(last.stdout)["table"] == summary["table"]


@pytest.mark.slow
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    folder: Path, tmp_path: Path, lite: Codec
) -> None:
    shipped = predictor.find(lite.tokenizer_id)
    for arguments, said in (
        ((folder, "--codecs", "mp3"), "unknown codec 'mp3'"),
        ((tmp_path / "none", "--codecs", "original"), "none does not exist"),
        ((Path(__file__), "--codecs", "original"), "neither a folder nor a tar"),
        ((folder, "--codecs", "original", "--predictor", shipped), "tokens of none of these"),
    ):
        done = run(*arguments, "--out", tmp_path / "out")
        assert done.exit_code == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert said in line
        assert done.stdout == ""
    assert run(folder, "--seconds", "0", "--out", tmp_path / "out").exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("module", ["pystoi", "matplotlib"])
def test_what_is_not_installed_is_said_before_the_work(
    module: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module in report.MODULES
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(report, "MODULES", (module,))
    done = run(folder, "--codecs", "original", "--out", tmp_path / "out")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line == f'error: {module} is needed here and not installed: pip install "melcap[eval]"'
    assert not (tmp_path / "out").exists()


def test_a_codec_for_speech_needs_speech(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MODULES", ())
    monkeypatch.setattr(type(peer("original")), "speech_only", True)
    done = run(folder / "music", "--codecs", "original", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "original is for speech, and no clip here is of the class speech" in done.stderr
    assert not (tmp_path / "out").exists()


def test_files_of_another_codec_are_measured_at_a_rate(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(report, "MODULES", ())
    monkeypatch.setattr(metrics, "measure", lambda *_, **__: {"visqol_speech": 3.25})
    theirs = tmp_path / "a=b"
    for clip in folder.rglob("*.wav"):
        wave, rate = audio.read(clip)
        early = np.pad(wave, ((0, 0), (0, 441)))[:, 441:]
        (theirs / clip.parent.name).mkdir(parents=True)
        audio.write(theirs / clip.parent.name / f"{clip.stem}.flac", early, rate)
    arguments: list[object] = [folder, "--sample-rate", 16000, "--processes", 1]
    arguments += ["--out", tmp_path / "out", "--decoded", f"Their codec 2.0={theirs}"]
    done = run(*arguments, "--codecs", "", "--decoded-kbps", "Their codec 2.0=1.5")
    assert done.exit_code == 0, done.output
    assert "| Their codec 2.0 | mean | 2 | 1.50 | 3.25 |" in done.stdout
    assert "its 2 files are as long as their clips" in done.stdout
    assert done.stderr.startswith("warning: Their codec 2.0 is 10.0 ms early")
    summary = json.loads((tmp_path / "out" / "scorecard.json").read_text())
    assert summary["sample_rate"] == 16000
    assert str(tmp_path) not in json.dumps(summary)
    (theirs / "music" / "a_0001.flac").unlink()
    (theirs / "speech" / "a_0001.flac").rename(theirs / "speech" / "a_0002.flac")
    lacking = run(*arguments)
    assert lacking.exit_code == 1
    (line,) = lacking.stderr.splitlines()
    assert f"{theirs} has no file for 2 of 2 clips, the first of which is music/a_0001" in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--decoded", "theirs"], "'theirs' is no pair NAME=VALUE"),
        (["--decoded", "theirs="], "is no pair"),
        (["--decoded", "=folder"], "is no pair"),
        (["--decoded", "a|b=folder"], "is no pair"),
        (["--decoded", "a,b=folder"], "is no pair"),
        (["--decoded-kbps", "theirs=6"], "theirs is no codec of --decoded"),
        (["--decoded", "theirs=x", "--decoded-kbps", "theirs=much"], "'much' is no number of"),
        (["--decoded", "theirs=x", "--decoded-kbps", "theirs=0"], "'0' is no number of"),
        (["--decoded", "theirs=x", "--decoded-kbps", "theirs=inf"], "'inf' is no number of"),
        (["--decoded", "x=x", *["--decoded-kbps", "x=1"] * 2], "x has two rates"),
        (["--sample-rate", "7999"], "greater than or equal to 8000"),
    ],
)
def test_options_of_another_form_are_wrong_usage(
    options: list[str], said: str, folder: Path, tmp_path: Path
) -> None:
    done = run(folder, *options, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_help_loads_nothing_of_the_evaluation() -> None:
    script = (
        "import sys, melcap.cli.commands\n"
        "try: melcap.cli.commands.app(['evaluate', '--help'])\n"
        "finally: print('loaded:', sorted(name for name in sys.modules\n"
        "    if name.startswith(('melcap.evaluation', 'matplotlib', 'scipy', 'soxr', 'visqol'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "loaded: ['melcap.evaluation', 'melcap.evaluation.peers']" in done.stdout
    for word in ("--clips-per-class", "--processes", CODECS[0], CODECS[-1]):
        assert word in done.stdout
