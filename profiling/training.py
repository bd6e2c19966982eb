"""What bounds training: `python profiling/training.py` on a GPU; results to profiling/results.

For both stages and several batches: the time of a step, how much audio a second that is, the share
of it in which the GPU works, how often the step waits for the GPU, and the kernels that take most.
Crops are noise of the right length: what is in them changes no time.
"""

from __future__ import annotations

import json
import statistics
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated

import torch
import typer
from machine import provenance
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from melcap.training.data import SAMPLE_RATE
from melcap.training.start import prepare

RESULTS = Path(__file__).parent / "results"
RUNS = {
    "stage 1": {"stage": 1, "columns": 48},
    "stage 2": {"stage": 2, "columns": 26},
    "stage 2, discriminators of 16": {"stage": 2, "columns": 26, "discriminators": 16},
}


@dataclass(frozen=True)
class Row:
    """One setting. `busy` is the time in kernels over the time of a step under the profiler."""

    run: str
    batch: int
    compiled: bool
    step_ms: float
    audio_seconds_per_second: float
    memory_gb: float
    launches: int
    waits: int
    busy: float
    kernels: list[tuple[str, float]]


def measure(run: str, batch: int, compiled: bool, steps: int) -> Row:
    """Step a recipe that starts from the shipped weights; kernels with their share of the time."""
    settings = RUNS[run]
    recipe = prepare(Path("/nonexistent"), settings, "default", batch).recipe
    # As melcap.training.run has them on a GPU.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    recipe.bf16 = True
    for module in recipe.modules().values():
        module.cuda()
    if compiled:
        recipe.compile()
    wave = torch.randn(batch, recipe.samples, device="cuda").mul_(0.1)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(5):
        recipe.step(wave, 0.0)
    taken = []
    for _ in range(steps):
        torch.cuda.synchronize()
        began = perf_counter()
        recipe.step(wave, 0.0)
        torch.cuda.synchronize()
        taken.append(perf_counter() - began)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        recipe.step(wave, 0.0)
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(warning.message) for warning in said)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        began = perf_counter()
        recipe.step(wave, 0.0)
        torch.cuda.synchronize()
        whole = perf_counter() - began
    kernels = [e for e in seen.key_averages() if e.device_type == DeviceType.CUDA]
    total = sum(e.self_device_time_total for e in kernels)
    kernels.sort(key=lambda e: -e.self_device_time_total)
    step = statistics.median(taken)
    return Row(
        *(run, batch, compiled, 1e3 * step, batch * recipe.samples / SAMPLE_RATE / step),
        torch.cuda.max_memory_allocated() / 1e9,
        sum(e.count for e in kernels),
        waits,
        min(1.0, total / 1e6 / whole),
        [(e.key[:90], e.self_device_time_total / total) for e in kernels[:10]],
    )


def write(rows: list[Row], origin: dict[str, str]) -> None:
    found = {"origin": origin, "rows": [asdict(row) for row in rows]}
    (RESULTS / "training-cuda.json").write_text(json.dumps(found, indent=1) + "\n")
    lines = ["# What bounds training", "", "By `python profiling/training.py`: "]
    lines[-1] += ", ".join(f"{name} {value}" for name, value in origin.items())
    lines += ["", "| run | batch | compiled | step | audio a second | memory | launches | waits "]
    lines[-1] += "| GPU works |"
    lines.append("|" + " --- |" * 9)
    for r in rows:
        lines.append(
            f"| {r.run} | {r.batch} | {'yes' if r.compiled else 'no'} | {r.step_ms:.0f} ms "
            f"| {r.audio_seconds_per_second:.0f} s | {r.memory_gb:.1f} GB | {r.launches} "
            f"| {r.waits} | {r.busy:.0%} |"
        )
    for r in rows:
        lines += ["", f"{r.run}, batch {r.batch}{', compiled' if r.compiled else ''}:", ""]
        lines += [f"- {share:.1%} `{name}`" for name, share in r.kernels]
    (RESULTS / "training-cuda.md").write_text("\n".join(lines) + "\n")


def main(
    run: Annotated[list[str] | None, typer.Option(help=f"of {', '.join(RUNS)}")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1)] = None,
    compiled: Annotated[bool, typer.Option(help="compiled as well")] = False,
    steps: Annotated[int, typer.Option(min=1)] = 10,
) -> None:
    if not torch.cuda.is_available():
        sys.exit("nothing can be measured here: no CUDA device (on a CPU a run says its speed)")
    rows: list[Row] = []
    for name in run or RUNS:
        for size in batch or (32, 128):
            for way in (False, True) if compiled else (False,):
                try:
                    rows.append(measure(name, size, way, steps))
                except torch.OutOfMemoryError as error:
                    typer.echo(f"{name}, batch {size}: left out: {str(error).splitlines()[0]}")
                    continue
                write(rows, provenance("cuda"))
                typer.echo({k: v for k, v in asdict(rows[-1]).items() if k != "kernels"})


if __name__ == "__main__":
    typer.run(main)
