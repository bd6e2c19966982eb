"""Learning curves of training runs: `python -m melcap.training.curves RUN... -o curves.png`.

A panel for each recipe that a run has a log of, a line for each of its losses. Of several runs each
has its own style, so that they can be compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from melcap.cli.batch import sentences
from melcap.errors import InputError
from melcap.io.files import replacing
from melcap.plot.figures import new_figure

RECIPES = {
    "stage1": "stage 1: tokenizer",
    "vocoder": "stage 2 on true mels: vocoder",
    "stage2": "stage 2 on tokens",
}
LOSSES = ("mel_l1", "loudness_l1", "stft", "mel", "texture", "complex", "phase")
STYLES = ("-", "--", ":", "-.")

Log = list[dict[str, float]]


def picture(runs: list[Path], path: Path) -> None:
    """Raises InputError where a folder holds no log, or matplotlib is not installed."""
    logs = {run: {name: _read(run / f"{name}.jsonl") for name in RECIPES} for run in runs}
    for run, found in logs.items():
        if not any(found.values()):
            raise InputError(f"{run}: no log of a training run ({', '.join(RECIPES)}.jsonl)")
    shown = [name for name in RECIPES if any(found[name] for found in logs.values())]
    figure = new_figure(5 * len(shown), 4)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for name, panel in zip(shown, panels, strict=True):
        for place, (run, found) in enumerate(logs.items()):
            for number, loss in enumerate(LOSSES):
                points = [(row["minutes"], row[loss]) for row in found[name] if loss in row]
                if points:
                    label = loss if len(logs) == 1 else f"{loss}, {run.name}"
                    style = STYLES[place % len(STYLES)]
                    panel.plot(*zip(*points, strict=True), style, color=f"C{number}", label=label)
        panel.set(title=RECIPES[name], xlabel="minutes of training", yscale="log")
        panel.grid(alpha=0.3, which="both")
        panel.legend(frameon=False, fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary)


def _read(path: Path) -> Log:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main(
    runs: Annotated[list[Path], typer.Argument(help="folders of training runs")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the PNG to write")] = Path("curves.png"),
) -> None:
    """Draw the losses of training runs against the minutes spent."""
    with sentences():
        picture(runs, out)
    typer.echo(str(out))


if __name__ == "__main__":
    typer.run(main)
