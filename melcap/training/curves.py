"""A picture of the learning curves of training runs.

There is a panel for each recipe that a run has a log of, and a line for each of its losses. Each of
several runs has its own line style, so that they can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from melcap.errors import InputError
from melcap.io.files import replacing
from melcap.plot.figures import new_figure

RECIPES = {
    "stage1": "stage 1: tokenizer",
    "vocoder": "stage 2 on true mels: vocoder",
    "stage2": "stage 2 on tokens",
    "joint": "joint stage",
}
LOSSES = ("mel_l1", "loudness_l1", "stft", "mel", "texture", "complex", "phase")
STYLES = ("-", "--", ":", "-.")

Log = list[dict[str, float]]


def draw_curves(runs: Sequence[Path], path: Path) -> None:
    """Write a picture of the losses of runs against the minutes of training.

    Args:
        runs: folders of training runs.
        path: the picture to write; its suffix says the format.

    Raises:
        InputError: if a folder holds no log.
        MelcapError: if matplotlib is not installed.
    """
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
