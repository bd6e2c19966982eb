"""Summarise rows of measures as means with intervals, and as Markdown tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from melcap.evaluation import stability
from melcap.evaluation.measures import predictor
from melcap.evaluation.measures.codebook import statistics_of, unpack_counts
from melcap.evaluation.measures.metrics import HEADLINE, SPEECH, TITLES
from melcap.markdown import table

Row: TypeAlias = dict[str, Any]
"""A result, or a line of a summary, that JSON can hold."""

DRAWS = 2000
"""Bootstrap draws for each interval."""
_MEASURES = TITLES | predictor.TITLES | stability.TITLES


def summarise(
    rows: Iterable[Row], stated_kbps: Mapping[str, float] = MappingProxyType({})
) -> list[Row]:
    """Return for each codec a line per class, and one ("mean") for the mean over classes.

    A measure is {"mean", "low", "high"}: the mean over clips, and the ends of its 95 % interval by
    bootstrap over the clips of each class (None where a class has a single clip). Speeds are
    medians over clips, in seconds of audio per second. The codebook's usage, entropy and number of
    tokens are of all clips together. Measures, rates, speeds and codebooks that are not there are
    None. "from_files" tells codecs that somebody else ran, and nobody counted the bytes of.

    Args:
        rows: the lines of scores.jsonl.
        stated_kbps: the rates of codecs whose bytes were not counted.
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
            line["speech_only"] = set(classes) == {SPEECH}
            line["from_files"] = inside[0]["bytes"] is None
            if line["from_files"]:
                line["kbps"] = stated_kbps.get(codec)
            else:
                line["kbps"] = sum(row["bytes"] for row in inside) * 8 / seconds / 1000
            line |= {f"{what}_speed": _speed(inside, what) for what in ("encode", "decode")}
            line["codebook"] = _codebook(inside)
            line |= {name: _interval(part, name) for name in _MEASURES}
            lines.append(line)
    return lines


def markdown(lines: Sequence[Row]) -> str:
    """Return the summary as a short Markdown table, with the measures of `HEADLINE`."""
    measures = [visqol_of(lines) if name == "visqol" else name for name in HEADLINE]
    return _table(["codec", "class", "n", "kbps"], measures, [], lines)


def markdown_in_full(lines: Iterable[Row]) -> str:
    """Return the summary as a Markdown table with every measure, the speeds and the codebook."""
    codebook = ["encode x", "decode x", "codebook usage", "codebook entropy"]
    return _table(["codec", "class", "n", "s", "kbps"], _MEASURES, codebook, lines)


def visqol_of(lines: Iterable[Row]) -> str:
    """Return the mode of ViSQOL that stands for quality: "visqol", or else "visqol_speech".

    Args:
        lines: results, or lines of a summary.
    """
    found = {name for line in lines for name in ("visqol", "visqol_speech") if line.get(name)}
    return "visqol_speech" if found == {"visqol_speech"} else "visqol"


def _table(first: list[str], measures: Iterable[str], last: list[str], lines: Iterable[Row]) -> str:
    measures = list(measures)
    titles = [*first, *(_MEASURES[name] for name in measures), *last]
    rows = []
    for line in lines:
        cells = _cells(line) | {_MEASURES[name]: _cell(line[name]) for name in measures}
        rows.append([cells[title] for title in titles])
    return table(titles, rows)


def _cells(line: Row) -> dict[str, str]:
    """Return the cells of a line by their titles, those of the measures excepted."""
    mean_of_one = line["class"] == "mean" and line["speech_only"]
    codebook = line["codebook"] or {}
    return {
        "codec": line["codec"],
        "class": "mean (speech only)" if mean_of_one else line["class"],
        "n": str(line["n"]),
        "s": f"{line['seconds']:.0f}",
        "kbps": f"{line['kbps']:.2f}" if line["kbps"] else "",
        "encode x": f"{line['encode_speed']:.1f}" if line["encode_speed"] else "",
        "decode x": f"{line['decode_speed']:.1f}" if line["decode_speed"] else "",
        "codebook usage": f"{codebook['usage']:.1%}" if codebook else "",
        "codebook entropy": f"{codebook['entropy']:.2f}" if codebook else "",
    }


def _speed(rows: Iterable[Row], what: str) -> float | None:
    """Return the median over clips of seconds of audio per second of computing."""
    taken = [(row["seconds"], row.get(f"{what}_seconds")) for row in rows]
    speeds = [seconds / took for seconds, took in taken if took]
    return float(np.median(speeds)) if speeds else None


def _codebook(rows: Iterable[Row]) -> Row | None:
    counts = [unpack_counts(row["codes"]) for row in rows if row.get("codes")]
    if not counts:
        return None
    total = np.sum(counts, axis=0)
    return asdict(statistics_of(total)) | {"size": len(total)}


def _interval(classes: Iterable[Iterable[Row]], measure: str) -> Row | None:
    """Return the mean over classes of the means over clips, with its bootstrap interval."""
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
