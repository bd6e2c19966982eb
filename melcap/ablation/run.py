"""Ablations at equal time: `python -m melcap.ablation.run PLAN.json --data A.tar --valid VALID`.

A plan is a JSON object:

    {"minutes": 6, "settings": {"stage": 1, "columns": 48}, "options": ["--bf16"],
     "variants": [{"name": "as it is"}, {"name": "decay 0.9", "settings": {"codebook_decay": 0.9}}]}

Each variant is trained by `melcap.training.run` in a process of its own for the same time, with
the settings of the plan and its own over them (of a "codec" only what differs from the lite one),
and measured on held-out clips by `melcap.evaluation` (pip install "melcap[train,eval]"). The first
is what the others are compared with. In OUT: a folder for each, and ablation.json, ablation.md and
ablation.png. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from melcap.ablation.table import MEASURES, curves, differences, table
from melcap.cli.batch import sentences
from melcap.config import CodecConfig
from melcap.errors import InputError, MelcapError
from melcap.evaluation.clips import choose_clips, find_clips
from melcap.evaluation.report import MODULES, machine, write
from melcap.evaluation.scorecard import compute, jobs_for
from melcap.evaluation.table import summarise
from melcap.extras import import_extra
from melcap.training.checkpoint import Checkpoint
from melcap.training.config import TrainingConfig, read_settings

SECONDS = 10.0
"""Of each held-out clip, at most."""
LEARNT = ("encoder", "decoder", "vocoder")
"""The modules that are counted."""


@dataclass(frozen=True)
class Variant:
    """One run: `options` go to `melcap.training.run` as they are."""

    name: str
    config: TrainingConfig
    options: Sequence[str]

    def checkpoint(self, out: Path) -> Path:
        return out / re.sub(r"\W+", "-", self.name).strip("-") / self.config.recipe


@dataclass(frozen=True)
class Plan:
    minutes: float
    variants: Sequence[Variant]


def read_plan(path: Path) -> Plan:
    """Raises `InputError` for a file that is no plan, and for settings that cannot be."""
    found = read_settings(path)
    try:
        shared, options = found.get("settings", {}), found.get("options", [])
        variants = [
            Variant(
                given["name"],
                TrainingConfig.of(**_merged({"codec": {}}, shared, given.get("settings", {}))),
                [*options, *given.get("options", [])],
            )
            for given in found["variants"]
        ]
        minutes = float(found["minutes"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: not a plan of an ablation: {error!r}") from error
    folders = {variant.checkpoint(Path()) for variant in variants}
    if minutes <= 0:
        raise InputError(f"{path}: minutes must be positive, not {minutes:g}")
    if not folders or len(folders) < len(variants):
        raise InputError(f"{path}: a plan needs variants, each with a name of its own")
    if len({folder.name for folder in folders}) > 1:
        raise InputError(f"{path}: its variants are of different recipes, which compare nothing")
    return Plan(minutes, variants)


def train(variant: Variant, minutes: float, out: Path, arguments: Sequence[str]) -> None:
    """Train what is left of the minutes.

    Raises `InputError` where the variant has been trained in another way before, and `MelcapError`,
    with where its output is, for a run that failed.
    """
    checkpoint = variant.checkpoint(out)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    settings, asked = checkpoint.with_name("settings.json"), checkpoint.with_name("asked.json")
    way = json.dumps([variant.config.to_json(), minutes, *arguments, *variant.options])
    if asked.exists() and asked.read_text(encoding="utf-8") != way:
        raise InputError(
            f"{checkpoint.parent}: {variant.name!r} has been trained here with other settings, "
            "options or minutes: give another --out, or another name to the variant"
        )
    write(settings, variant.config.to_json())
    write(asked, way)
    before = Checkpoint(checkpoint).minutes if checkpoint.exists() else 0.0
    if before >= minutes:
        return
    command = [sys.executable, "-m", "melcap.training.run", "--config", str(settings)]
    command += ["--minutes", f"{minutes - before}", "--schedule-minutes", f"{minutes}"]
    command += ["--out", str(checkpoint.parent), "--picture-minutes", "1e9"]
    log = checkpoint.with_suffix(".log")
    with log.open("a", encoding="utf-8") as file:
        ended = subprocess.run([*command, *arguments, *variant.options], stderr=file, check=False)
    if ended.returncode:
        raise MelcapError(f"the run of {variant.name!r} failed, see the end of {log}")


def measure(
    plan: Plan, out: Path, valid: Path, clips_per_class: int, processes: int
) -> list[dict[str, Any]]:
    """A line for `table` for each variant. Raises `MelcapError` where a clip failed."""
    names = {variant.name: str(variant.checkpoint(out)) for variant in plan.variants}
    clips = choose_clips(find_clips(valid), clips_per_class)
    jobs = jobs_for(list(names.values()), clips, SECONDS)
    rows, failures = compute(jobs, out / "scores.jsonl", processes)
    if failures:
        raise MelcapError(f"{len(failures)} clips failed, the first: {failures[0]}")
    of = {name: [row for row in rows if row["codec"] == file] for name, file in names.items()}
    base = of[plan.variants[0].name]
    lines = []
    for variant in plan.variants:
        path = variant.checkpoint(out)
        own = of[variant.name]
        whole = next(line for line in summarise(own) if line["class"] == "mean")
        found = Checkpoint(path)
        # Before those are the runs that trained what it began with.
        runs = [each for each in found.records if each["recipe"] == found.recipe]
        learnt = [part for name, part in found.exported().items() if name in LEARNT]
        lines.append(
            {
                "name": variant.name,
                "steps": found.step,
                "minutes": found.minutes,
                "processor_minutes": sum(each["processor_minutes"] for each in runs),
                "parameters": sum(value.numel() for part in learnt for value in part.values()),
                "codebook": whole["codebook"],
                "measures": {name: differences(own, base, name) for name in MEASURES},
            }
        )
    return lines


def main(
    plan: Annotated[Path, typer.Argument(help="what to compare, as JSON")],
    data: Annotated[list[Path], typer.Option(help="tar shard, or folder; to be given for each")],
    valid: Annotated[Path, typer.Option(help="held-out clips: folder, tar or CSV")],
    out: Annotated[Path, typer.Option(help="folder for the runs and results")],
    cache: Annotated[
        Path | None, typer.Option(help="decoded audio; OUT/audio if not given")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads", min=1)] = 2,
    clips_per_class: Annotated[int, typer.Option(help="of the held-out clips", min=1)] = 8,
) -> None:
    """Train every variant of a plan for the same time, and measure them."""
    with sentences():
        found = read_plan(plan)
        for module in MODULES:  # before hours of training, not after them
            import_extra(module)
        out.mkdir(parents=True, exist_ok=True)
        arguments = [f"--data={path}" for path in data]
        arguments += ["--cache", str(cache or out / "audio"), "--threads", str(threads)]
        for variant in found.variants:
            typer.echo(f"{variant.name}: {found.minutes:g} minutes", err=True)
            train(variant, found.minutes, out, arguments)
        lines = measure(found, out, valid, clips_per_class, threads)
        logs = {v.name: v.checkpoint(out).with_suffix(".jsonl") for v in found.variants}
        first = found.variants[0].config
        curves(out / "ablation.png", logs, "mel_l1" if first.stage == 1 else "stft")
        summary = {
            **machine(),
            "data": [path.name for path in data],
            "valid": valid.name,
            "clips_per_class": clips_per_class,
            "minutes": found.minutes,
            "threads": threads,
            "plan": read_settings(plan),
            "table": lines,
        }
        write(out / "ablation.json", json.dumps(summary, indent=2) + "\n")
        write(out / "ablation.md", table(lines))
    typer.echo(table(lines))


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later settings over earlier ones; of a codec those that are given over the lite one's."""
    merged: dict[str, Any] = {}
    codec = dataclasses.asdict(CodecConfig())
    for layer in layers:
        merged |= layer
        for part, values in layer.get("codec", {}).items():
            codec[part] = codec[part] | values if isinstance(values, Mapping) else values
    return merged | {"codec": codec}


if __name__ == "__main__":
    typer.run(main)
