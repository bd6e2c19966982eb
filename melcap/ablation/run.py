"""The run of an ablation: every variant is trained for the same time, then all are measured.

Each variant is trained by `melcap train` in a process of its own. Held-out clips are measured by
`melcap.evaluation` (pip install "melcap[train,eval]"). The first variant is the one that the others
are compared with. A run that was stopped resumes. The folder OUT then holds

    ablation.json, ablation.md, ablation.png    the results
    scores.jsonl                                a line for each variant and clip
    VARIANT/settings.json                       the settings, for `melcap train --config`
    VARIANT/variant.json                        the same with minutes and options, to resume safely
    VARIANT/RECIPE/, .log, .jsonl               the checkpoint, the output and the log of the run
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melcap.ablation.checkpoints import peer
from melcap.ablation.plan import Plan, Variant, read_plan
from melcap.ablation.table import MEASURES, draw_loss, markdown, paired_difference
from melcap.errors import InputError, MelcapError
from melcap.evaluation.clips import choose_clips, find_clips
from melcap.evaluation.report import MODULES, PACKAGES
from melcap.evaluation.scorecard import compute, jobs_for
from melcap.evaluation.table import summarise
from melcap.extras import import_extra
from melcap.io.files import write_text
from melcap.provenance import provenance
from melcap.training.checkpoint import Checkpoint
from melcap.training.loop import print_error
from melcap.training.settings_files import read_json

SECONDS = 10.0
"""The most that is used of each held-out clip."""
TRAINED = ("encoder", "decoder", "vocoder")
"""The modules whose parameters are counted."""


@dataclass(frozen=True)
class AblationOptions:
    """The options of an ablation.

    Attributes:
        data: tar shards, or folders CLASS/clip, of training audio.
        valid: held-out clips: a folder, tar or CSV.
        out: the folder for runs and results.
        cache: the folder for decoded audio; None for OUT/audio.
        threads: the number of CPU threads.
        clips_per_class: the most held-out clips of each class.
    """

    data: Sequence[Path]
    valid: Path
    out: Path
    cache: Path | None = None
    threads: int = 2
    clips_per_class: int = 8


def run_plan(
    path: Path, options: AblationOptions, tell: Callable[[str], None] = print_error
) -> str:
    """Train every variant of a plan for the same time, measure them and write the results.

    Args:
        path: the plan, see `melcap.ablation.plan`.
        options: see `AblationOptions`.
        tell: prints a sentence for the user.

    Returns:
        The table in Markdown.

    Raises:
        InputError: for a plan or data that cannot be used, and as `train_variant` does.
        MelcapError: for a package that is not installed, a run that failed, and clips that cannot
            be measured.
    """
    plan, out = read_plan(path), options.out
    for module in MODULES:  # before hours of training, not after them
        import_extra(module)
    out.mkdir(parents=True, exist_ok=True)
    arguments = [f"--data={source}" for source in options.data]
    arguments += ["--cache", str(options.cache or out / "audio")]
    arguments += ["--threads", str(options.threads)]
    for variant in plan.variants:
        tell(f"{variant.name}: {plan.minutes:g} minutes")
        train_variant(variant, plan.minutes, out, arguments)
    lines = measure(plan, options)
    logs = {v.name: v.checkpoint(out).with_suffix(".jsonl") for v in plan.variants}
    first = plan.variants[0].config
    draw_loss(out / "ablation.png", logs, "mel_l1" if first.stage == 1 else "stft")
    summary = {
        **provenance(PACKAGES),
        "data": [source.name for source in options.data],
        "valid": options.valid.name,
        "clips_per_class": options.clips_per_class,
        "minutes": plan.minutes,
        "threads": options.threads,
        "plan": read_json(path),
        "table": lines,
    }
    write_text(out / "ablation.json", json.dumps(summary, indent=2) + "\n")
    write_text(out / "ablation.md", markdown(lines))
    return markdown(lines)


def train_variant(variant: Variant, minutes: float, out: Path, arguments: Sequence[str]) -> None:
    """Train a variant for what is left of the minutes.

    Args:
        variant: the variant.
        minutes: the minutes in all.
        out: the folder of the ablation.
        arguments: options of `melcap train` for all variants.

    Raises:
        InputError: if the variant has been trained with other settings before.
        MelcapError: if the run failed, with the path of its output.
    """
    checkpoint = variant.checkpoint(out)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    settings = checkpoint.with_name("settings.json")
    described = checkpoint.with_name("variant.json")
    description = json.dumps(
        {
            "settings": json.loads(variant.config.to_json()),
            "minutes": minutes,
            "options": [*arguments, *variant.options],
        },
        indent=2,
    )
    if described.exists() and described.read_text(encoding="utf-8") != description:
        raise InputError(
            f"{checkpoint.parent}: {variant.name!r} has been trained here with other settings, "
            "options or minutes: give another --out, or another name to the variant"
        )
    write_text(settings, variant.config.to_json())
    write_text(described, description)
    before = Checkpoint(checkpoint).minutes if checkpoint.exists() else 0.0
    if before >= minutes:
        return
    command = [sys.executable, "-m", "melcap", "train", "--config", str(settings)]
    command += ["--minutes", f"{minutes - before}", "--schedule-minutes", f"{minutes}"]
    command += ["--out", str(checkpoint.parent), "--picture-minutes", "1e9"]
    log = checkpoint.with_suffix(".log")
    with log.open("a", encoding="utf-8") as file:
        finished = subprocess.run(
            [*command, *arguments, *variant.options], stderr=file, check=False
        )
    if finished.returncode:
        raise MelcapError(f"the run of {variant.name!r} failed, see the end of {log}")


def measure(plan: Plan, options: AblationOptions) -> list[dict[str, Any]]:
    """Return a line for the table for each variant.

    Raises:
        MelcapError: if a clip failed.
    """
    out = options.out
    names = {variant.name: str(variant.checkpoint(out)) for variant in plan.variants}
    clips = choose_clips(find_clips(options.valid), options.clips_per_class)
    jobs = jobs_for(list(names.values()), clips, SECONDS, find_peer=peer)
    rows, failures = compute(jobs, out / "scores.jsonl", options.threads)
    if failures:
        raise MelcapError(f"{len(failures)} clips failed, the first: {failures[0]}")
    rows_of = {
        name: [row for row in rows if row["codec"] == folder] for name, folder in names.items()
    }
    base = rows_of[plan.variants[0].name]
    lines = []
    for variant in plan.variants:
        own = rows_of[variant.name]
        whole = next(line for line in summarise(own) if line["class"] == "mean")
        found = Checkpoint(variant.checkpoint(out))
        # The records before those are of the runs that trained what it began with.
        sessions = [each for each in found.records if each["recipe"] == found.recipe]
        trained = [part for name, part in found.exported().items() if name in TRAINED]
        lines.append(
            {
                "name": variant.name,
                "steps": found.step,
                "minutes": found.minutes,
                "processor_minutes": sum(each["processor_minutes"] for each in sessions),
                "parameters": sum(value.numel() for part in trained for value in part.values()),
                "codebook": whole["codebook"],
                "measures": {name: paired_difference(own, base, name) for name in MEASURES},
            }
        )
    return lines
