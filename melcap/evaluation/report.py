"""Make a scorecard from its first clip to its last picture; `melcap evaluate` does it.

The folder OUT then holds scores.jsonl (a line for each codec and clip), scorecard.json
(everything), scorecard.md (a short table), scorecard-full.md (every measure), quality.png, and for
each codec with tokens the mel pictures of its best and its worst clip.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from melcap.evaluation import plots
from melcap.evaluation.clips import choose_clips, find_clips
from melcap.evaluation.measures.metrics import PACKAGES
from melcap.evaluation.peers.registry import FindPeer, label, peer
from melcap.evaluation.scorecard import ScoreJob, compute, jobs_for
from melcap.evaluation.table import Row, markdown, markdown_in_full, summarise
from melcap.evaluation.workers import Begin, no_progress
from melcap.extras import import_extra
from melcap.io.files import replacing
from melcap.provenance import installed_version, processor

MODULES = (
    "visqol",
    "ai_edge_litert",
    "pystoi",
    "pesq",
    "onnxruntime",
    "speechmos",
    "matplotlib",
)
"""Modules of the `eval` extra, which are looked for before the work begins."""


def score(
    data: Path,
    names: Sequence[str],
    out: Path,
    *,
    clips_per_class: int = 8,
    seconds: float = 10.0,
    processes: int = 2,
    predictor: Path | None = None,
    find_peer: FindPeer = peer,
    begin: Begin = no_progress,
) -> Row:
    """Measure codecs on clips, and write the scorecard. A run that was stopped resumes.

    Args:
        data: a folder CLASS/FILE, a tar of one, or a CSV with the columns path and maybe class.
        names: the codecs.
        out: the folder for the results.
        clips_per_class: the most clips of each class.
        seconds: the most that is used of each clip.
        processes: the number of worker processes; 1 runs everything in this process.
        predictor: a predictor's file, for those of the codecs that have its tokenizer.
        find_peer: finds a codec by its name.
        begin: shows progress.

    Returns:
        The summary, which is scorecard.json. It has a sentence under "failures" for each codec and
        clip that failed.

    Raises:
        InputError: for data and codecs that do not exist.
        MelcapError: for a package that is not installed.
    """
    clips = choose_clips(find_clips(data), clips_per_class)
    jobs = jobs_for(names, clips, seconds, predictor, find_peer)
    for module in MODULES:
        import_extra(module)
    out.mkdir(parents=True, exist_ok=True)
    advance = begin("clips x codecs", len(jobs))
    rows, failures = compute(jobs, out / "scores.jsonl", processes, advance)
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


def write(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def machine() -> Row:
    """Return the date, the processor and the versions of the packages that figures depend on."""
    packages = ("melcap", "torch", "numpy", *PACKAGES, "av", "soxr", "pycodec2")
    versions = {package: installed_version(package) for package in packages}
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": processor(),
        "versions": {"python": platform.python_version()} | versions,
    }


def _pictures(out: Path, jobs: Sequence[ScoreJob], rows: Sequence[Row]) -> None:
    """Draw the best and the worst clip, by ViSQOL, of each codec with tokens."""
    by_clip = {(job.codec, job.clip.name): job for job in jobs}
    for name in dict.fromkeys(job.codec for job in jobs if job.peer.codebook_size):
        measured = [row for row in rows if row["codec"] == name and row["visqol"] is not None]
        if measured:
            ranked = sorted(measured, key=lambda row: (row["visqol"], row["clip"]))
            for which, row in (("worst", ranked[0]), ("best", ranked[-1])):
                path = out / f"{which}-{label(name)}.png"
                plots.clip(path, by_clip[name, row["clip"]], which, row["visqol"])
