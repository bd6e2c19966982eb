"""The phases of `gpu_budget.py`: what each one runs, for how long at most, and in which order.

Every phase is a process, so a crash or a hang costs its own time limit and nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PEERS = ("melcap-triton", "melcap-graphs", "melcap-cudnn", "encodec", "mimi", "dac", "snac")
"""Codecs that are timed on a device. A peer that is not installed is named as skipped."""
DEVICE_TESTS = (
    "tests/kernels/test_conv2d.py",
    "tests/kernels/test_resblock2d.py",
    "tests/kernels/test_polar_istft.py",
    "tests/kernels/test_griffin_lim.py",
    "tests/kernels/test_convnext1d.py",
    "tests/kernels/test_channel_norm.py",
    "tests/kernels/test_sanitized.py",
    "tests/model/test_cuda_graphs.py",
    "tests/ops/test_precision.py",
    "tests/test_codec.py",
    "tests/kernels/test_nearest_code.py",
    "tests/kernels/test_log_mel.py",
    "tests/kernels/test_upsample_conv1d.py",
)
"""Tests on a device. Those that have not run on one yet come first."""


@dataclass(frozen=True)
class Place:
    """The folders, the device and the plan of a run.

    Attributes:
        out: folder of the results; each phase has OUT/<phase>.json and OUT/<phase>.log.
        device: cuda, or cpu for a rehearsal, in which every phase is small.
        target: the name of the device's architecture, sm_90 for a Hopper GPU.
        data: tar shards or folders of training audio.
        plan: the name of the plan that is trained.
        plans: the file of plans.
        resume: a folder with checkpoints to go on from, or None.
    """

    out: Path
    device: str
    target: str
    data: tuple[Path, ...]
    plan: str
    plans: Path
    resume: Path | None

    @property
    def results(self) -> Path:
        """The folder for tables that may be committed to profiling/results."""
        return self.out / "results"

    @property
    def rehearsal(self) -> bool:
        """True on a CPU, where every phase is a rehearsal."""
        return self.device == "cpu"


@dataclass(frozen=True)
class Phase:
    """A command with a time limit.

    Attributes:
        limit: seconds after which it is stopped; infinity takes all that is left. A rehearsal has
            its own limit, `REHEARSAL_SECONDS`.
        command: the command line, given the place and the deadline in seconds since 1970.
        environment: its environment variables, beside those of all phases.
        beside: the phase that it runs beside, if that one runs.
    """

    limit: float
    command: Callable[[Place, float], list[str]]
    environment: Callable[[Place], dict[str, str]] = field(default=lambda place: {})
    beside: str = ""


def _script(name: str, place: Place, *arguments: str) -> list[str]:
    return [sys.executable, f"profiling/{name}.py", "--out", str(place.results), *arguments]


def _versions(place: Place, _: float) -> list[str]:
    return _script("versions", place, "--device", place.device)


def _compile(place: Place, _: float) -> list[str]:
    small = ["--first"] if place.rehearsal else []
    return [sys.executable, "profiling/aot.py", "--check", "--target", place.target, *small]


def _gates(place: Place, _: float) -> list[str]:
    return _script("device_gates", place, "--device", place.device)


def _device_time(place: Place, _: float) -> list[str]:
    small = ["--small"] if place.rehearsal else []
    return _script("device_time", place, "--device", place.device, *small)


def _rtf(place: Place, _: float) -> list[str]:
    command = _script("rtf", place, "--device", place.device)
    codecs = ("melcap-torch", "snac") if place.rehearsal else PEERS
    for codec in codecs:
        command += ["--codec", codec]
    if place.rehearsal:
        return [*command, "--quick", "--seconds", "0.3", "--threads", "2"]
    shapes = ["--seconds", "1", "--seconds", "10", "--batch", "1", "--batch", "64"]
    return [*command, "--rounds", "5", *shapes]


def _training_step(place: Place, _: float) -> list[str]:
    command = _script("training", place, "--device", place.device, "--compare", "channel_norm")
    if place.rehearsal:
        return [*command, "--run", "stage 1", "--columns", "4", "--batch", "1", "--steps", "1"]
    return [*command, "--batch", "64", "--run", "stage 1", "--run", "stage 2"]


def _device_tests(place: Place, _: float) -> list[str]:
    if place.rehearsal:
        return [
            *_script("device_tests", place),
            "--",
            "-q",
            "tests/model/test_cuda_graphs.py",
            "-k",
            "recorded_at_its_second_use",
        ]
    pytest = ["-m", "gpu", "-n", "4", "--dist", "loadfile", "--tb=short", "-q"]
    return [*_script("device_tests", place), "--", *pytest, *DEVICE_TESTS]


def _train(place: Place, deadline: float) -> list[str]:
    command = [sys.executable, "profiling/train_plan.py", place.plan, "--plans", str(place.plans)]
    command += ["--deadline", f"{deadline:.1f}", "--out", str(place.out / "run")]
    command += ["--device", place.device, *(["--small"] if place.rehearsal else [])]
    command += ["--resume", str(place.resume)] if place.resume else []
    for path in place.data:
        command += ["--data", str(path)]
    return command


def _sanitize(place: Place, _: float) -> list[str]:
    return ["make", "--silent", "gpu-sanitize", f"PYTHON={sys.executable}"]


def _compiled(_: Place) -> dict[str, str]:
    return {"TRITON_INTERPRET": "0"}


def _interpreted_on_a_cpu(place: Place) -> dict[str, str]:
    return {"TRITON_INTERPRET": "1" if place.rehearsal else "0"}


REHEARSAL_SECONDS = 120.0
"""The limit of every phase of a rehearsal, on whatever CPU."""
PHASES: dict[str, Phase] = {
    "versions": Phase(20, _versions),
    "compile": Phase(45, _compile, _compiled),
    "gates": Phase(60, _gates, _interpreted_on_a_cpu),
    "device_time": Phase(50, _device_time),
    "training_step": Phase(30, _training_step),
    "rtf": Phase(70, _rtf),
    "device_tests": Phase(60, _device_tests, _interpreted_on_a_cpu),
    "train": Phase(float("inf"), _train),
    "sanitize": Phase(120, _sanitize, beside="train"),
}
GROUPS: dict[str, tuple[str, ...]] = {
    "measure": tuple(name for name in PHASES if name not in ("train", "sanitize")),
    "training": ("gates", "train", "sanitize"),
    "all": tuple(PHASES),
}
"""Names for several phases."""


def chosen(names: list[str]) -> list[str]:
    """Return the phases that are named, groups resolved, in the order of `PHASES`.

    Raises:
        ValueError: a name is neither a phase nor a group.
    """
    wanted: set[str] = set()
    for name in names:
        if name not in GROUPS and name not in PHASES:
            known = ", ".join([*GROUPS, *PHASES])
            raise ValueError(f"no phase is called {name!r}: there are {known}")
        wanted |= set(GROUPS.get(name, (name,)))
    return [name for name in PHASES if name in wanted]


def failed_gates(place: Place, commit: str) -> list[str] | None:
    """Return the operations whose gate failed, or None where gates have not run at this commit."""
    path = place.results / "device-gates.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("origin", {}).get("commit") != commit:
        return None
    return list(found["failed"])
