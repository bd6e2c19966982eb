"""Train by a plan of `gpu_budget.json` until a deadline, one stage after the other.

    python profiling/train_plan.py lite --deadline $(date -d '+7 min' +%s) --data A.tar --out RUN

A plan is a list of steps. Each has settings of `melcap.training.config`, further options of
`melcap.training.run`, and a share of the time. A step that runs out of GPU memory begins again with
half its batch; one that fails otherwise goes on once from its checkpoint, and is not compiled then.
With `--resume RUN` the stages that lie in RUN go on from there.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from melcap.cli.batch import sentences
from melcap.errors import InputError
from melcap.training.checkpoint import INDEX
from melcap.training.config import TrainingConfig, read_settings
from melcap.training.run import CUDA_BATCH

PLANS = Path(__file__).with_name("gpu_budget.json")
SMALL = {"batch": 1, "columns": 4}
"""Settings of a rehearsal on a CPU..."""
SMALL_MINUTES = 0.05
"""... and how long each of its steps trains, whatever the deadline."""
OUT_OF_MEMORY = "the GPU's memory is full"
UNCOMPILED = "--no-compile"
RETRY_SECONDS = 30.0
"""A step that failed is run again where more time than this is left."""


@dataclass(frozen=True)
class Step:
    """One run of `melcap.training.run`."""

    share: float
    settings: dict[str, Any]
    options: tuple[str, ...]

    @property
    def recipe(self) -> str:
        """The recipe's name: stage1, vocoder or stage2."""
        given = {key: value for key, value in self.settings.items() if key != "codec"}
        return TrainingConfig.of(**given).recipe


def read_plan(path: Path, name: str) -> list[Step]:
    """Read a plan from a file of plans.

    Raises InputError for a file that holds no plans, a name that is not among them, and settings
    that cannot be.
    """
    plans = read_settings(path)
    if name not in plans:
        raise InputError(f"{path}: no plan {name!r}: there are {', '.join(plans)}")
    try:
        steps = [
            Step(float(s["share"]), dict(s["settings"]), tuple(s.get("options", ())))
            for s in plans[name]["steps"]
        ]
        total = sum(step.share for step in steps)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: {name} is not a plan: {error!r}") from error
    if not steps or abs(total - 1) > 1e-6:
        raise InputError(f"{path}: the shares of {name} add up to {total:g}, not to 1")
    for step in steps:
        step.recipe  # noqa: B018  raises InputError for settings that cannot be
    return steps


def run_step(
    step: Step,
    deadline: float,
    arguments: Sequence[str],
    out: Path,
    stopping: threading.Event | None = None,
) -> int:
    """Run a step until the deadline, again where it fails; returns its exit status.

    Once `stopping` is set it is not run again.
    """
    settings, options = dict(step.settings), list(step.options)
    while True:
        file = out / f"{step.recipe}-settings.json"
        file.write_text(json.dumps(settings, indent=1))
        command = [sys.executable, "-m", "melcap.training.run", "--config", str(file)]
        command += ["--deadline", f"{deadline:.1f}", *options, *arguments]
        status, no_memory = _watched(command)
        batch = settings.get("batch", CUDA_BATCH)
        if not status or (stopping is not None and stopping.is_set()):
            return status
        if no_memory and batch > 1:
            settings["batch"] = batch // 2
            print(f"{step.recipe}: no memory for a batch of {batch}: again with {batch // 2}")
        elif not no_memory and UNCOMPILED not in options and time.time() < deadline - RETRY_SECONDS:
            options.append(UNCOMPILED)
            print(f"{step.recipe} ended with status {status}: it goes on, uncompiled", flush=True)
        else:
            return status


def _watched(command: Sequence[str]) -> tuple[int, bool]:
    """Run a command and pass on what it says; returns its status, and whether memory ran out."""
    full = False
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            full = full or OUT_OF_MEMORY in line
    return process.returncode, full


@contextmanager
def _outliving_a_kill() -> Iterator[threading.Event]:
    """Go on after SIGTERM, which the run at work is sent too: it saves, and is waited for.

    Yields an event that says whether the signal has come.
    """
    stopping = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGTERM, before)


def main(
    plan: Annotated[str, typer.Argument(help="the name of a plan")],
    deadline: Annotated[float, typer.Option(help="seconds since 1970")],
    out: Annotated[Path, typer.Option(help="folder of the run")],
    data: Annotated[list[Path], typer.Option(help="tar shard or folder; to be given for each")],
    plans: Annotated[Path, typer.Option(help="file of plans")] = PLANS,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cuda",
    resume: Annotated[Path | None, typer.Option(help="a run whose stages go on here")] = None,
    small: Annotated[bool, typer.Option("--small", help="a rehearsal: small batches")] = False,
) -> None:
    """Run the steps; a step that fails is said, and those behind it are tried all the same."""
    with sentences(), _outliving_a_kill() as stopping:
        steps = read_plan(plans, plan)
        out.mkdir(parents=True, exist_ok=True)
        for index in resume.glob(f"*/{INDEX}") if resume else ():
            if not (out / index.parent.name).exists():
                shutil.copytree(index.parent, out / index.parent.name)
        arguments = ["--out", str(out), "--device", device, "--picture-minutes", "inf"]
        arguments += ["--minutes", str(SMALL_MINUTES)] if small else []
        for path in data:
            arguments += ["--data", str(path)]
        decode = [sys.executable, "-m", "melcap.training.decode", "--out", str(out / "audio")]
        if subprocess.run([*decode, *map(str, data)], check=False).returncode:
            sys.exit("the audio cannot be decoded: see above")
        failed = []
        left = 1.0
        for step in steps:
            # What a step before did not use is shared by those that follow.
            now = time.time()
            until = now + (deadline - now) * step.share / left
            left -= step.share
            if small:
                step = Step(step.share, step.settings | SMALL, step.options)
            print(f"{step.recipe}: {until - now:.0f} s", flush=True)
            if status := run_step(step, until, arguments, out, stopping):
                failed.append(f"{step.recipe} ended with status {status}")
            if stopping.is_set():
                failed.append("stopped before its end")
                break
        if failed:
            sys.exit("; ".join(failed))


if __name__ == "__main__":
    typer.run(main)
