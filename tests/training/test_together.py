"""Several processes train what one process trains, and end as one."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from melcap.errors import InputError
from melcap.training import launch, ranks
from melcap.training.audio_cache import AudioCache
from melcap.training.checkpoint import Checkpoint
from melcap.training.crops import CropSampler
from melcap.training.launch import Launched, Place, place_of
from melcap.training.optimisers import backward
from melcap.training.pieces import Pieces
from tests.helpers import SMALL
from tests.training.helpers import cache_of_clips, flat, states_of
from tests.training.stream.helpers import shards
from tests.training.together import FIRST, LAST, RUNS, in_float64, run

ROOT = Path(__file__).parents[2]
BOUND = dict.fromkeys(RUNS, 1e-11) | {"vocoder": 1e-4, "waves": 1e-4}
"""The relative difference, in the norm of a tensor, that rounding in float64 may make in 6 steps.

2^-53 for each of 10^4 numbers in a sum, and the condition of the five rounds of Muon, make 10^-11
at most. A gradient through Griffin-Lim steps passes through the phases of faint bins, which
multiplies a difference by up to 10^3 in each step that is trained; 3 x 10^-7 was seen. An error
in the code makes a difference of more than 10^-2.
"""


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """Return the environment in which torchrun starts a process on this machine."""
    told = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **told}


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Trained(NamedTuple):
    """The runs of `tests.training.together`, and how its processes ended."""

    folder: Path
    statuses: list[int]
    said: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a cache of training audio."""
    made = tmp_path_factory.mktemp("together")
    cache_of_clips(made)
    return made


@pytest.fixture(scope="module")
def trained(folder: Path) -> Trained:
    """Train all runs in one process, in two, and first in one and then in two."""
    cache = AudioCache(folder / "cache")
    with in_float64():
        for name in RUNS:
            run(name, cache, folder / "one", FIRST)
    shutil.copytree(folder / "one", folder / "from-one")
    shards(folder / "shards", 4, clips=4)
    command = [sys.executable, "-m", "tests.training.together", str(folder)]
    port, logs = free_port(), [folder / f"{rank}.log" for rank in (0, 1)]
    started = []
    for rank, log in enumerate(logs):
        with log.open("w") as out:
            place = environment(rank, 2, port)
            started.append(subprocess.Popen(command, cwd=ROOT, env=place, stdout=out, stderr=out))
    statuses = [process.wait(timeout=600) for process in started]
    shutil.copytree(folder / "two", folder / "from-two")
    with in_float64():
        for name in RUNS:
            shutil.copytree(folder / "one" / name, folder / "longer" / name)
            run(name, cache, folder / "longer", LAST)
            run(name, cache, folder / "from-two", LAST)
    return Trained(folder, statuses, "".join(log.read_text() for log in logs))


