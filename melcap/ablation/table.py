"""What came of an ablation: a table with differences, and learning curves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melcap.evaluation.measures.metrics import TITLES
from melcap.evaluation.table import DRAWS, Row
from melcap.extras import import_extra
from melcap.io.files import replacing

MEASURES = ("visqol", "stoi", "pesq", "dnsmos", "over_smoothing", "mel_l1")


def differences(variant: Iterable[Row], base: Iterable[Row], measure: str) -> Row | None:
    """{"mean", "change", "low", "high"} of a measure over the clips that both have been through.

    `mean` is the mean over classes of the means over clips; `change` its difference from the
    base's, and `low` and `high` the 95 % interval of that, by bootstrap over the clips' own
    differences. It tells variants on these clips apart; what another seed would have given is not
    in it. None where no clip has the measure.
    """
    theirs = {row["clip"]: row[measure] for row in base if row.get(measure) is not None}
    classes: dict[str, list[tuple[float, float]]] = {}
    for row in variant:
        if row.get(measure) is not None and row["clip"] in theirs:
            pair = (row[measure], row[measure] - theirs[row["clip"]])
            classes.setdefault(row["class"], []).append(pair)
    if not classes:
        return None
    groups = [np.array(pairs) for _, pairs in sorted(classes.items())]
    mean, change = np.mean([group.mean(0) for group in groups], axis=0)
    random = np.random.default_rng(0)
    drawn = [group[random.integers(len(group), size=(DRAWS, len(group))), 1] for group in groups]
    low, high = np.quantile(np.mean([draw.mean(1) for draw in drawn], axis=0), (0.025, 0.975))
    return {"mean": mean, "change": change, "low": low, "high": high}


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row for each variant; changes whose interval holds no 0 are in bold."""
    titles = ["variant", "steps", "processor min", "parameters"]
    titles += [*(TITLES[name] for name in MEASURES), "codebook usage", "entropy"]
    rows = [titles, ["---"] * len(titles)]
    for line in lines:
        codebook = line["codebook"] or {}
        rows.append(
            [
                str(line["name"]),
                str(line["steps"]),
                f"{line['processor_minutes']:.1f}",
                f"{line['parameters'] / 1e6:.2f} M",
                *(_cell(line["measures"][name], line is lines[0]) for name in MEASURES),
                f"{codebook['usage']:.1%}" if codebook else "",
                f"{codebook['entropy']:.2f}" if codebook else "",
            ]
        )
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def curves(path: Path, logs: Mapping[str, Path], figure_of: str) -> None:
    """A PNG: a figure of the training logs (.jsonl) against the minutes spent, one curve each."""
    figure_module = import_extra("matplotlib.figure")
    agg = import_extra("matplotlib.backends.backend_agg")
    figure = figure_module.Figure(figsize=(9, 5.5), dpi=130, layout="constrained")
    agg.FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, (name, log) in enumerate(logs.items()):
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        rows = [json.loads(line) for line in lines]
        found = [(row["minutes"], row[figure_of]) for row in rows if figure_of in row]
        if found:
            style = ("-", "--", ":", "-.")[index // 10 % 4]
            axes.plot(*zip(*found, strict=True), style, color=f"C{index % 10}", label=name)
    axes.set_xlabel("minutes of training")
    axes.set_ylabel(figure_of)
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    if axes.lines:  # none where all runs ended before their first line
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary)


def _cell(measure: Row | None, base: bool) -> str:
    if measure is None:
        return ""
    if base:
        return f"{measure['mean']:.3f}"
    change = f"{measure['change']:+.3f}"
    sure = measure["low"] > 0 or measure["high"] < 0
    return f"{measure['mean']:.3f} ({f'**{change}**' if sure else change})"
