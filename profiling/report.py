"""What was measured, as JSON, as Markdown and as a picture."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Found = dict[str, Any]


def write(stem: Path, kind: str, found: Found) -> Path:
    """`stem`.json, .md and, where matplotlib is installed, .png; returns the Markdown's path."""
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    lines = [f"# {TITLES[kind]}", "", _origin(found), "", *TABLES[kind](found)]
    if kind in PICTURES and importlib.util.find_spec("matplotlib"):
        PICTURES[kind](found, stem.with_suffix(".png"))
        lines += ["", f"![{TITLES[kind]}]({stem.name}.png)"]
    path = stem.with_suffix(".md")
    path.write_text("\n".join(lines) + "\n")
    return path


def _origin(found: Found) -> str:
    return "By `python profiling/rtf.py`: " + ", ".join(
        f"{name} {value}" for name, value in found["origin"].items()
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [
        "| " + " | ".join(heads) + " |",
        "|" + " --- |" * len(heads),
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
    ]


def _speeds(found: Found) -> list[str]:
    """A line for each codec and setting: times real time both ways, and melcap's advantage."""
    lines = ["Times real time: median of the rounds, with quartiles. Higher is better.", ""]
    by: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in found["rows"]:
        key = (row["threads"], row["seconds"], row["batch"], row["codec"])
        by.setdefault(key, {})[row["way"]] = row
    shown = []
    for (threads, seconds, batch, codec), ways in by.items():
        cells = []
        for way in ("encode", "decode"):
            row = ways.get(way)
            cells.append(
                f"{_digits(row['x_real_time'])} ({_digits(row['p25'])} to {_digits(row['p75'])})"
                if row
                else ""
            )
        shown.append((codec, threads or "", f"{seconds:g} s", batch, *cells))
    lines += table(("codec", "threads", "clip", "batch", "encode", "decode"), shown)
    if found["skipped"] or found["left_out"]:
        lines += ["", "Left out:", ""]
        lines += [f"- {name}: {reason}" for name, reason in found["skipped"].items()]
        lines += [f"- {reason}" for reason in found["left_out"]]
    if "rates" in found:
        rates = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in found["rates"].items())
        lines += ["", f"What this machine reaches, in GFLOP/s of float32: {rates}."]
    if "memory" in found:
        lines += ["", "## Memory", "", "Of a process that encodes and decodes one clip, in MB.", ""]
        lines += table(
            ("codec", "clip", "peak", "before the clip"),
            [
                (
                    row["codec"],
                    f"{row['seconds']:g} s",
                    f"{row['peak_mb']:.0f}",
                    f"{row['before_mb']:.0f}",
                )
                for row in found["memory"]
            ],
        )
    return lines


def _streams(found: Found) -> list[str]:
    rows = [
        (row["what"], row["unit"], f"{row['median']:.3f}", _between(row, ".3f"))
        for row in found["rows"]
    ]
    return table(("what", "unit", "median", "quartiles"), rows)


def _profile(found: Found) -> list[str]:
    rates = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in found["rates"].items())
    heads = ("way", "stage", "ms", "GFLOP", "GFLOP/s", "of the convolution rate")
    rows = [
        (
            row["way"],
            row["stage"],
            f"{row['ms']:.2f}",
            f"{row['gflop']:.3f}",
            f"{row['gflop_per_s']:.0f}" if "gflop_per_s" in row else "",
            f"{row['share']:.0%}" if "share" in row else "",
        )
        for row in found["rows"]
    ]
    reached = f", {found['threads']} threads. Reached here by PyTorch: {rates}" if rates else ""
    return [
        f"A 10 s clip in one chunk{reached}.",
        "",
        *table(heads, rows),
    ]


def _growth(found: Found) -> list[str]:
    heads = (
        "clip",
        "batch",
        "encode, ms/s",
        "decode, ms/s",
        "memory, MB",
        "of it the audio once, MB",
    )
    rows = [
        (
            f"{row['seconds']:g} s",
            row["batch"],
            f"{row['encode_ms_per_s']:.1f}",
            f"{row['decode_ms_per_s']:.1f}",
            f"{row['work_mb']:.0f}",
            f"{row['audio_mb']:.1f}",
        )
        for row in found["rows"]
    ]
    return ["Milliseconds of work for each second of audio.", "", *table(heads, rows)]


def _digits(x: float) -> str:
    return f"{x:.1f}" if x < 100 else f"{x:.0f}"


def _between(row: Found, form: str) -> str:
    return f"{row['p25']:{form}} to {row['p75']:{form}}"


def _axes(columns: int) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(1, columns, figsize=(5.2 * columns, 4.2), layout="constrained")


def _bars(found: Found, path: Path) -> None:
    """10 s clips, batch of one, most threads: a bar for each codec, on a logarithmic axis."""
    most = max((row["threads"] or 0) for row in found["rows"])
    rows = [
        row
        for row in found["rows"]
        if (row["threads"] or 0) == most and row["batch"] == 1 and row["seconds"] == 10
    ]
    if not rows:
        return
    figure, axes = _axes(2)
    for panel, way in zip(axes, ("encode", "decode"), strict=True):
        own = [row for row in rows if row["way"] == way][::-1]
        colours = ["#1f77b4" if row["codec"].startswith("melcap") else "#999999" for row in own]
        bars = panel.barh(
            [row["codec"] for row in own], [row["x_real_time"] for row in own], color=colours
        )
        panel.bar_label(bars, labels=[_digits(row["x_real_time"]) for row in own], padding=3)
        panel.set(xscale="log", xlabel="times real time", title=f"{way}, 10 s clip")
        panel.axvline(1, color="k", lw=0.7)
        panel.margins(x=0.2)
    figure.savefig(path, dpi=130)


def _lines(found: Found, path: Path) -> None:
    """Time and memory for each second of audio, against length and against batch."""
    figure, axes = _axes(3)
    alone = [row for row in found["rows"] if row["batch"] == 1]
    batches = [row for row in found["rows"] if row["batch"] > 1 or row["seconds"] == 10]
    for panel, rows, key, label in (
        (axes[0], alone, "seconds", "seconds of the clip"),
        (axes[1], batches, "batch", "clips of 10 s in a batch"),
    ):
        for way in ("encode", "decode"):
            panel.plot(
                [row[key] for row in rows],
                [row[f"{way}_ms_per_s"] for row in rows],
                marker="o",
                label=way,
            )
        panel.set(xscale="log", xlabel=label, ylabel="ms for each second of audio", ylim=(0, None))
        panel.legend()
    for key, label in (("work_mb", "work and audio"), ("audio_mb", "the audio once")):
        axes[2].plot(
            [row["seconds"] for row in alone], [row[key] for row in alone], marker="o", label=label
        )
    axes[2].set(xscale="log", yscale="log", xlabel="seconds of the clip", ylabel="MB")
    axes[2].legend()
    figure.savefig(path, dpi=130)


TITLES = {
    "rtf": "Speed",
    "profile": "Where the time goes",
    "growth": "Cost as work grows",
    "streams": "Streams",
}
TABLES: dict[str, Callable[[Found], list[str]]] = {
    "rtf": _speeds,
    "profile": _profile,
    "growth": _growth,
    "streams": _streams,
}
PICTURES: dict[str, Callable[[Found, Path], None]] = {"rtf": _bars, "growth": _lines}
