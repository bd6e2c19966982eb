"""profiling/gpu_budget.py: time is spent in order, what cannot be done is named, nothing is lost.

`test_every_phase_on_a_cpu` is the whole of it in small, as one tries it before a GPU is at hand.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from melcap.errors import InputError
from melcap.ops.registry import OPERATIONS, SWITCH
from melcap.training import saving
from melcap.training.checkpoint import Checkpoint
from tests.training.helpers import cache_of_clips, files_of, flat, stage_2, states_of, train_to

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("profiling_scripts")


@pytest.mark.slow
@pytest.mark.rehearsal
def test_every_phase_on_a_cpu(tmp_path: Path) -> None:
    """All phases pass; training of both stages leaves checkpoints, and the parcel holds all of it.

    It takes some three minutes on two cores; the limit leaves room for slower machines.
    """
    command = [sys.executable, "profiling/gpu_budget.py", "--dry", "--seconds", "900"]
    command += ["--out", str(tmp_path / "out"), "--parcel", str(tmp_path / "parcel")]
    environment = {**os.environ, "MELCAP_COMMIT": "c0ffee"}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    logs = "\n".join(
        f"== {log.name}\n{log.read_text()[-1500:]}" for log in (tmp_path / "out").glob("*.log")
    )
    assert done.returncode == 0, done.stdout + done.stderr + logs
    out = tmp_path / "out"
    phases = json.loads((out / "summary.json").read_text())
    assert {phase["phase"]: phase["status"] for phase in phases} == dict.fromkeys(
        (
            "versions",
            "compile",
            "gates",
            "device_time",
            "training_step",
            "rtf",
            "device_tests",
            "train",
            "sanitize",
        ),
        "passed",
    )
    assert all(phase["kernels_off"] == [] for phase in phases)
    gates = json.loads((out / "results" / "device-gates.json").read_text())
    assert gates["rows"][0]["operation"] == "channel_norm"
    assert all(row["passed"] and row["launches"] > 0 for row in gates["rows"])
    assert {row["operation"] for row in gates["rows"]} == set(OPERATIONS)
    rows = json.loads((out / "results" / "device-time-cpu.json").read_text())["rows"]
    assert {row["way"] for row in rows} == {"encode", "decode"}
    steps = json.loads((out / "results" / "training-cpu.json").read_text())["rows"]
    assert [row["without"] for row in steps] == ["", "channel_norm"]
    tests = json.loads((out / "results" / "device-tests.json").read_text())
    assert tests["finished"]
    assert tests["outcomes"]["passed"] > 0
    first, second = (Checkpoint(out / "run" / stage) for stage in ("stage1", "stage2"))
    assert first.step > 0
    assert second.step > 0
    assert second.config.constant_phase
    assert second.records[0]["recipe"] == "weights"
    check_parcel(tmp_path / "parcel", out, tmp_path / "back")


def check_parcel(parcel: Path, out: Path, back: Path) -> None:
    """The parcel is within its limits, and gives everything back."""
    from parcel import ALL_BYTES, FILE_BYTES, FILES, unpack

    files = files_of(parcel)
    assert len(files) <= FILES
    assert sum(map(len, files.values())) <= ALL_BYTES
    assert max(map(len, files.values())) <= FILE_BYTES
    unpack(parcel, back)
    for stage in ("stage1", "stage2"):
        there, here = (flat(states_of(folder / "run" / stage)) for folder in (out, back))
        assert there.keys() == here.keys()
        assert all(torch.equal(here[name], value) for name, value in there.items())
    assert (back / "summary.json").exists()
    assert (back / "train.log").read_text()


def phases_of(**commands: Any) -> dict[str, Any]:
    """Phases of Python programs; an entry is the program, or (program, limit, beside)."""
    from phases import Phase

    found = {}
    for name, entry in commands.items():
        program, limit, beside = entry if isinstance(entry, tuple) else (entry, 60.0, "")
        found[name] = Phase(
            limit, lambda place, deadline, p=program: [sys.executable, "-c", p], beside=beside
        )
    return found


@pytest.fixture
def place(tmp_path: Path) -> Any:
    from phases import Place

    (tmp_path / "out" / "results").mkdir(parents=True)
    plans = ROOT / "profiling" / "gpu_budget.json"
    return Place(tmp_path / "out", "cuda", "sm_90", (), "lite", plans, None)


def spent(
    monkeypatch: pytest.MonkeyPatch,
    place: Any,
    seconds: float,
    commit: str = "c0ffee",
    **commands: Any,
) -> dict[str, Any]:
    import gpu_budget
    import running

    monkeypatch.setattr(gpu_budget, "PHASES", phases_of(**commands))
    monkeypatch.setattr(gpu_budget, "commit", lambda: commit)
    monkeypatch.setattr(gpu_budget, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(running, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(gpu_budget, "LEAST_SECONDS", 0.5)
    outcomes = gpu_budget.spend([*commands], place, seconds, dict(os.environ))
    for outcome in outcomes:
        if outcome.status != "kept":
            found = json.loads((place.out / f"{outcome.phase}.json").read_text())
            assert found["status"] == outcome.status
    return {outcome.phase: outcome for outcome in outcomes}


HANG = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


@pytest.mark.slow
def test_what_hangs_is_stopped_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, place: Any
) -> None:
    began = time.monotonic()
    found = spent(
        monkeypatch,
        place,
        60,
        hangs=(HANG, 1.0, ""),
        fails="print('it was the kernel'); raise SystemExit(3)",
        passes="print('done')",
    )
    assert time.monotonic() - began < 30
    assert [outcome.status for outcome in found.values()] == ["stopped", "failed", "passed"]
    assert found["hangs"].reason == "its 1 s were over"
    assert found["fails"].returncode == 3
    assert found["fails"].reason == "it was the kernel"
    assert (place.out / "passes.log").read_text() == "done\n"


@pytest.mark.slow
def test_what_there_is_no_time_for_is_named(monkeypatch: pytest.MonkeyPatch, place: Any) -> None:
    long = ("import time; time.sleep(600)", float("inf"), "")
    found = spent(monkeypatch, place, 2.5, long=long, never="print('done')")
    assert found["long"].status == "stopped"
    assert found["never"].status == "skipped"
    assert found["never"].reason == "0 s were left"
    assert not (place.out / "never.log").exists()
    names = [each["phase"] for each in json.loads((place.out / "summary.json").read_text())]
    assert names == ["long", "never"]


def test_a_phase_runs_beside_another(monkeypatch: pytest.MonkeyPatch, place: Any) -> None:
    """Each waits for a file that the other writes."""
    meet = (
        "import pathlib, time\n"
        "pathlib.Path({0!r}).touch()\n"
        "while not pathlib.Path({1!r}).exists(): time.sleep(0.01)"
    )
    one, other = (str(place.out / name) for name in ("one", "other"))
    found = spent(
        monkeypatch,
        place,
        60,
        train=meet.format(one, other),
        sanitize=(meet.format(other, one), 60.0, "train"),
    )
    assert {outcome.status for outcome in found.values()} == {"passed"}


def test_processes_that_a_phase_leaves_behind_are_ended(
    monkeypatch: pytest.MonkeyPatch, place: Any, tmp_path: Path
) -> None:
    child = (
        "import subprocess, sys\n"
        "made = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(made.pid))"
    )
    spent(monkeypatch, place, 60, leaves=child)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("it still runs")


def gates(place: Any, commit: str, *failed: str) -> None:
    found = {"origin": {"commit": commit}, "failed": list(failed), "rows": []}
    (place.results / "device-gates.json").write_text(json.dumps(found))


def test_kernels_whose_gate_failed_are_switched_off(
    monkeypatch: pytest.MonkeyPatch, place: Any
) -> None:
    say = f"import os; print(os.environ[{SWITCH!r}])"
    before = spent(monkeypatch, place, 60, versions=say)
    assert before["versions"].kernels_off == []
    gates(place, "another", "log_mel")
    assert spent(monkeypatch, place, 60, versions=say)["versions"].kernels_off == []
    gates(place, "c0ffee", "channel_norm", "griffin_lim")
    found = spent(monkeypatch, place, 60, gates="raise SystemExit(1)", rtf=say)
    assert found["gates"].status == "kept"
    assert found["rtf"].kernels_off == ["channel_norm", "griffin_lim"]
    assert (place.out / "rtf.log").read_text() == "channel_norm,griffin_lim\n"


def test_gates_of_changed_code_run_again_with_every_kernel(
    monkeypatch: pytest.MonkeyPatch, place: Any
) -> None:
    gates(place, "c0ffee-dirty", "channel_norm")
    say = f"import os; print(os.environ[{SWITCH!r}])"
    found = spent(monkeypatch, place, 60, "c0ffee-dirty", gates=say, rtf=say)
    assert found["gates"].status == "passed"
    assert (place.out / "gates.log").read_text() == "\n"
    assert (place.out / "rtf.log").read_text() == "channel_norm\n"


@pytest.mark.slow
def test_a_wrong_kernel_is_named_by_its_gate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import device_gates

    from melcap.ops import registry

    right = registry.implementation("channel_norm", "triton")

    def wrong(*arguments: Any) -> torch.Tensor:
        made = right.run(*arguments)
        made[(0,) * made.ndim] += 1e-3
        return made

    def crash(*_: Any) -> torch.Tensor:
        raise RuntimeError("an illegal memory access")

    def elsewhere(*arguments: Any) -> torch.Tensor:
        return registry.implementation("upsample_conv1d", "torch").run(*arguments)

    kept = dict(registry._implementations)
    monkeypatch.setattr(registry, "_implementations", kept)
    for name, run in (
        ("channel_norm", wrong),
        ("log_mel", crash),
        ("upsample_conv1d", elsewhere),
    ):
        old = registry.implementation(name, "triton")
        kept[name, "triton"] = registry.Implementation(
            run, old.tolerances, old.unsupported, old.layers, old.gradient
        )
    try:
        with pytest.raises(SystemExit, match="failed: channel_norm, log_mel, upsample_conv1d"):
            device_gates.main(tmp_path, "cpu")
    finally:
        torch.use_deterministic_algorithms(False)
    found = json.loads((tmp_path / "device-gates.json").read_text())
    assert found["failed"] == ["channel_norm", "log_mel", "upsample_conv1d"]
    rows = {row["operation"]: row for row in reversed(found["rows"])}
    assert rows["channel_norm"]["error"] == pytest.approx(1e-3, rel=0.01)
    assert rows["channel_norm"]["at"] == [0, 0, 0, 0]
    assert rows["log_mel"]["reason"] == "RuntimeError: an illegal memory access"
    assert rows["upsample_conv1d"]["launches"] == 0
    assert rows["griffin_lim"]["passed"]


class TestPlans:
    def test_all_that_are_in_the_repository(self) -> None:
        from train_plan import PLANS, read_plan

        plans = json.loads(PLANS.read_text())
        assert {"lite", "discriminators", "half-rate"} <= plans.keys()
        lite = read_plan(PLANS, "lite")
        assert [(step.recipe, step.share) for step in lite] == [("stage1", 0.5), ("stage2", 0.5)]
        assert lite[1].settings["constant_phase"]
        assert lite[1].settings["batch"] >= 64
        (with_judges,) = read_plan(PLANS, "discriminators")
        assert with_judges.settings["discriminators"] == 16
        for name in plans:
            read_plan(PLANS, name)

    @pytest.mark.parametrize(
        ("plans", "words"),
        [
            ({}, "no plan 'x'"),
            ({"x": []}, "x is not a plan"),
            ({"x": {"steps": []}}, "add up to 0, not to 1"),
            ({"x": {"steps": [{"share": 0.4, "settings": {}}]}}, "add up to 0.4, not to 1"),
            (
                {"x": {"steps": [{"share": 1, "settings": {"stage": 3}}]}},
                "stage cannot be 3: it must be 1 or 2",
            ),
        ],
    )
    def test_what_is_none(self, tmp_path: Path, plans: Any, words: str) -> None:
        from train_plan import read_plan

        path = tmp_path / "plans.json"
        path.write_text(json.dumps(plans))
        with pytest.raises(InputError, match=words):
            read_plan(path, "x")

    def test_a_batch_that_does_not_fit_is_halved(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        import train_plan

        batches = []

        def run(command: list[str], **options: Any) -> Any:
            settings = json.loads(Path(command[command.index("--config") + 1]).read_text())
            batches.append(settings["batch"])
            full = settings["batch"] > 16
            said = f"error: {train_plan.OUT_OF_MEMORY}: take" if full else "saved"
            program = f"import sys; print({said!r}, file=sys.stderr); sys.exit({int(full)})"
            return popen([sys.executable, "-c", program], **options)

        popen = subprocess.Popen
        monkeypatch.setattr(train_plan.subprocess, "Popen", run)
        step = train_plan.Step(1.0, {"stage": 1, "batch": 64}, ())
        assert train_plan.run_step(step, 0.0, [], tmp_path) == 0
        assert batches == [64, 32, 16]
        said = capsys.readouterr()
        assert "stage1: no memory for a batch of 64: again with 32" in said.out
        assert said.err.count("saved") == 1

    def test_a_step_that_fails_goes_on_once_and_uncompiled(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import train_plan

        asked: list[list[str]] = []

        def run(command: list[str]) -> tuple[int, bool]:
            asked.append(command)
            return 1, False

        monkeypatch.setattr(train_plan, "_watched", run)
        step = train_plan.Step(1.0, {"stage": 1}, ())
        assert train_plan.run_step(step, time.time() + 99, [], tmp_path) == 1
        assert ["--no-compile" in command for command in asked] == [False, True]
        asked.clear()
        assert train_plan.run_step(step, time.time() + 9, [], tmp_path) == 1
        assert len(asked) == 1, "there was no time left"
        stopping = threading.Event()
        stopping.set()
        assert train_plan.run_step(step, time.time() + 99, [], tmp_path, stopping) == 1
        assert len(asked) == 2, "it was stopped"

    @pytest.mark.slow
    def test_what_is_stopped_saves_first(self, tmp_path: Path) -> None:
        """The run at work is sent the same signal and is waited for; the next is not begun."""
        run = tmp_path / "run.py"
        run.write_text(
            "import pathlib, signal, sys, time\n"
            "here = pathlib.Path(__file__).parent\n"
            "def save(*_):\n"
            "    time.sleep(0.5)\n"
            "    (here / 'saved').touch()\n"
            "    sys.exit(143)\n"
            "signal.signal(signal.SIGTERM, save)\n"
            "(here / sys.argv[1]).touch()\n"
            "time.sleep(600)\n"
        )
        plan = tmp_path / "plan.py"
        plan.write_text(
            "import subprocess, sys\n"
            f"sys.path.insert(0, {str(ROOT / 'profiling')!r})\n"
            "from pathlib import Path\n"
            "import train_plan as t\n"
            "t.subprocess.run = lambda *_, **__: subprocess.CompletedProcess([], 0)\n"
            "t.read_plan = lambda *_: [t.Step(0.5, {'stage': n}, ()) for n in (1, 2)]\n"
            "began, watched = [], t._watched\n"
            "def run(command):\n"
            "    began.append(1)\n"
            f"    return watched([sys.executable, {str(run)!r}, f'run{{len(began)}}'])\n"
            "t._watched = run\n"
            f"t.main('x', 9e9, Path({str(tmp_path)!r}), [])\n"
        )
        with subprocess.Popen(
            [sys.executable, str(plan)], stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            while not (tmp_path / "run1").exists():
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGTERM)
            assert process.stderr is not None
            assert "stopped before its end" in process.stderr.read()
        assert process.returncode == 1
        assert (tmp_path / "saved").exists()
        assert not (tmp_path / "run2").exists()

    def test_the_sentence_it_looks_for_is_the_one_that_is_said(self) -> None:
        import train_plan

        from melcap.errors import MelcapError
        from melcap.training.run import _explained_out_of_memory

        with pytest.raises(MelcapError, match=train_plan.OUT_OF_MEMORY), _explained_out_of_memory():
            raise torch.OutOfMemoryError


class TestParcel:
    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        cache = cache_of_clips(tmp_path)
        out = tmp_path / "out"
        (out / "run").mkdir(parents=True)
        train_to(2, stage_2(discriminators=2, warmup=1), cache, out / "run" / "vocoder")
        (out / "rtf.json").write_text("{}")
        (out / "run" / "audio").mkdir()
        (out / "run" / "audio" / "x.int16").write_bytes(b"12")
        return out

    def test_what_matters_most_travels_first(
        self, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import parcel

        monkeypatch.setattr(parcel, "SMALL_BYTES", 8000)
        monkeypatch.setattr(parcel, "FILES", 4)
        left = parcel.update(out, tmp_path / "parcel")
        names = sorted(Path(name).name.split("-")[0] for name in files_of(tmp_path / "parcel"))
        assert names == ["averages", "discriminators", "results.tar", "weights"]
        assert [Path(name).name.split("-")[0] for name in left] == [
            "optimisers",
            "discriminator_optimisers",
        ]
        parcel.unpack(tmp_path / "parcel", tmp_path / "back")
        found = Checkpoint(tmp_path / "back" / "run" / "vocoder")
        assert found.missing == ["optimisers", "discriminator_optimisers"]
        assert not (tmp_path / "back" / "run" / "audio").exists()
        assert (tmp_path / "back" / "rtf.json").read_text() == "{}"

    @pytest.mark.slow
    def test_it_follows_a_run(
        self, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The parcel of a later step has nothing of the earlier one; nothing is copied twice."""
        import parcel

        monkeypatch.setattr(parcel, "SMALL_BYTES", 8000)
        assert parcel.update(out, tmp_path / "parcel") == []
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "parcel").rglob("*.safe*")}
        assert parcel.update(out, tmp_path / "parcel") == []
        after = {path: path.stat().st_mtime_ns for path in (tmp_path / "parcel").rglob("*.safe*")}
        assert before == after
        cache = melcap_cache(tmp_path)
        train_to(3, stage_2(discriminators=2, warmup=1), cache, out / "run" / "vocoder")
        parcel.update(out, tmp_path / "parcel")
        parcel.unpack(tmp_path / "parcel", tmp_path / "back")
        assert Checkpoint(tmp_path / "back" / "run" / "vocoder").step == 3
        assert not set(before) & set((tmp_path / "parcel").rglob("*.safetensors"))

    def test_what_is_no_parcel(self, tmp_path: Path) -> None:
        import parcel

        with pytest.raises(InputError, match=r"holds no parcel of gpu_budget\.py"):
            parcel.unpack(tmp_path, tmp_path / "back")