def same(expected: Path, found: Path, bound: float) -> None:
    """Require two runs with the same states but for rounding, and the same log and batches."""
    before, after = flat(states_of(expected)), flat(states_of(found))
    assert before.keys() == after.keys()
    for name, value in before.items():
        difference = (after[name].double() - value.double()).norm()
        assert difference <= bound * value.double().norm(), name
    one, other = Checkpoint(expected), Checkpoint(found)
    assert torch.equal(one.states("random")["torch"], other.states("random")["torch"])
    assert one.index["sampler"] == other.index["sampler"]
    rows = [
        [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
        for path in (expected, found)
    ]
    assert len(rows[0]) == len(rows[1]) == one.step == other.step
    for row, again in zip(*rows, strict=True):
        for name in row.keys() - {"minutes", "audio_seconds_per_second"}:
            assert again[name] == pytest.approx(row[name], rel=10 * bound, abs=2e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_what_one_trains(trained: Trained, name: str) -> None:
    same(trained.folder / "one" / name / "run", trained.folder / "two" / name / "run", BOUND[name])
    (record,) = Checkpoint(trained.folder / "two" / name / "run").records
    assert (record["processes"], record["accumulate"], record["steps"]) == (2, 1, FIRST)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_pieces_train_what_whole_batches_train(trained: Trained, name: str) -> None:
    pieces = trained.folder / "pieces" / name / "run"
    same(trained.folder / "one" / name / "run", pieces, BOUND[name])
    assert Checkpoint(pieces).records[0]["accumulate"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("begun", ["from-one", "from-two"])
@pytest.mark.parametrize("name", RUNS)
def test_another_number_of_processes_resumes(trained: Trained, name: str, begun: str) -> None:
    found = trained.folder / begun / name / "run"
    same(trained.folder / "longer" / name / "run", found, BOUND[name])
    numbers = [record["processes"] for record in Checkpoint(found).records]
    assert numbers == ([1, 2] if begun == "from-one" else [2, 1])


@pytest.mark.slow
def test_the_codebook_starts_and_restarts_within_these_runs(trained: Trained) -> None:
    """Otherwise the tests above would not compare what they say."""
    lines = (trained.folder / "two" / "tokenizer" / "run.jsonl").read_text().splitlines()
    used = [json.loads(line)["codes_in_batch"] for line in lines]
    assert used[:2] == [0, 0]
    assert used[2] > 0
    found = Checkpoint(trained.folder / "two" / "tokenizer" / "run").modules["ema_codebook"]
    assert int((found["count"] == 4 * 0.5).sum()) > 10, "no entry was restarted in the last step"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("infinite", "mel_l1 became inf in the last 1 steps"),
        ("apart", "the processes came apart: decoder differ at step 1: nothing was saved"),
        ("random", "the processes came apart: random numbers differ at step 1"),
        ("settings", "the processes do not have the same settings: start all of them with"),
    ],
)
def test_all_processes_refuse_to_go_on(trained: Trained, name: str, words: str) -> None:
    for rank in (0, 1):
        assert words in (trained.folder / "refusals" / f"{name}.{rank}").read_text()
    assert not (trained.folder / "refusals" / name / "mel-decoder" / "run").exists()


@pytest.mark.slow
def test_each_process_streams_shards_of_its_own(trained: Trained) -> None:
    """Its crops are not those of the other, and one checkpoint resumes both."""
    (crops, resumes, state, hours), (others, resumes_too, *same_for_all) = (
        ast.literal_eval((trained.folder / f"stream.{rank}").read_text()) for rank in (0, 1)
    )
    assert resumes
    assert resumes_too
    assert [state, hours] == same_for_all
    assert len(crops) == len(others) == 4 * 3
    assert not {str(crop) for crop in crops if any(crop)} & {str(crop) for crop in others}
    assert {*state["ranks"]} == {"0", "1"}
    samples = [sum(place["samples"].values()) for place in state["ranks"].values()]
    assert all(samples)
    assert sum(hours.values()) == pytest.approx(sum(samples) / 44100 / 3600)


@pytest.mark.slow
def test_the_first_process_leads_and_any_may_stop(trained: Trained) -> None:
    (now, *led), (_, *others) = (
        ast.literal_eval((trained.folder / f"led.{rank}").read_text()) for rank in (0, 1)
    )
    assert led == others
    assert led[1:] == [(10.0, True), 7]
    assert 0 <= now - led[0] < 60


@pytest.mark.slow
def test_an_error_of_one_process_is_said_once_and_ends_all(trained: Trained) -> None:
    assert trained.statuses == [1, 1]
    assert trained.said.count("error:") == 1
    assert "error: process 1 of 2: this one fails" in trained.said
    assert "Traceback" not in trained.said


def workers(torchrun: int) -> dict[str, int]:
    """Return the processes that torchrun has started, by their rank."""
    found = {}
    for child in Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        told = dict(each.decode().split("=", 1) for each in variables if b"=" in each)
        if "RANK" in told:
            found[told["RANK"]] = int(child)
    return found


@pytest.fixture
def torchrun(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start `melcap train` for stage 1 in two processes, in the folder tmp_path/run."""
    settings = tmp_path / "settings.json"
    codec = json.loads(SMALL.to_json())
    settings.write_text(json.dumps({"codec": codec, "columns": 4, "batch": 4, "stage": 1}))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(free_port()), "-m", "melcap", "train"]
    command += ["--data", str(ROOT / "tests" / "data"), "--out", str(tmp_path / "run")]
    command += ["--minutes", "30", "--device", "cpu", "--config", str(settings)]
    command += ["--accumulate", "2", "--picture-minutes", "inf", "--save-minutes", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs the /proc of Linux")
def test_a_signal_to_one_process_ends_all_with_one_checkpoint(
    torchrun: subprocess.Popen[str], tmp_path: Path
) -> None:
    path = tmp_path / "run" / "stage1"
    until(lambda: (path / "checkpoint.json").exists(), torchrun)
    os.kill(workers(torchrun.pid)["1"], signal.SIGTERM)
    said = torchrun.communicate(timeout=300)[1]
    assert torchrun.returncode != 0
    found = Checkpoint(path)
    assert f"saved {path} at step {found.step}" in said
    assert said.count("hours of audio") == said.count(f"saved {path}") == 1
    assert "error:" not in said
    assert "exitcode  : 143" in said
    (record,) = found.records
    assert record["device"] == f"CPU, {max(1, len(os.sched_getaffinity(0)) // 2)} threads"
    assert (record["processes"], record["accumulate"], record["batch"]) == (2, 2, 4)
    assert {file.name for file in path.parent.iterdir()} <= {"audio", "stage1", "tensorboard"}


def until(condition: Any, process: subprocess.Popen[str], seconds: float = 300) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < ends
        time.sleep(0.05)


WHOLE = {
    "RANK": "1",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


def test_the_environment_says_the_place() -> None:
    assert place_of(WHOLE) == Place(1, 0, 2)
    assert place_of({"MASTER_ADDR": "localhost", "PATH": "/bin"}) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"WORLD_SIZE": None}, "has RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT and lacks WORLD_S"),
        ({"RANK": None, "LOCAL_RANK": None}, "lacks RANK, LOCAL_RANK: start several processes"),
        ({"MASTER_PORT": ""}, "lacks MASTER_PORT"),
        ({"RANK": "2"}, "says RANK=2, LOCAL_RANK=0, WORLD_SIZE=2, which cannot be"),
        ({"RANK": "-1"}, "RANK=-1"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK=x"),
        ({"LOCAL_RANK": "5"}, "LOCAL_RANK=5"),
    ],
)
def test_an_environment_that_cannot_be_is_refused(
    change: dict[str, str | None], words: str
) -> None:
    told = {name: value for name, value in {**WHOLE, **change}.items() if value is not None}
    with pytest.raises(InputError, match=words):
        place_of(told)


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "count", lambda: 3)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    assert ranks.rows(24, 4) == slice(8, 16)
    with pytest.raises(
        InputError, match=r"batch of 16 crops.*12 equal parts.*processes: 3, pieces: 4.*of 12$"
    ):
        ranks.rows(16, 4)


def test_each_process_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = Launched(Place(0, 0, 1), dist.HashStore())
    assert launched.device("cpu") == "cpu"
    assert launched.device("cuda") == "cuda:0"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert launched.device(None) == "cuda:0"
    with pytest.raises(InputError, match=r"--device cuda:1 names one GPU.*give --device cuda$"):
        launched.device("cuda:1")


def test_processes_share_out_a_batch(folder: Path) -> None:
    cache = AudioCache(folder / "cache")
    whole = CropSampler(cache, 500, 6, 0)
    parts = [CropSampler(cache, 500, 6, 0, rows=slice(i, i + 2)) for i in (0, 2, 4)]
    for _ in range(2):
        assert torch.equal(torch.cat([part.next() for part in parts]), whole.next())
    assert parts[1].state_dict() == whole.state_dict()


def test_work_is_done_once_on_each_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first machine is done before the others begin, and no process goes on before its own."""
    store, events = dist.HashStore(), list[str]()
    machines = {"0": "a", "1": "b", "2": "a", "3": "b"}
    monkeypatch.setattr(
        launch.socket, "gethostname", lambda: machines[threading.current_thread().name]
    )

    def take_part(rank: int) -> None:
        def work() -> None:
            events.append(f"{rank} begins")
            time.sleep(0.3)
            events.append(f"{rank} ends")

        launched = Launched(Place(rank, rank // 2, 4), store)
        launched.once_per_machine(work)
        events.append(f"{rank} goes on")

    threads = [
        threading.Thread(target=take_part, args=(rank,), name=str(rank)) for rank in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(events) == 8
    order = events.index
    assert order("0 begins") < order("0 ends") < order("1 begins") < order("1 ends")
    assert order("0 ends") < order("2 goes on") < len(events)
    assert order("1 ends") < order("3 goes on")


def test_processes_are_averaged_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces add up in each process, and the last one is followed by one collective."""
    averaged: list[list[Tensor]] = []
    monkeypatch.setattr(ranks, "mean_", lambda tensors: averaged.append([*tensors]))
    layer = nn.Linear(3, 1)
    inputs = torch.arange(12.0).view(4, 3)
    loss = backward((layer(part).mean() for part in inputs.chunk(2)), layer.parameters())
    torch.testing.assert_close(loss, layer(inputs).mean().detach())
    ((weight, bias),) = averaged
    torch.testing.assert_close(weight, inputs.mean(0, keepdim=True))
    assert float(bias) == 1


def test_pieces_are_equal() -> None:
    with pytest.raises(InputError, match="4 crops cannot be taken in 3 equal pieces"):
        Pieces(torch.zeros(4, 2), 3, lambda piece: piece)


def test_a_process_that_torchrun_did_not_start_joins_no_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in launch.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with launch.processes() as alone:
        alone.begin("cpu")
        assert not dist.is_initialized()
        assert (alone.device(None), alone.device("cuda:1"), alone.threads) == (None, "cuda:1", None)
        ran: list[int] = []
        alone.once_per_machine(lambda: ran.append(1))
        assert ran == [1]
