"""Training on streams from the command line: resume, records, refusals, and how a run ends."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from melcap.cli.commands import app
from melcap.training import run
from melcap.training.checkpoint import Checkpoint
from melcap.training.loop import LoopOptions, train
from tests.helpers import SMALL
from tests.training.helpers import CLIPS, DATA, flat, states_of
from tests.training.stream.helpers import shards, write_tar


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the pattern of two shards of clips of all classes."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(2):
        members = {f"{name}/{name}.flac": (DATA / f"{name}.flac").read_bytes() for name in CLIPS}
        write_tar(folder / f"{number}.tar", members)
    return f"{folder}/{{0..1}}.tar"


@pytest.fixture(autouse=True)
def settings(tmp_path: Path) -> Path:
    codec = json.loads(SMALL.to_json())
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"codec": codec, "columns": 4, "batch": 2, "warmup": 1}))
    return path


def until(monkeypatch: pytest.MonkeyPatch, step: int, pictures: float = math.inf) -> None:
    """Make a command end at this step."""

    def ending(recipe: Any, sampler: Any, path: Path, loop: LoopOptions, *others: Any) -> None:
        # With so much time the learning rate does not depend on how fast this machine is.
        time = {"minutes": 1e9, "schedule_minutes": 1e9}
        loop = replace(loop, steps=step, log_every=1, picture_minutes=pictures, **time)
        train(recipe, sampler, path, loop, *others)

    monkeypatch.setattr(run, "train", ending)


def training(pattern: str, out: Path, settings: Path, *arguments: object) -> Result:
    common = ("train", "--data", pattern, "--out", out, "--config", settings, "--stage", 1)
    options = ("--minutes", 9, "--device", "cpu", "--threads", 1, *arguments)
    return CliRunner().invoke(app, [str(argument) for argument in (*common, *options)])


STREAM = ("--stream", "--stream-memory", "0.02", "--decoders", "2", "--reuse", "2")


@pytest.mark.slow
def test_a_run_resumes_exactly(
    pattern: str, tmp_path: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for out, ends in (("whole", [8]), ("parts", [3, 8])):
        for end in ends:
            until(monkeypatch, end)
            done = training(pattern, tmp_path / out, settings, *STREAM)
            assert done.exit_code == 0, done.output
            assert "hours so far (music" in done.stderr
            assert "; 0 clips and the rest of 0 shards were left out" in done.stderr
    expected, found = (flat(states_of(tmp_path / out / "stage1")) for out in ("whole", "parts"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    checkpoint = Checkpoint(tmp_path / "parts" / "stage1")
    assert set(checkpoint.records[-1]["hours"]) == set(CLIPS)
    assert checkpoint.records[-1]["data"] == checkpoint.index["sampler"]["stream"]["key"]
    assert not (tmp_path / "parts" / "audio").exists()


@pytest.mark.slow
def test_a_run_is_refused_with_another_stream(
    pattern: str, tmp_path: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    until(monkeypatch, 1)
    out = tmp_path / "run"
    assert training(pattern, out, settings, *STREAM).exit_code == 0
    one = pattern.replace("{0..1}", "0")
    for given, message in (
        ((pattern, *STREAM, "--decoders", 1), "streams with 2 decoders, see --decoders, not 1"),
        ((one, *STREAM), "it had 2 and now there are 1"),
        ((one,), "a run that began with --stream resumes with --stream"),
        ((pattern, *STREAM, "--cache", tmp_path), "a stream has no cache"),
        ((f"{tmp_path}/none.tar", *STREAM), "none.tar cannot be read: No such file"),
    ):
        refused = training(given[0], out, settings, *given[1:])
        assert refused.exit_code == 1
        assert message in " ".join(refused.stderr.split())


@pytest.mark.slow
def test_pictures_and_audio_are_of_the_first_shard(
    pattern: str, tmp_path: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    until(monkeypatch, 1, pictures=0.0)
    assert training(pattern, tmp_path / "run", settings, *STREAM).exit_code == 0
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = events.EventAccumulator(str(tmp_path / "run" / "tensorboard" / "stage1")).Reload()
    assert log.Tags()["images"] == [f"{name}/before and after" for name in CLIPS]


@pytest.mark.slow
def test_nothing_outlives_a_program_that_is_killed(tmp_path: Path) -> None:
    pipes = [f"pipe:cat {shard}" for shard in shards(tmp_path, 2)]
    program = [sys.executable, "-m", "tests.training.stream.living", *pipes]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as living:
        assert living.stdout is not None
        lanes = [int(pid) for pid in living.stdout.readline().split()]
        assert len(lanes) == 2
        living.send_signal(signal.SIGKILL)
    ends = time.monotonic() + 30
    while any(map(is_alive, lanes)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not any(map(is_alive, lanes))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_processes_that_decode_import_no_torch() -> None:
    code = "import sys, melcap.training.stream.process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
