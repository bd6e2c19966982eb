"""A scorecard from its first clip to its last picture: what `melcap evaluate` does.

In the folder OUT: scores.jsonl (a line for each codec and clip), scorecard.json (everything),
scorecard.md (a table that can be read), scorecard-full.md (every measure), quality.png, and for
each codec with tokens the mel pictures of its best and its worst clip.
"""

from __future__ import annotations

import datetime
import json
import platform
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from melcap.evaluation import peers, plots
from melcap.evaluation.clips import choose_clips, find_clips
from melcap.evaluation.measures.metrics import PACKAGES
from melcap.evaluation.scorecard import Job, compute, jobs_for, package_version
from melcap.evaluation.table import Row, markdown, markdown_in_full, summarise
from melcap.extras import import_extra
from melcap.io.files import replacing

MODULES = (
    *("visqol", "ai_edge_litert", "pystoi", "pesq", "onnxruntime", "speechmos"),
    "matplotlib",
)
"""Of the `eval` extra: looked for before the work begins, and not at its end."""


def score(
    data: Path,
    names: Sequence[str],
    out: Path,
    *,
    clips_per_class: int = 8,
    seconds: float = 10.0,
    processes: int = 2,
    predictor: Path | None = None,
    begin: Callable[[int], Callable[[], object]] = lambda total: lambda: None,
) -> Row:
    """Measure the codecs on clips of `data`, write everything to `out`, and return the summary.

    `begin` is told how many results there will be, and gives what is called for each. `predictor`
    is a file for codecs of its tokenizer. A run that was stopped goes on where it was. What fails
    for one clip is a sentence under "failures" in the summary. Raises `InputError` for data or
    codecs that there are not, and `MelcapError` where something is not installed.
    """
    clips = choose_clips(find_clips(data), clips_per_class)
    jobs = jobs_for(names, clips, seconds, predictor)
    for module in MODULES:
        import_extra(module)
    out.mkdir(parents=True, exist_ok=True)
    rows, failures = compute(jobs, out / "scores.jsonl", processes, begin(len(jobs)))
    lines = summarise(sorted(rows, key=lambda row: names.index(row["codec"])))
    settings = {
        "data": data.name,
        "clips_per_class": clips_per_class,
        "seconds_at_most": seconds,
        "predictors": {row["codec"]: row["predictor"] for row in rows if row["predictor"]},
    }
    summary = {**machine(), **settings, "failures": failures, "table": lines}
    write(out / "scorecard.json", json.dumps(summary, indent=2) + "\n")
    write(out / "scorecard.md", markdown(lines))
    write(out / "scorecard-full.md", markdown_in_full(lines))
    if lines:
        plots.quality(out / "quality.png", lines)
    _pictures(out, jobs, rows)
    return summary


def _pictures(out: Path, jobs: Sequence[Job], rows: Sequence[Row]) -> None:
    """The mel pictures of the best and the worst clip of each codec of our own, by ViSQOL."""
    clips = {(job.codec, job.clip.name): job for job in jobs}
    for name in dict.fromkeys(job.codec for job in jobs):
        measured = [row for row in rows if row["codec"] == name and row["visqol"] is not None]
        if peers.codec(name).codebook_size and measured:
            ranked = sorted(measured, key=lambda row: (row["visqol"], row["clip"]))
            for which, row in (("worst", ranked[0]), ("best", ranked[-1])):
                job = clips[name, row["clip"]]
                plots.clip(out / f"{which}-{peers.label(name)}.png", job, which, row["visqol"])


def write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def machine() -> Row:
    """When, on which processor and with which versions the figures were made."""
    packages = ("melcap", "torch", "numpy", *PACKAGES, "av", "soxr", "pycodec2")
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    versions = {package: package_version(package) for package in packages}
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "processor": found.group(1) if found else platform.processor() or platform.machine(),
        "versions": {"python": platform.python_version()} | versions,
    }
