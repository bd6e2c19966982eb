"""Results as JSON, as Markdown and as a picture."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from melcap.bench.speed import speed_in_words
from melcap.markdown import table

Found = dict[str, Any]


def write(stem: Path, kind: str, found: Found) -> Path:
    """Write results as `stem`.json, .md and, where matplotlib is installed, .png.

    Args:
        stem: the path without a suffix.
        kind: one of `TITLES`.
        found: the results, with their origin.

    Returns:
        The path of the Markdown file.
    """
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    text = f"# {TITLES[kind]}\n\n{_origin(found)}\n\n{TABLES[kind](found)}"
    if kind in PICTURES and importlib.util.find_spec("matplotlib"):
        PICTURES[kind](found, stem.with_suffix(".png"))
        text += f"\n![{TITLES[kind]}]({stem.name}.png)\n"
    path = stem.with_suffix(".md")
    path.write_text(text)
    return path


def _origin(found: Found) -> str:
    return "By `python profiling/rtf.py`: " + ", ".join(
        f"{name} {value}" for name, value in found["origin"].items()
    )


def _speeds(found: Found) -> str:
    """Return a line for each codec and setting, with times real time both ways."""
    text = "Times real time: median of the rounds, with quartiles. Higher is better.\n\n"
    by: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in found["rows"]:
        key = (row["threads"], row["seconds"], row["batch"], row["codec"])
        by.setdefault(key, {})[row["way"]] = row
    shown = []
    for (threads, seconds, batch, codec), ways in by.items():
        cells = [speed_in_words(ways[way]) if way in ways else "" for way in ("encode", "decode")]
        shown.append((codec, threads or "", f"{seconds:g} s", batch, *cells))
    text += table(("codec", "threads", "clip", "batch", "encode", "decode"), shown)
    if found["skipped"] or found["left_out"]:
        reasons = [f"{name}: {reason}" for name, reason in found["skipped"].items()]
        text += "\nLeft out:\n\n"
        text += "".join(f"- {reason}\n" for reason in [*reasons, *found["left_out"]])
    if found.get("gflop"):
        text += "\n## Work\n\nGFLOP for each second of audio, of one clip of 10 s.\n\n"
        text += table(
            ("codec", "encode", "decode"),
            [
                (row["codec"], *(f"{row[way]:.3g}" for way in ("encode", "decode")))
                for row in found["gflop"]
            ],
        )
    if "rates" in found:
        rates = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in found["rates"].items())
        text += f"\nWhat this machine reaches, in GFLOP/s of float32: {rates}.\n"
    if "memory" in found:
        text += "\n## Memory\n\nOf a process that encodes and decodes one clip, in MB.\n\n"
        text += table(
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
    return text


def _streams(found: Found) -> str:
    rows = [
        (row["what"], row["unit"], f"{row['median']:.3f}", _between(row, ".3f"))
        for row in found["rows"]
    ]
    return table(("what", "unit", "median", "quartiles"), rows)


def _profile(found: Found) -> str:
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
    return f"A 10 s clip in one chunk{reached}.\n\n{table(heads, rows)}"


def _growth(found: Found) -> str:
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
    return f"Milliseconds of work for each second of audio.\n\n{table(heads, rows)}"


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
    """Draw a bar for each codec: single clips of 10 s, the most threads, on a logarithmic axis."""
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
    """Draw time and memory for each second of audio over the length and over the batch."""
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
TABLES: dict[str, Callable[[Found], str]] = {
    "rtf": _speeds,
    "profile": _profile,
    "growth": _growth,
    "streams": _streams,
}
PICTURES: dict[str, Callable[[Found, Path], None]] = {"rtf": _bars, "growth": _lines}
