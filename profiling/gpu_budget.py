"""Spend a fixed number of GPU seconds in the best order, and keep whatever was done.

    python profiling/gpu_budget.py --seconds 290 --phases measure
    python profiling/gpu_budget.py --seconds 430 --phases training --plan lite --data A.tar
    python profiling/gpu_budget.py --dry                     # every phase on a CPU, in small

Phases (profiling/phases.py) are processes, each with a time limit. OUT/<phase>.json says how a
phase ended, and OUT/<phase>.log what it printed. OUT/results/ holds the tables, OUT/run/ the
checkpoints. When time runs out, the rest is skipped and named. A kernel whose gate fails is
switched off for the phases that follow. `--parcel` keeps a folder of few files up to date, for
machines that hand back no more (profiling/parcel.py). `--carried` is the folder of what
`profiling/gpu_pack.py` has packed for a machine without a network.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from machine import commit
from parcel import update
from paths import AUDIO, ROOT
from phases import GROUPS, PHASES, Place, chosen, failed_gates
from rich.console import Console
from rich.table import Table
from running import GRACE_SECONDS, Outcome, Running, write

LEAST_SECONDS = 5.0
"""A phase is not started with less time than this."""
CHANGED = ("-dirty", "unknown")
"""Ends of a commit's name that do not say which code it is. Gates then run again."""
PARCEL_EVERY = 5.0
DRY_SECONDS = 175.0


def spend(
    names: list[str],
    place: Place,
    seconds: float,
    environment: dict[str, str],
    parcel: Path | None = None,
) -> list[Outcome]:
    """Run phases one after the other until the seconds are over, and return how each ended."""
    deadline = time.time() + seconds - GRACE_SECONDS
    outcomes: list[Outcome] = []
    told: list[str] = []
    for name in names:
        if PHASES[name].beside in names:
            continue  # started with the other one
        here = commit()
        off = failed_gates(place, here)
        if name == "gates":
            if off is not None and not here.endswith(CHANGED):
                outcomes.append(Outcome(name, "kept", reason="has run at this commit"))
                continue
            off = []  # every kernel is tried
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
    """Return the environment variables of all phases, with what was carried to this machine."""
    found = dict(os.environ) | {"PYTHONUNBUFFERED": "1"}
    sites = [str(path) for path in sorted(carried.glob("*/site"))] if carried else []
    before = os.environ.get("PYTHONPATH", "")
    paths = [*sites, str(ROOT), *([before] if before else [])]
    found["PYTHONPATH"] = os.pathsep.join(paths)
    for told in sorted(carried.glob("*/commit")) if carried else ():
        os.environ["MELCAP_COMMIT"] = found["MELCAP_COMMIT"] = told.read_text().strip()
    return found


def _target() -> str:
    """Return the architecture of this device, as the ahead-of-time gate calls it."""
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


def main(
    seconds: Annotated[
        float | None,
        typer.Option(help=f"Seconds in all. Default with --dry: {DRY_SECONDS:.0f}.", min=1),
    ] = None,
    phases: Annotated[
        str, typer.Option(help=f"Separated by commas: {', '.join([*GROUPS, *PHASES])}.")
    ] = "all",
    out: Annotated[Path, typer.Option(help="The folder for everything.")] = Path("runs/gpu"),
    parcel: Annotated[
        Path | None, typer.Option(help="A folder of at most 8 files of 16 MiB, kept up to date.")
    ] = None,
    plan: Annotated[str, typer.Option(help="The plan that is trained.")] = "lite",
    plans: Annotated[Path, typer.Option(help="The file of plans.")] = (
        ROOT / "profiling" / "gpu_budget.json"
    ),
    data: Annotated[
        list[Path] | None, typer.Option(help="A tar shard or folder of audio; repeatable.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="The folder of checkpoints that training goes on from.")
    ] = None,
    carried: Annotated[
        Path | None, typer.Option(help="The folder of what gpu_pack.py has packed.")
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry", help="Rehearse every phase on a CPU, in small.")
    ] = False,
) -> None:
    """Run the phases, and end with status 1 where one failed or was skipped."""
    began = time.time()
    if seconds is None and not dry:
        raise typer.BadParameter("say how many seconds there are", param_hint="--seconds")
    try:
        names = chosen(phases.split(","))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--phases") from error
    if not dry and not torch.cuda.is_available():
        sys.exit("no CUDA device here: --dry runs every phase on a CPU, in small")
    carried = carried.absolute() if carried else None  # phases run in the repository's folder
    environment = _environment(carried)
    audio = [*(data or ()), *(sorted(carried.glob("*/*.tar")) if carried else ())]
    if not audio and dry:
        audio = [AUDIO]
    if not audio and "train" in names:
        raise typer.BadParameter("training needs audio: --data or --carried", param_hint="--data")
    runs = sorted(carried.glob("*/run")) if carried else []
    going_on = resume or (runs[-1] if runs else None)
    place = Place(
        out=out.absolute(),
        device="cpu" if dry else "cuda",
        target="sm_90" if dry else _target(),
        data=tuple(path.absolute() for path in audio),
        plan=plan,
        plans=plans.absolute(),
        resume=going_on.absolute() if going_on else None,
    )
    place.results.mkdir(parents=True, exist_ok=True)
    whole = DRY_SECONDS if seconds is None else seconds
    outcomes = spend(names, place, whole - (time.time() - began), environment, parcel)
    report(outcomes, whole, time.time() - began)
    good = [o for o in outcomes if o.status in ("passed", "kept")]
    sys.exit(0 if len(good) == len(outcomes) else 1)


if __name__ == "__main__":
    typer.run(main)
