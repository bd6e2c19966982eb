"""The results of an ablation: a table with differences, and learning curves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melcap.evaluation.measures.metrics import TITLES
from melcap.evaluation.table import DRAWS, Row
from melcap.io.files import replacing
from melcap.markdown import table
from melcap.plot.figures import new_figure

MEASURES = ("visqol", "stoi", "pesq", "dnsmos", "over_smoothing", "mel_l1")
STYLES = ("-", "--", ":", "-.")


def paired_difference(variant: Iterable[Row], base: Iterable[Row], measure: str) -> Row | None:
    """Return a measure's mean, and its difference from the base over the clips that both have.

    The interval tells variants on these clips apart. It does not include what another seed would
    have given.

    Args:
        variant: the rows of the variant, one for each clip.
        base: the rows of the variant to compare with.
        measure: the name of the measure.

    Returns:
        {"mean", "change", "low", "high"}: the mean over classes of the means over clips, its
        difference from the base's, and the 95 % interval of that, by bootstrap over the clips' own
        differences. None if no clip has the measure.
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


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return a table with a row for each variant, the first of which is the base.

    Changes whose interval does not contain 0 are bold.
    """
    measures = [TITLES[name] for name in MEASURES]
    titles = ["variant", "steps", "processor min", "parameters", *measures]
    titles += ["codebook usage", "entropy"]
    rows = []
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
    return table(titles, rows)


def draw_loss(path: Path, logs: Mapping[str, Path], loss: str) -> None:
    """Write a picture of one loss of all variants against the minutes of training.

    Args:
        path: the PNG to write.
        logs: the logs (.jsonl) by name, one curve each.
        loss: the name of the loss in the logs.

    Raises:
        MelcapError: if matplotlib is not installed.
    """
    figure = new_figure(9, 5.5)
    axes = figure.subplots()
    for index, (name, log) in enumerate(logs.items()):
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        rows = [json.loads(line) for line in lines]
        found = [(row["minutes"], row[loss]) for row in rows if loss in row]
        if found:
            style = STYLES[index // 10 % len(STYLES)]
            axes.plot(*zip(*found, strict=True), style, color=f"C{index % 10}", label=name)
    axes.set_xlabel("minutes of training")
    axes.set_ylabel(loss)
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    if axes.lines:  # there are none if all runs ended before the first line of their logs
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
