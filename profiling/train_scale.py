"""Work out what training on a collection takes: time, reading and messages between GPUs.

    python profiling/train_scale.py --hours 1000 --gpus 8
    python profiling/train_scale.py --share 0.8    # where GPUs wait for each other

The step of one GPU is measured: profiling/results/training-cuda.json, by
`python profiling/training.py`. That several GPUs take as long for a step, each with as many crops,
is an assumption, which `--share` changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from paths import RESULTS
from training import RUNS

from melcap.markdown import table
from melcap.training.audio_cache import SAMPLE_RATE
from melcap.training.start import prepare

MEASURED = RESULTS / "training-cuda.json"
CACHE_BYTES = 2 * SAMPLE_RATE
"""Bytes of a second of decoded audio: int16, one channel."""
FLOAT_BYTES = 4


def row(measured: dict[str, Any], hours: float, gpus: int, share: float) -> list[str]:
    """Return a row of the table.

    Args:
        measured: a setting that was measured on one GPU.
        hours: hours of audio in the collection.
        gpus: the number of GPUs.
        share: the share of a step that is not waiting for other GPUs.
    """
    crops = gpus * measured["batch"]
    step = measured["step_ms"] / 1000 / share
    speed = gpus * measured["audio_seconds_per_second"] * share
    epoch = 3600 * hours / speed
    return [
        measured["run"],
        str(measured["batch"]),
        f"{crops:,}",
        f"{1000 * step:.0f} ms",
        f"{speed:,.0f} s",
        f"{epoch / step:,.0f}",
        f"{epoch / 60:.1f} min",
        f"{speed * CACHE_BYTES / 1e9:.1f} GB/s",
    ]


def gradients(run: str) -> float:
    """Return the megabytes of gradients that a step of a run averages."""
    recipe = prepare(Path("/nonexistent"), RUNS[run], "default", 1).recipe
    numbers = sum(
        parameter.numel()
        for optimiser in recipe.optimisers().values()
        for group in optimiser.param_groups
        for parameter in group["params"]
    )
    return numbers * FLOAT_BYTES / 1e6


def main(
    hours: Annotated[float, typer.Option(min=0.1, help="Hours of audio, one channel.")] = 1000,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs.")] = 8,
    share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of a step that is not waiting for others.")
    ] = 1.0,
) -> None:
    """Print a table of the measured settings, the size of the audio and that of the gradients."""
    rows = [row(each, hours, gpus, share) for each in json.loads(MEASURED.read_text())["rows"]]
    heads = [
        "run",
        "crops a GPU",
        "crops a step",
        "step",
        "audio a second",
        "steps an epoch",
        "an epoch",
        "reading",
    ]
    typer.echo(table(heads, rows), nl=False)
    typer.echo(f"\naudio: {3600 * hours * CACHE_BYTES / 1e9:,.1f} GB as int16")
    for run in RUNS:
        typer.echo(f"gradients of {run}: {gradients(run):.1f} MB a step")


if __name__ == "__main__":
    typer.run(main)
