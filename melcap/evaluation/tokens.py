"""Summarise what tokens are worth to a language model: tokens.md and its pictures.

`stability` and `measures.predictor` measure each clip; here are the means by class and by row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.evaluation.peers.registry import label
from melcap.evaluation.plots import COLOURS, MARKERS
from melcap.evaluation.stability import HEADLINE
from melcap.evaluation.table import Row
from melcap.io.files import replacing
from melcap.markdown import table
from melcap.plot.figures import new_figure

BY_ROW = (HEADLINE, "-1 dB", "noise at -40 dB", "decoded")
"""The changes of the table and of the picture by row."""


def summarise_tokens(rows: Iterable[Row]) -> list[Row]:
    """Return for each codec with tokens a line per class, and one ("mean") for the mean over them.

    "changes" has for each change of a clip the share of tokens that stay the same ("same") and how
    far the others move on average ("distance", None where there are none), and both by row.
    "bits_by_row" has the bits per token, or None. Shares and bits are means over clips, as all
    measures are; distances are means over the tokens that move.

    Args:
        rows: the lines of scores.jsonl.
    """
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if "codes" in row:
            groups[row["codec"]][row["class"]].append(row)
    return [
        {
            "codec": codec,
            "class": kind,
            "changes": _changes([_with("changes", group) for group in part]),
            "bits_by_row": _bits([_with("bits_by_row", group) for group in part]),
        }
        for codec, classes in groups.items()
        for kind, part in (
            *((kind, [classes[kind]]) for kind in sorted(classes)),
            ("mean", list(classes.values())),
        )
    ]


def markdown_of_tokens(lines: Sequence[Row]) -> str:
    """Return the lines as two Markdown tables: by change and class, and by row."""
    kinds = list(dict.fromkeys(line["class"] for line in lines))
    kinds = [*(kind for kind in kinds if kind != "mean"), "mean"]
    found = {(line["codec"], line["class"]): line for line in lines}
    means = [line for line in lines if line["class"] == "mean"]
    by_class = [
        [
            mean["codec"],
            change,
            *(_cell(found.get((mean["codec"], kind)), change) for kind in kinds),
        ]
        for mean in means
        for change in mean["changes"]
    ]
    by_row = [
        [
            mean["codec"],
            row,
            *(f"{mean['changes'][change]['same_by_row'][row]:.1%}" for change in BY_ROW),
            f"{mean['bits_by_row'][row]:.2f}" if mean["bits_by_row"] else "",
        ]
        for mean in means
        if mean["changes"]
        for row in range(len(mean["changes"][HEADLINE]["same_by_row"]))
    ]
    return (
        "The share of tokens that stay the same when a clip is changed. In brackets is how far the "
        "others move: 1 is the root mean square distance between two codebook entries.\n\n"
        + table(["codec", "change", *kinds], by_class)
        + "\nThe same by row, row 0 for the lowest frequencies: the mean over classes.\n\n"
        + table(["codec", "row", *BY_ROW, "bits/token"], by_row)
    )


def picture_of_tokens(path: Path, lines: Sequence[Row]) -> None:
    """Write a PNG of one codec's lines: stability and bits per token over the rows.

    Args:
        path: the file.
        lines: the lines of one codec, as `summarise_tokens` returns them.
    """
    figure = new_figure(11, 4)
    figure.suptitle(f"{label(lines[0]['codec'])}: tokens by row", fontweight="bold")
    stable, bits = figure.subplots(1, 2)
    mean = lines[-1]
    curves = {change: mean["changes"][change]["same_by_row"] for change in BY_ROW}
    _draw(stable, curves, "share that stays the same, mean over classes")
    stable.set_ylim(0, 1)
    _draw(bits, {line["class"]: line["bits_by_row"] for line in lines}, "bits per token")
    with replacing(path) as temporary:
        figure.savefig(temporary)


def _draw(panel: Any, curves: dict[str, Sequence[float] | None], title: str) -> None:
    for (name, values), colour, marker in zip(curves.items(), COLOURS, MARKERS, strict=False):
        if values is not None:
            panel.plot(values, label=name, color=colour, marker=marker, linewidth=1.2)
            panel.set_xticks(range(len(values)))
    panel.set_title(title, loc="left", fontsize=11)
    panel.set_xlabel("row, from the lowest frequencies to the highest")
    panel.grid(alpha=0.3)
    if panel.lines:
        panel.legend(frameon=False)


def _with(field: str, rows: Iterable[Row]) -> list[Any]:
    return [row[field] for row in rows if row.get(field)]


def _changes(classes: Iterable[Sequence[Row]]) -> Row:
    groups = [group for group in classes if group]
    return {name: _change(name, groups) for name in (groups[0][0]["same"] if groups else ())}


def _change(name: str, classes: Iterable[Sequence[Row]]) -> Row:
    shares, distances, distances_by_row = [], [], []
    for clips in classes:
        columns = np.array([clip["columns"] for clip in clips])[:, None]
        same = np.array([clip["same"][name] for clip in clips])
        moved = np.array([clip["distance"][name] for clip in clips]).sum(axis=0)
        others = (columns - same).sum(axis=0)
        shares.append((same / columns).mean(axis=0))
        distances.append(_ratio(moved.sum(), others.sum()))
        distances_by_row.append(_ratio(moved, others))
    return {
        "same": round(float(np.mean(shares)), 4),
        "distance": _mean(np.array(distances)[:, None])[0],
        "same_by_row": np.mean(shares, axis=0).round(4).tolist(),
        "distance_by_row": _mean(np.array(distances_by_row)),
    }


def _ratio(total: Any, count: Any) -> npt.NDArray[np.float64]:
    """Return total / count, and nan where the count is 0."""
    return np.where(count, total / np.maximum(count, 1), np.nan)


def _mean(values: npt.NDArray[np.float64]) -> list[float | None]:
    """Return the mean over the first axis of what is not nan, and None where all is."""
    return [
        round(float(np.nanmean(column)), 4) if np.isfinite(column).any() else None
        for column in values.T
    ]


def _bits(classes: Iterable[Sequence[Sequence[float]]]) -> list[float] | None:
    groups = [np.mean(group, axis=0) for group in classes if group]
    return np.mean(groups, axis=0).round(4).tolist() if groups else None


def _cell(line: Row | None, change: str) -> str:
    if line is None or change not in line["changes"]:
        return ""
    found = line["changes"][change]
    moved = "" if found["distance"] is None else f" ({found['distance']:.2f})"
    return f"{found['same']:.1%}{moved}"
