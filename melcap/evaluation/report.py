"""Make a scorecard from its first clip to its last picture; `melcap evaluate` does it.

The folder OUT then holds scores.jsonl (a line for each codec and clip), scorecard.json
(everything), scorecard.md (a short table and notes), scorecard-full.md (every measure),
quality.png, and for codecs with tokens tokens.md, a picture of their rows and the mel pictures of
the best and the worst clip.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from melcap.errors import InputError
from melcap.evaluation import plots
from melcap.evaluation.alignment import Alignment
from melcap.evaluation.clips import RATE, choose_clips, find_clips
from melcap.evaluation.measures import metrics
from melcap.evaluation.peers.decoded import DecodedCodec
from melcap.evaluation.peers.registry import FindPeer, is_codec, label, peer
from melcap.evaluation.scorecard import ScoreJob, compute, jobs_for
from melcap.evaluation.table import Row, markdown, markdown_in_full, summarise, visqol_of
from melcap.evaluation.tokens import markdown_of_tokens, picture_of_tokens, summarise_tokens
from melcap.evaluation.workers import Begin, no_progress
from melcap.extras import import_extra
from melcap.io.files import write_text
from melcap.provenance import provenance

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
PACKAGES = ("melcap", "torch", "numpy", *metrics.PACKAGES, "av", "soxr", "pycodec2")
"""The packages that results depend on."""


def score(
    data: Path,
    names: Sequence[str],
    out: Path,
    *,
    clips_per_class: int = 8,
    seconds: float = 10.0,
    sample_rate: int = RATE,
    decoded: Sequence[DecodedCodec] = (),
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
        sample_rate: the rate in Hz at which clips are read, coded and compared.
        decoded: codecs that somebody else ran, which come after `names` in the tables.
        processes: the number of worker processes; 1 runs everything in this process.
        predictor: a predictor's file, for those of the codecs that have its tokenizer.
        find_peer: finds a codec by its name.
        begin: shows progress.

    Returns:
        The summary, which is scorecard.json. It has a sentence under "failures" for each codec and
        clip that failed. Under "notes" and "warnings" are sentences about codecs of `decoded`.

    Raises:
        InputError: for data and codecs that do not exist, and a codec of `decoded` whose name is
            that of another one, or that lacks a file.
        MelcapError: for a package that is not installed.
    """
    _require_names(names, decoded)
    listed = find_clips(data)
    clips = choose_clips(listed, clips_per_class)
    files = {codec.name: codec.files(clips, listed) for codec in decoded}
    jobs = jobs_for(names, clips, seconds, predictor, find_peer, sample_rate, files)
    for module in MODULES:
        import_extra(module)
    out.mkdir(parents=True, exist_ok=True)
    advance = begin("clips x codecs", len(jobs))
    rows, failures = compute(jobs, out / "scores.jsonl", processes, advance)
    order = [*names, *files]
    stated = {codec.name: codec.kbps for codec in decoded if codec.kbps is not None}
    lines = summarise(sorted(rows, key=lambda row: order.index(row["codec"])), stated)
    settings = {
        "data": data.name,
        "clips_per_class": clips_per_class,
        "seconds_at_most": seconds,
        "sample_rate": sample_rate,
        "predictors": {row["codec"]: row["predictor"] for row in rows if row["predictor"]},
    }
    tokens = summarise_tokens(rows)
    results = {"failures": failures, "table": lines, "tokens": tokens}
    summary = {**provenance(PACKAGES), **settings, **_of_files(decoded, rows), **results}
    write_text(out / "scorecard.json", json.dumps(summary, indent=2) + "\n")
    write_text(out / "scorecard.md", short(summary))
    write_text(out / "scorecard-full.md", markdown_in_full(lines))
    if lines:
        plots.quality(out / "quality.png", lines)
    if tokens:
        write_text(out / "tokens.md", markdown_of_tokens(tokens))
    for codec in dict.fromkeys(line["codec"] for line in tokens if line["changes"]):
        of_codec = [line for line in tokens if line["codec"] == codec]
        picture_of_tokens(out / f"tokens-{label(codec)}.png", of_codec)
    _pictures(out, jobs, rows)
    return summary


def short(summary: Row) -> str:
    """Return scorecard.md: the short table, and the notes and the warnings as a list below it."""
    said = [f"- {sentence}\n" for sentence in (*summary["notes"], *summary["warnings"])]
    return markdown(summary["table"]) + ("\n" + "".join(said) if said else "")


def _require_names(names: Sequence[str], decoded: Sequence[DecodedCodec]) -> None:
    """Refuse a codec of `decoded` that has the name of another codec."""
    for index, codec in enumerate(decoded):
        if is_codec(codec.name) or codec.name in names:
            raise InputError(f"{codec.name} is the name of a codec that runs here: take another")
        if codec.name in (other.name for other in decoded[:index]):
            raise InputError(f"two folders are given for {codec.name}: take two names")


def _of_files(decoded: Sequence[DecodedCodec], rows: Sequence[Row]) -> Row:
    """Return what a summary says of the codecs of `decoded`."""
    described: dict[str, Row] = {}
    notes: list[str] = []
    warnings: list[str] = []
    for codec in decoded:
        found = Alignment.of(row for row in rows if row["codec"] == codec.name)
        described[codec.name] = {"folder": codec.folder.name, "stated_kbps": codec.kbps}
        described[codec.name] |= asdict(found)
        if found.clips:
            rate = "not known" if codec.kbps is None else f"{codec.kbps:g} kbps as stated"
            notes.append(f"{found.note(codec.name)} Its rate is {rate}.")
            warnings += filter(None, [found.warning(codec.name)])
    return {"decoded": described, "notes": notes, "warnings": warnings}


def _pictures(out: Path, jobs: Sequence[ScoreJob], rows: Sequence[Row]) -> None:
    """Draw the best and the worst clip, by ViSQOL, of each codec with tokens."""
    by_clip = {(job.codec, job.clip.name): job for job in jobs}
    visqol = visqol_of(rows)
    run_here = [job for job in jobs if job.decoded is None]
    for name in dict.fromkeys(job.codec for job in run_here if job.peer.codebook_size):
        measured = [row for row in rows if row["codec"] == name and row[visqol] is not None]
        if measured:
            ranked = sorted(measured, key=lambda row: (row[visqol], row["clip"]))
            for which, row in (("worst", ranked[0]), ("best", ranked[-1])):
                path = out / f"{which}-{label(name)}.png"
                plots.clip(path, by_clip[name, row["clip"]], which, row[visqol])
