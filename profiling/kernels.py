"""Time every kernel beside its peers on this GPU, with rates and errors, in one run.

    python profiling/kernels.py                        # all operations, all shapes
    python profiling/kernels.py --operation log_mel --quick

A kernel's error against float64 is measured first. A kernel outside its tolerance is reported as
wrong and not timed. Rows are added to profiling/results/kernels.csv as they come. The latest rows
of each operation make the table in kernels.md beside it, and those of this run the roofline in
kernels.png. `melcap bench --kernels` times the calls of the codec alone.
"""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections.abc import Iterable
from typing import Annotated

import torch
import typer
from cases import CASES, Case
from machine import ceilings, commit
from paths import RESULTS
from rich.console import Console
from rich.progress import track

import melcap
from melcap.bench.kernels import allowed_error, largest_error, timed
from melcap.markdown import table
from melcap.ops.registry import reasons_against, unavailable
from melcap.provenance import provenance

Row = dict[str, object]
COLUMNS = (
    "operation",
    "case",
    "contender",
    "error",
    "ms",
    "ms_p25",
    "ms_p75",
    "graph_ms",
    "GB_per_s",
    "TFLOP_per_s",
    "share_of_floor",
)
RUN = ("gpu", "torch", "triton", "commit", "date")
"""The columns in which the rows of one run agree. A commit says more than a version."""
ORIGIN = ("gpu", "torch", "triton", "melcap", "commit", "date")
"""Columns of the CSV after `COLUMNS`."""


def origin() -> dict[str, str]:
    """Return the card, versions, commit and date, which every row carries."""
    found = provenance(("torch", "triton"))
    found |= {
        "gpu": torch.cuda.get_device_name(),
        "melcap": melcap.__version__,
        "commit": commit(),
    }
    return {name: found[name] for name in ORIGIN}


def measure(case: Case, limits: dict[str, float], run: dict[str, str]) -> list[Row]:
    """Return a row for each contender."""
    contenders = case.contenders()
    expected = case.expected()
    allowed = allowed_error(case.operation, case.dtype, expected)
    rows: list[Row] = []
    errors = {}
    for name, call in list(contenders.items()):
        found = call()
        errors[name], place = largest_error(found, expected)
        if name == "melcap triton" and errors[name] > allowed:
            print(f"WRONG: {case.operation} {case.name}: {errors[name]:.1e} at {place}, not timed")
            del contenders[name]
    timings = timed(contenders)
    # the larger of two floors: bytes over the bandwidth, and FLOP over the rate of their units
    floor = max(case.bytes / limits["copy B/s"], case.flops / limits[case.units]) * 1e3
    for name, error in errors.items():
        timing = timings.get(name)
        row: Row = {
            "operation": case.operation,
            "case": case.name,
            "contender": name,
            "error": f"{error:.2e}",
        }
        if timing is not None:
            best = min(timing.median, timing.graph or timing.median)
            row |= {
                "ms": f"{timing.median:.5f}",
                "ms_p25": f"{timing.low:.5f}",
                "ms_p75": f"{timing.high:.5f}",
                "graph_ms": "" if timing.graph is None else f"{timing.graph:.5f}",
                "GB_per_s": f"{case.bytes / best / 1e6:.1f}",
                "TFLOP_per_s": f"{case.flops / best / 1e9:.2f}",
                "share_of_floor": f"{floor / best:.3f}",
            }
        rows.append(row | run)
    return rows


def keep(rows: list[Row]) -> None:
    """Add a case's rows to the CSV: a run that is stopped loses nothing."""
    path = RESULTS / "kernels.csv"
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS + ORIGIN)
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


def write(limits: dict[str, float]) -> None:
    """Write the table: each operation as it was last measured on the card that was used last."""
    with (RESULTS / "kernels.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    last = {row["operation"]: row for row in rows if row["gpu"] == rows[-1]["gpu"]}
    runs = {name: [row[part] for part in RUN] for name, row in last.items()}
    rows = [row for row in rows if [row[part] for part in RUN] == runs.get(row["operation"])]
    lines = [
        f"# Kernels on {rows[0]['gpu']}",
        "",
        "By `python profiling/kernels.py`. Milliseconds are medians; the floor is the larger of "
        "bytes over this card's copy bandwidth and FLOP over its measured rate, in the last run: "
        + ", ".join(f"{limit:.3g} {name}" for name, limit in limits.items())
        + ".",
        "",
        *(f"- {name}: {', '.join(f'{p} {row[p]}' for p in RUN[1:])}" for name, row in last.items()),
        "",
        table(COLUMNS, ([row[name] for name in COLUMNS] for row in rows)),
    ]
    (RESULTS / "kernels.md").write_text("\n".join(lines))


def roofline(rows: Iterable[Row], cases: dict[str, Case], limits: dict[str, float]) -> None:
    """Draw the rate of each kernel over its arithmetic intensity, under this card's ceilings."""
    if importlib.util.find_spec("matplotlib") is None:
        print("matplotlib is not installed: no roofline")
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    intensity = [2.0**n for n in range(-3, 13)]
    for name, limit in limits.items():
        if name != "copy B/s":
            roof = [min(limit, x * limits["copy B/s"]) / 1e12 for x in intensity]
            axes.plot(intensity, roof, lw=1, label=name)
    for row in rows:
        if row["contender"] == "melcap triton" and "TFLOP_per_s" in row:
            case = cases[f"{row['operation']} {row['case']}"]
            axes.scatter(case.flops / case.bytes, float(str(row["TFLOP_per_s"])), s=18)
            axes.annotate(
                f"{case.operation} {case.name}",
                (case.flops / case.bytes, float(str(row["TFLOP_per_s"]))),
                fontsize=5,
            )
    axes.set(xscale="log", yscale="log", xlabel="FLOP a byte", ylabel="TFLOP/s")
    axes.legend(fontsize=7)
    figure.savefig(RESULTS / "kernels.png", dpi=130)


def main(
    operation: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(CASES)}. Default: all.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Measure the first and the last shape only.")] = False,
) -> None:
    """Measure, print, and write to profiling/results."""
    reasons = unavailable("triton") or ([] if torch.cuda.is_available() else ["no CUDA device"])
    if reasons:
        sys.exit(f"nothing can be measured here: {'; '.join(reasons)}")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    limits, run = ceilings(), origin()
    print(run, {name: f"{limit:.3g}" for name, limit in limits.items()})
    rows: list[Row] = []
    cases: dict[str, Case] = {}
    for name in operation or CASES:
        chosen = CASES[name]()
        for case in track(chosen[:: max(1, len(chosen) - 1)] if quick else chosen, name):
            if reasons_against(name, "triton", *case.arguments()):
                print(f"no Triton kernel for {name} {case.name}: left out")
                continue
            cases[f"{name} {case.name}"] = case
            found = measure(case, limits, run)
            keep(found)
            rows += found
            write(limits)
            torch.cuda.empty_cache()
    if not rows:
        sys.exit("nothing was measured")
    roofline(rows, cases, limits)
    Console().print((RESULTS / "kernels.md").read_text())


if __name__ == "__main__":
    typer.run(main)
