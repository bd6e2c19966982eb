"""Rows of measures to means with intervals, and to a Markdown table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np

from melcap.evaluation import metrics

Row: TypeAlias = dict[str, Any]

MEASURES: dict[str, tuple[str, Callable[[metrics.Wave, metrics.Wave, int], float]]] = {
    "visqol": ("ViSQOL", metrics.visqol_audio),
    "stoi": ("STOI", metrics.stoi),
    "pesq": ("PESQ-WB", metrics.pesq_wb),
    "lsd": ("LSD", metrics.log_spectral_distance),
    "mcd": ("MCD", metrics.mel_cepstral_distortion),
    "mel_l1": ("mel L1", metrics.mel_l1),
    "over_smoothing": ("over-smoothing", metrics.over_smoothing),
}
DRAWS = 2000


def summarise(rows: Iterable[Row]) -> list[Row]:
    """For each codec a line per class, and one ("mean") for the mean over classes.

    A measure is {"mean", "low", "high"}: the mean over clips, between the ends of its 95 % interval
    by bootstrap over the clips of each class (None where a class has a single clip).
    """
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["codec"]][row["class"]].append(row)
    lines = []
    for codec, classes in groups.items():
        parts = {kind: [classes[kind]] for kind in sorted(classes)}
        for kind, part in (parts | {"mean": list(classes.values())}).items():
            inside = [row for group in part for row in group]
            seconds = sum(row["seconds"] for row in inside)
            line = {"codec": codec, "class": kind, "n": len(inside), "seconds": seconds}
            line["kbps"] = sum(row["bytes"] for row in inside) * 8 / seconds / 1000
            line |= {name: _interval(part, name) for name in MEASURES}
            lines.append(line)
    return lines


def markdown(lines: Iterable[Row]) -> str:
    """The summary as a Markdown table."""
    titles = ["codec", "class", "n", "s", "kbps", *(title for title, _ in MEASURES.values())]
    table = [titles, ["---"] * len(titles)]
    for line in lines:
        cells = [line["codec"], line["class"], str(line["n"]), f"{line['seconds']:.0f}"]
        cells.append(f"{line['kbps']:.2f}" if line["kbps"] else "")
        table.append([*cells, *(_cell(line[name]) for name in MEASURES)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in table)


def _interval(classes: Iterable[Iterable[Row]], measure: str) -> Row | None:
    """Mean over classes of the means over clips, with its bootstrap interval."""
    values = [[row[measure] for row in rows if row.get(measure) is not None] for rows in classes]
    groups = [np.array(group) for group in values if group]
    if not groups:
        return None
    mean = float(np.mean([group.mean() for group in groups]))
    if min(map(len, groups)) < 2:
        return {"mean": mean, "low": None, "high": None}
    random = np.random.default_rng(0)
    draws = [group[random.integers(len(group), size=(DRAWS, len(group)))] for group in groups]
    means = np.mean([drawn.mean(1) for drawn in draws], axis=0)
    low, high = np.quantile(means, (0.025, 0.975))
    return {"mean": mean, "low": float(low), "high": float(high)}


def _cell(measure: Row | None) -> str:
    if measure is None:
        return ""
    if measure["low"] is None:
        return f"{measure['mean']:.2f}"
    return f"{measure['mean']:.2f} [{measure['low']:.2f}, {measure['high']:.2f}]"
