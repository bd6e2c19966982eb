"""Spend a fixed number of GPU seconds in the best order, and keep whatever was done.

    python profiling/gpu_budget.py --seconds 290 --phases measure
    python profiling/gpu_budget.py --seconds 430 --phases training --plan lite --data A.tar
    python profiling/gpu_budget.py --dry                     # every phase on a CPU, in small

Phases (profiling/phases.py) are processes with a limit each. OUT/<phase>.json says how a phase
ended, OUT/<phase>.log what it printed, OUT/results/ holds the tables, OUT/run/ the checkpoints.
When time runs out the rest is skipped and named. A kernel whose gate fails is switched off for the
phases behind it. With `--parcel` a folder of few files is kept up to date for machines that hand
back no more (profiling/parcel.py). What `profiling/gpu_pack.py` has packed for a machine without a
network is found in `--carried`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from machine import commit
from parcel import update
from phases import GROUPS, PHASES, REHEARSAL_SECONDS, Phase, Place, chosen, failed_gates
from rich.console import Console
from rich.table import Table

from melcap.files import replacing
from melcap.ops.registry import SWITCH

ROOT = Path(__file__).resolve().parents[1]
LEAST_SECONDS = 5.0
"""A phase is not started with less time than this."""
GRACE_SECONDS = 6.0
"""Seconds between asking a phase to end and killing it: training saves meanwhile."""
PARCEL_EVERY = 5.0
DRY_SECONDS = 175.0


@dataclass
class Outcome:
    """How a phase ended: passed, failed, stopped at its limit, kept from before, or skipped."""

    phase: str
    status: str
    seconds: float = 0.0
    limit: float = 0.0
    returncode: int | None = None
    reason: str = ""
    command: list[str] = field(default_factory=list)
    kernels_off: list[str] = field(default_factory=list)


class Running:
    """A phase at work: its process, its log, and when it must end.

    Args:
        name, phase: the phase.
        place: where it runs.
        deadline: when it must have ended, in seconds since 1970.
        environment: variables for its process.
        off: operations whose kernels are switched off.
    """

    def __init__(
        self,
        name: str,
        phase: Phase,
        place: Place,
        deadline: float,
        environment: dict[str, str],
        off: list[str],
    ) -> None:
        self._began = time.time()
        limit = REHEARSAL_SECONDS.get(name, 120.0) if place.rehearsal else phase.limit
        self._deadline = min(deadline, self._began + limit)
        self._place = place
        self._asked = 0.0
        # The phase is to end by itself before it is asked to.
        command = phase.command(place, self._deadline - 1.0)
        self.outcome = Outcome(
            name, "running", limit=self._deadline - self._began, command=command, kernels_off=off
        )
        self._log = (place.out / f"{name}.log").open("w")
        variables = environment | phase.environment(place) | {SWITCH: ",".join(off)}
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=variables,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._write()

    def ended(self) -> bool:
        """Look whether the phase has ended; stop it where its time is up."""
        now = time.time()
        status = self._process.poll()
        if status is None:
            if not self._asked and now >= self._deadline:
                self._asked = now
                self._signal(signal.SIGTERM)
            elif self._asked and now >= self._asked + GRACE_SECONDS:
                self._signal(signal.SIGKILL)
            return False
        self._signal(signal.SIGKILL)  # whatever it has left behind
        self._log.close()
        self.outcome.seconds = round(now - self._began, 1)
        self.outcome.returncode = status
        self.outcome.status = "passed" if not status else "stopped" if self._asked else "failed"
        if self._asked:
            self.outcome.reason = f"its {self.outcome.limit:.0f} s were over"
        elif status:
            lines = (self._place.out / f"{self.outcome.phase}.log").read_text(errors="replace")
            self.outcome.reason = "".join(lines.strip().splitlines()[-1:])[:300]
        self._write()
        return True

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _write(self) -> None:
        write(self._place, self.outcome)


def write(place: Place, outcome: Outcome) -> None:
    """Write OUT/<phase>.json."""
    with replacing(place.out / f"{outcome.phase}.json") as temporary:
        temporary.write_text(json.dumps(asdict(outcome), indent=1) + "\n")


def spend(
    names: list[str],
    place: Place,
    seconds: float,
    environment: dict[str, str],
    parcel: Path | None = None,
) -> list[Outcome]:
    """Run phases one after the other until the seconds are over; returns how each ended."""
    deadline = time.time() + seconds - GRACE_SECONDS
    outcomes: list[Outcome] = []
    told: list[str] = []
    for name in names:
        if PHASES[name].beside in names:
            continue  # started with the other one
        off = failed_gates(place, commit())
        if name == "gates" and off is not None:
            outcomes.append(Outcome(name, "kept", reason="has run at this commit"))
            continue
        left = deadline - time.time()
        together = [name, *(other for other in names if PHASES[other].beside == name)]
        if left < LEAST_SECONDS:
            for one in together:
                outcomes.append(Outcome(one, "skipped", reason=f"{max(0.0, left):.0f} s were left"))
                write(place, outcomes[-1])
            continue
        running = [
            Running(one, PHASES[one], place, deadline, environment, off or []) for one in together
        ]
        packed = time.time()
        while running:
            time.sleep(0.05)
            done = [one for one in running if one.ended()]
            running = [one for one in running if one not in done]
            outcomes += [one.outcome for one in done]
            for one in done:
                print(f"{one.outcome.phase}: {one.outcome.status}", one.outcome.reason, flush=True)
            if parcel and (done or time.time() - packed > PARCEL_EVERY):
                left_behind = update(place.out, parcel)
                if left_behind and left_behind != told:
                    print(f"too large for the parcel: {', '.join(left_behind)}", flush=True)
                told, packed = left_behind, time.time()
    (place.out / "summary.json").write_text(json.dumps([asdict(o) for o in outcomes], indent=1))
    if parcel:
        update(place.out, parcel)
    return outcomes


def report(outcomes: list[Outcome], seconds: float, spent: float) -> None:
    """Print a table of the phases."""
    table = Table(title=f"{spent:.0f} of {seconds:.0f} s")
    for head in ("phase", "status", "s", "of at most", "kernels off", "reason"):
        table.add_column(head, overflow="fold")
    for o in outcomes:
        times = (f"{o.seconds:.1f}", f"{o.limit:.0f}") if o.limit else ("", "")
        table.add_row(o.phase, o.status, *times, ", ".join(o.kernels_off), o.reason)
    Console(width=120).print(table)


def _environment(carried: Path | None) -> dict[str, str]:
    """Return the variables of all phases, with what was carried to this machine."""
    found = dict(os.environ) | {"PYTHONUNBUFFERED": "1"}
    sites = [str(path) for path in sorted(carried.glob("*/site"))] if carried else []
    before = os.environ.get("PYTHONPATH", "")
    found["PYTHONPATH"] = os.pathsep.join([*sites, *([before] if before else [])])
    for told in sorted(carried.glob("*/commit")) if carried else ():
        os.environ["MELCAP_COMMIT"] = found["MELCAP_COMMIT"] = told.read_text().strip()
    return found


def _target() -> str:
    """Return the architecture of the device here, as the ahead-of-time gate calls it."""
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


def main(
    seconds: Annotated[
        float | None, typer.Option(help=f"in all; {DRY_SECONDS:.0f} with --dry", min=1)
    ] = None,
    phases: Annotated[
        str, typer.Option(help=f"separated by commas, of {', '.join([*GROUPS, *PHASES])}")
    ] = "all",
    out: Annotated[Path, typer.Option(help="folder for everything")] = Path("runs/gpu"),
    parcel: Annotated[
        Path | None, typer.Option(help="folder of at most 8 files of 16 MiB, always up to date")
    ] = None,
    plan: Annotated[str, typer.Option(help="of the plans, the one that is trained")] = "lite",
    plans: Annotated[Path, typer.Option(help="file of plans")] = Path("profiling/gpu_budget.json"),
    data: Annotated[
        list[Path] | None, typer.Option(help="tar shard or folder of audio; for each one")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="folder of checkpoints that training goes on from")
    ] = None,
    carried: Annotated[
        Path | None, typer.Option(help="folder of what gpu_pack.py has packed")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry", help="every phase on a CPU, in small")] = False,
) -> None:
    """Run the phases; ends with status 1 where one failed or none was run."""
    began = time.time()
    if seconds is None and not dry:
        raise typer.BadParameter("say how many seconds there are", param_hint="--seconds")
    try:
        names = chosen(phases.split(","))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--phases") from error
    if not dry and not torch.cuda.is_available():
        sys.exit("no CUDA device here: --dry runs every phase on a CPU, in small")
    environment = _environment(carried)
    audio = [*(data or ()), *(sorted(carried.glob("*/*.tar")) if carried else ())]
    if not audio and dry:
        audio = [ROOT / "examples" / "audio"]
    if not audio and "train" in names:
        raise typer.BadParameter("training needs audio: --data or --carried", param_hint="--data")
    runs = sorted(carried.glob("*/run")) if carried else []
    place = Place(
        out=out.absolute(),
        device="cpu" if dry else "cuda",
        target="sm_90" if dry else _target(),
        data=tuple(path.absolute() for path in audio),
        plan=plan,
        plans=plans.absolute(),
        resume=(resume or (runs[-1] if runs else None)),
    )
    place.results.mkdir(parents=True, exist_ok=True)
    whole = DRY_SECONDS if seconds is None else seconds
    outcomes = spend(names, place, whole - (time.time() - began), environment, parcel)
    report(outcomes, whole, time.time() - began)
    good = [o for o in outcomes if o.status in ("passed", "kept")]
    sys.exit(0 if len(good) == len(outcomes) else 1)


if __name__ == "__main__":
    typer.run(main)
