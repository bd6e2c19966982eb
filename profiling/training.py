"""Measure what a training step costs and what bounds it: `python profiling/training.py`.

For every recipe and several batches: the time of a step, how much audio a second that is, the share
of the time in which the GPU works, how often the step waits for the GPU, and the kernels that take
most. `--compare OPERATION` measures each setting a second time with that operation's kernel
switched off. Crops are noise of the right length, because their content changes no time. On a CPU
only the time of steps is measured.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Annotated

import torch
import typer
from machine import provenance
from paths import RESULTS
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from melcap.bench.speed import synchronize, timed
from melcap.markdown import table
from melcap.ops.registry import OPERATIONS, SWITCH, switched_off
from melcap.training.audio_cache import SAMPLE_RATE
from melcap.training.start import prepare

RUNS = {
    "stage 1": {"stage": 1, "columns": 48},
    "stage 2": {"stage": 2, "columns": 26, "constant_phase": True},
    "stage 2, discriminators of 16": {
        "stage": 2,
        "columns": 26,
        "constant_phase": True,
        "discriminators": 16,
    },
    "stage 2, magnitudes of 16": {
        "stage": 2,
        "columns": 26,
        "constant_phase": True,
        "discriminators": 16,
        "discriminator_kind": "magnitudes",
    },
    "joint": {"joint": True, "columns": 26},
}


@dataclass(frozen=True)
class Row:
    """The measurements of one setting.

    `without` names operations whose kernels were switched off. `busy` is the time in kernels over
    the time of a step under the profiler. On a CPU it is 0, and nothing else of the profile is
    known.
    """

    run: str
    batch: int
    compiled: bool
    without: str
    step_ms: float
    audio_seconds_per_second: float
    memory_gb: float
    launches: int
    waits: int
    busy: float
    kernels: list[tuple[str, float]]


def measure(
    run: str,
    batch: int,
    compiled: bool,
    without: str,
    steps: int,
    device: str,
    columns: int | None = None,
) -> Row:
    """Measure steps of a recipe that starts from the shipped weights."""
    gpu = device != "cpu"
    settings = RUNS[run] | ({} if columns is None else {"columns": columns})
    recipe = prepare(Path("/nonexistent"), settings, "default", batch).recipe
    if gpu:  # as melcap.training.run sets them on a GPU
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        recipe.bf16 = True
        torch.cuda.reset_peak_memory_stats()
    for module in recipe.modules().values():
        module.to(device)
    if compiled:
        recipe.compile()
    wave = torch.randn(batch, recipe.samples, device=device).mul_(0.1)
    for _ in range(5 if gpu else 1):
        recipe.step(wave)
    synchronize(device)
    step = statistics.median(timed(partial(recipe.step, wave), device)[0] for _ in range(steps))
    speed = batch * recipe.samples / SAMPLE_RATE / step
    if not gpu:
        return Row(run, batch, compiled, without, 1e3 * step, speed, 0.0, 0, 0, 0.0, [])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        recipe.step(wave)
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(warning.message) for warning in said)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        began = perf_counter()
        recipe.step(wave)
        torch.cuda.synchronize()
        whole = perf_counter() - began
    kernels = [e for e in seen.key_averages() if e.device_type == DeviceType.CUDA]
    total = sum(e.self_device_time_total for e in kernels)
    kernels.sort(key=lambda e: -e.self_device_time_total)
    return Row(
        run,
        batch,
        compiled,
        without,
        1e3 * step,
        speed,
        torch.cuda.max_memory_allocated() / 1e9,
        sum(e.count for e in kernels),
        waits,
        min(1.0, total / 1e6 / whole),
        [(e.key[:90], e.self_device_time_total / total) for e in kernels[:10]],
    )


def write(stem: Path, rows: list[Row], origin: dict[str, str]) -> None:
    """Write `stem`.json and .md."""
    found = {"origin": origin, "rows": [asdict(row) for row in rows]}
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    heads = (
        "run",
        "batch",
        "compiled",
        "kernel off",
        "step",
        "audio a second",
        "memory",
        "launches",
        "waits",
        "GPU works",
    )
    told = ", ".join(f"{name} {value}" for name, value in origin.items())
    text = f"# What bounds training\n\nBy `python profiling/training.py`: {told}\n\n"
    text += table(heads, [_cells(r) for r in rows])
    for r in rows:
        if not r.kernels:
            continue
        title = f"{r.run}, batch {r.batch}{', compiled' if r.compiled else ''}"
        text += f"\n{title}{f', without {r.without}' if r.without else ''}:\n\n"
        text += "".join(f"- {share:.1%} `{name}`\n" for name, share in r.kernels)
    stem.with_suffix(".md").write_text(text)


def _cells(row: Row) -> list[object]:
    cells: list[object] = [row.run, row.batch, "yes" if row.compiled else "no", row.without]
    cells += [f"{row.step_ms:.0f} ms", f"{row.audio_seconds_per_second:.0f} s"]
    if row.kernels:
        cells += [f"{row.memory_gb:.1f} GB", row.launches, row.waits, f"{row.busy:.0%}"]
    return [*cells, *[""] * (10 - len(cells))]


def main(
    run: Annotated[list[str] | None, typer.Option(help=f"{', '.join(RUNS)}. Default: all.")] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Crops in a batch. Default: 32 and 128.")
    ] = None,
    compiled: Annotated[bool, typer.Option(help="Also measure compiled steps.")] = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps that are timed.")] = 10,
    columns: Annotated[
        int | None, typer.Option(help="Columns of a crop. Default: as the runs have them.", min=1)
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            help=f"Measure with and without the kernel of one of {', '.join(OPERATIONS)}."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda",
    out: Annotated[Path, typer.Option(help="The folder for the results.")] = RESULTS,
) -> None:
    """Measure, and write the files anew after every row."""
    if device != "cpu" and not torch.cuda.is_available():
        sys.exit("no CUDA device here: --device cpu times steps on this processor")
    out.mkdir(parents=True, exist_ok=True)
    off = sorted(switched_off())
    switches = [",".join(off)]
    if compare is not None:
        switches.append(",".join(sorted({*off, compare})))
    settings = product(run or RUNS, batch or (32, 128), (False, True) if compiled else (False,))
    rows: list[Row] = []
    for (name, size, way), without in product(settings, switches):
        os.environ[SWITCH] = without
        try:
            rows.append(measure(name, size, way, without, steps, device, columns))
        except torch.OutOfMemoryError as error:
            typer.echo(f"{name}, batch {size}: left out: {str(error).splitlines()[0]}")
            continue
        write(out / f"training-{device}", rows, provenance(device))
        typer.echo({k: v for k, v in asdict(rows[-1]).items() if k != "kernels"})


if __name__ == "__main__":
    typer.run(main)
