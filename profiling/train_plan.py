"""Train by a plan of `gpu_budget.json` until a deadline, one stage after the other.

    python profiling/train_plan.py lite --deadline $(date -d '+7 min' +%s) --data A.tar --out RUN

A plan is a list of steps. Each step has training settings, further options of the training command,
and a share of the time. A step that runs out of GPU memory begins again with half its batch. A step
that fails otherwise goes on once from its checkpoint, without compilation. With `--resume RUN` the
stages in RUN go on from their checkpoints.
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

from melcap.cli.exits import exit_on_errors
from melcap.errors import InputError
from melcap.training.checkpoint import INDEX
from melcap.training.config import TrainingConfig
from melcap.training.run import CUDA_BATCH, OUT_OF_MEMORY
from melcap.training.settings_files import read_json

PLANS = Path(__file__).with_name("gpu_budget.json")
SMALL = {"batch": 1, "columns": 4}
"""Settings of a rehearsal on a CPU."""
SMALL_MINUTES = 0.05
"""Minutes that each step of a rehearsal trains, whatever the deadline."""
UNCOMPILED = "--no-compile"
RETRY_SECONDS = 30.0
"""A step that failed is run again if more time than this is left."""


@dataclass(frozen=True)
class Step:
    """A step of a plan: one run of `melcap train`."""

    share: float
    settings: dict[str, Any]
    options: tuple[str, ...]

    @property
    def recipe(self) -> str:
        """Return the recipe's name: stage1, vocoder, stage2 or joint."""
        given = {key: value for key, value in self.settings.items() if key != "codec"}
        return TrainingConfig.of(**given).recipe


def read_plan(path: Path, name: str) -> list[Step]:
    """Read a plan from a file of plans.

    Raises:
        InputError: the file holds no plans, the name is not among them, or settings are not valid.
    """
    plans = read_json(path)
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
        step.recipe  # noqa: B018  raises InputError for settings that are not valid
    return steps


def run_step(
    step: Step,
    deadline: float,
    arguments: Sequence[str],
    out: Path,
    stopping: threading.Event | None = None,
) -> int:
    """Run a step until the deadline, again where it fails, and return its exit status.

    Once `stopping` is set, the step is not run again.
    """
    settings, options = dict(step.settings), list(step.options)
    while True:
        file = out / f"{step.recipe}-settings.json"
        file.write_text(json.dumps(settings, indent=1))
        command = [sys.executable, "-m", "melcap", "train", "--config", str(file)]
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
    """Run a command and pass on what it prints; return its status, and whether memory ran out."""
    full = False
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            full = full or OUT_OF_MEMORY in line
    return process.returncode, full


@contextmanager
def _outliving_a_kill() -> Iterator[threading.Event]:
    """Go on after SIGTERM, which the training process receives too: it saves, and is waited for.

    Yields:
        An event that is set when the signal has come.
    """
    stopping = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGTERM, before)


def main(
    plan: Annotated[str, typer.Argument(help="The name of a plan.")],
    deadline: Annotated[float, typer.Option(help="When training ends, in seconds since 1970.")],
    out: Annotated[Path, typer.Option(help="The folder of the run.")],
    data: Annotated[list[Path], typer.Option(help="A tar shard or folder; repeatable.")],
    plans: Annotated[Path, typer.Option(help="The file of plans.")] = PLANS,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda",
    resume: Annotated[Path | None, typer.Option(help="A run whose stages go on here.")] = None,
    small: Annotated[bool, typer.Option("--small", help="Rehearse with small batches.")] = False,
) -> None:
    """Run the steps. A step that fails is named, and the steps after it are tried all the same."""
    with exit_on_errors(), _outliving_a_kill() as stopping:
        steps = read_plan(plans, plan)
        out.mkdir(parents=True, exist_ok=True)
        for index in resume.glob(f"*/{INDEX}") if resume else ():
            if not (out / index.parent.name).exists():
                shutil.copytree(index.parent, out / index.parent.name)
        arguments = ["--out", str(out), "--device", device, "--picture-minutes", "inf"]
        arguments += ["--minutes", str(SMALL_MINUTES)] if small else []
        for path in data:
            arguments += ["--data", str(path)]
        decode = [sys.executable, "-m", "melcap", "train-decode", "--out", str(out / "audio")]
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
