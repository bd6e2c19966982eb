"""Draw the pictures of a scorecard: quality against bit rate, and clips before and after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from melcap.errors import InputError
from melcap.evaluation.measures.metrics import SPEECH, TITLES
from melcap.evaluation.peers.own import Melcap
from melcap.evaluation.peers.registry import label
from melcap.evaluation.scorecard import ScoreJob
from melcap.evaluation.table import Row, visqol_of
from melcap.io.files import replacing
from melcap.plot.figures import new_figure
from melcap.plot.spectrogram import write_picture

PANELS = (("visqol", "mean"), ("visqol", SPEECH), ("stoi", SPEECH), ("pesq", SPEECH))
"""The measure and the class of each panel."""

# Okabe and Ito's colours, which colour-blind readers can tell apart, and a marker for each.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("--", ":")


def quality(path: Path, lines: Sequence[Row]) -> None:
    """Write `quality_figure` as a PNG."""
    figure = quality_figure(lines)
    with replacing(path) as temporary:
        figure.savefig(temporary)


def quality_figure(lines: Sequence[Row]) -> Any:
    """Draw measures against kilobits a second, with a point for each codec.

    Error bars are the 95 % intervals, and a line joins the rates of one codec. A bound is a
    horizontal line. A codec for speech alone is not in the panel of the mean over classes, and one
    whose rate nobody counted or stated is in none.

    Args:
        lines: the summary, as `table.summarise` returns it.

    Returns:
        A figure of matplotlib.
    """
    figure = new_figure(11, 8)
    figure.suptitle("Quality against bit rate, with 95 % intervals over clips", fontweight="bold")
    panels = list(figure.subplots(2, 2, sharex=True).flat)
    lines = [line for line in lines if line["kbps"] or not line["from_files"]]
    everything = any(not line["speech_only"] for line in lines)
    styles = _styles(lines)
    for panel, (named, kind) in zip(panels, PANELS, strict=True):
        measure = visqol_of(lines) if named == "visqol" else named
        shown = [line for line in lines if line["class"] == kind and line[measure] is not None]
        if kind == "mean" and everything:
            shown = [line for line in shown if not line["speech_only"]]
        _show(panel, measure, shown, styles)
        title = f"{TITLES[measure]}, {'mean over classes' if kind == 'mean' else kind}"
        panel.set_title(title, loc="left", fontsize=11)
        panel.grid(alpha=0.3)
    stated = ", or as stated" if any(line["from_files"] for line in lines) else ""
    for panel in panels[2:]:
        panel.set_xlabel(f"kilobits per second, of real bytes{stated}")
    _mark_rates(panels[0], lines)
    # One entry for each family of codecs, from the panels that it is in.
    handles = {
        name: handle
        for panel in panels
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=8, frameon=False
    )
    return figure


def clip(path: Path, job: ScoreJob, which: str, visqol: float) -> None:
    """Write a PNG of a clip before and after a codec with tokens, and of the tokens.

    Args:
        path: the file.
        job: the codec and the clip.
        which: "best" or "worst", for the title.
        visqol: the clip's ViSQOL, for the title.

    Raises:
        InputError: for a codec without tokens.
    """
    codec = job.peer
    if not isinstance(codec, Melcap):
        raise InputError(f"{job.codec} has no tokens to show")
    wave = job.clip.read(job.seconds, job.sample_rate)
    coded = codec.encode(wave, job.sample_rate)
    assert coded.tokens is not None
    write_picture(
        path,
        wave,
        codec.decode(coded),
        coded.tokens,
        job.sample_rate,
        f"{label(job.codec)}, {which} clip: ViSQOL {visqol:.2f}, {job.clip.name}",
        codebook_size=codec.config.tokenizer.codebook_size,
        column_seconds=codec.config.column_samples / codec.config.mel.sample_rate,
    )


def _family(name: str) -> str:
    """Return the name of a codec without its rate."""
    return name.rpartition("-")[0] or name if label(name) == name else label(name)


def _styles(lines: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return how each family is drawn, in all panels alike. Bounds have no marker."""
    coded = dict.fromkeys(_family(line["codec"]) for line in lines if not _is_bound(line))
    bounds = dict.fromkeys(line["codec"] for line in lines if _is_bound(line))
    styles: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(coded):
        again = index // len(COLOURS)  # the same colour comes with another marker
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[(index + again) % len(MARKERS)]
        styles[name] = {"color": colour, "marker": marker}
    for index, name in enumerate(bounds):
        styles[name] = {"color": "0.4", "linestyle": DASHES[index % len(DASHES)]}
    return styles


def _is_bound(line: Row) -> bool:
    return not (line["encode_speed"] or line["from_files"])


def _show(
    panel: Any, measure: str, lines: Sequence[Row], styles: dict[str, dict[str, Any]]
) -> None:
    families: dict[str, list[Row]] = defaultdict(list)
    for line in lines:
        if not _is_bound(line):
            families[_family(line["codec"])].append(line)
        else:
            name = line["codec"]
            title = f"{name} (no codec)"
            panel.axhline(line[measure]["mean"], label=title, linewidth=1.2, **styles[name])
    for name, group in families.items():
        points = sorted(group, key=lambda line: line["kbps"])
        values = [line[measure] for line in points]
        means = [value["mean"] for value in values]
        ends = [(value["low"], value["high"]) for value in values]
        below = [
            0 if low is None else mean - low for mean, (low, _) in zip(means, ends, strict=True)
        ]
        above = [
            0 if top is None else top - mean for mean, (_, top) in zip(means, ends, strict=True)
        ]
        panel.errorbar(
            [line["kbps"] for line in points],
            means,
            yerr=[below, above],
            label=name,
            capsize=3,
            linewidth=1.2,
            markersize=7,
            **styles[name],
        )


def _mark_rates(panel: Any, lines: Sequence[Row]) -> None:
    """Make the axis logarithmic, with room at its ends and ticks at 1 and 1.5 times powers of 2."""
    rates = [line["kbps"] for line in lines if not _is_bound(line)] or [1]
    low, high = min(rates) / 1.3, max(rates) * 1.3
    panel.set_xscale("log")
    panel.set_xlim(low, high)
    powers = [2.0**power for power in range(-1, 9)]
    ticks = [tick for power in powers for tick in (power, 1.5 * power) if low <= tick <= high]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