def melcap_cache(folder: Path) -> Any:
    from melcap.training.audio_cache import AudioCache

    return AudioCache(folder / "cache")


class TestPack:
    @pytest.fixture
    def shards(self, tmp_path: Path) -> list[Path]:
        paths = []
        for shard in range(2):
            paths.append(tmp_path / f"train-{shard}.tar")
            with tarfile.open(paths[-1], "w") as archive:
                for index in range(40):
                    data = bytes([shard, index]) * 5000
                    member = tarfile.TarInfo(
                        f"train/{('speech', 'music')[index % 2]}/{shard}_{index}.opus"
                    )
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
        return paths

    @pytest.fixture
    def pack(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        import gpu_pack

        def decoder(site: Path, python: str) -> None:
            site.mkdir()
            (site / f"soundfile-{python}.so").write_bytes(bytes(100_000))

        monkeypatch.setattr(gpu_pack, "tracked_bytes", lambda: 10 << 20)
        monkeypatch.setattr(gpu_pack, "wheels", decoder)
        monkeypatch.setattr(gpu_pack, "commit", lambda: "c0ffee")
        return gpu_pack

    def test_loads_are_full_and_share_no_clip(
        self, pack: Any, shards: list[Path], tmp_path: Path
    ) -> None:
        out = tmp_path / "loads"
        pack.main(shards, out, loads=2, limit_mib=11.3)
        assert (out / "0" / "commit").read_text() == "c0ffee\n"
        room = int(11.3 * 2**20) - (10 << 20) - pack.MARGIN
        names: list[list[str]] = []
        for index in range(2):
            path = out / str(index) / f"audio-{index}.tar"
            size = sum(map(len, files_of(out / str(index)).values()))
            assert room - 30_000 < size <= room
            with tarfile.open(path) as archive:
                names.append(archive.getnames())
                for member in archive:
                    shard, number = member.name.rpartition("/")[2].removesuffix(".opus").split("_")
                    found = archive.extractfile(member)
                    assert found is not None
                    assert found.read() == bytes([int(shard), int(number)]) * 5000
        assert not set(names[0]) & set(names[1])
        assert {name.split("/")[1] for name in names[0]} == {"speech", "music"}

    @pytest.mark.slow
    def test_checkpoints_travel_last(self, pack: Any, shards: list[Path], tmp_path: Path) -> None:
        run = tmp_path / "run"
        train_to(1, stage_2(), cache_of_clips(tmp_path / "x"), run / "vocoder")
        pack.main(shards, tmp_path / "loads", loads=2, limit_mib=13, run=run)
        assert not (tmp_path / "loads" / "0" / "run").exists()
        there = files_of(tmp_path / "loads" / "1" / "run" / "vocoder")
        assert there == files_of(run / "vocoder")

    def test_a_load_without_room(
        self, pack: Any, shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(typer.Exit):
            pack.main(shards, tmp_path / "loads", loads=1, limit_mib=10)
        assert "load 0 is full before any audio" in capsys.readouterr().err


def test_the_largest_file_of_a_checkpoint_fits_into_a_parcel() -> None:
    import parcel

    assert saving.FILE_BYTES + 65536 <= parcel.FILE_BYTES
