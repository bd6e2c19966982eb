"""`python -m melcap.evaluation.probes.run TRAIN... VALID`: what else the tokens are good for.

Small probes learn class and language group from frozen features (`downstream_probes`,
`downstream_features`), and a speech recogniser listens to decoded speech (`downstream_words`). All
that is computed is kept in OUT/cache the moment it is there, so a run that was stopped goes on
where it was; OUT/downstream.json and OUT/downstream.md are made from it at the end.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress

from melcap.errors import InputError, MelcapError
from melcap.evaluation import peers
from melcap.evaluation.probes.features import check, identity
from melcap.evaluation.probes.labels import check_apart, label_clips, transcribed_clips
from melcap.evaluation.probes.speech import hear, material
from melcap.evaluation.probes.table import markdown
from melcap.evaluation.probes.tasks import Begin, Row, probe_tasks, tasks_of
from melcap.extras import import_extra
from melcap.io.files import replacing


def evaluate(
    train: list[Path],
    valid: Path,
    out: Path,
    begin: Begin,
    *,
    manifest: Path | None = None,
    prompts: Path | None = None,
    speech: Path | None = None,
    features: tuple[str, ...] = ("tokens", "mel"),
    codecs: tuple[str, ...] = ("melcap",),
    clips_per_class: int = 80,
    seconds: float = 10.0,
    seeds: int = 5,
    words_per_package: int = 6,
    processes: int = 2,
) -> Row:
    """Measure everything, write it to the folder `out`, and return the summary.

    `begin` is told the name of each part and how many results it has, and gives what is called for
    each of them. What fails for one clip is a sentence under "failures". Raises `InputError` for
    data, labels or names that cannot be used, and `MelcapError` where something is not installed.
    """
    for name in features:
        check(name)
    for name in codecs:
        peers.codec(name)
    for module in ("pocketsphinx", "jiwer"):
        import_extra(module)
    taught, unlabelled = label_clips(train, manifest, prompts)
    scored, left = label_clips([valid], manifest, prompts)
    check_apart(taught, scored)
    transcribed = transcribed_clips(speech) if speech else []
    tasks, notes = tasks_of(taught, scored, clips_per_class)
    if unlabelled + left:
        notes.append(f"{unlabelled + left} clips have no line in {manifest} and are left out")
    cache = out / "cache"
    lines, failures = probe_tasks(
        tasks, features, cache, seconds=seconds, seeds=seeds, processes=processes, begin=begin
    )
    sides = {"TRAIN": taught, "VALID": scored, "SPEECH": transcribed}
    heard, more = hear(
        material(sides, words_per_package), codecs, cache, processes=processes, begin=begin
    )
    identities = {name: identity(name) for name in features}
    identities |= {name: peers.codec(name).identity for name in codecs}
    settings = {"seconds_at_most": seconds, "seeds": seeds, "clips_per_class": clips_per_class}
    settings["words_per_package"] = words_per_package
    summary: dict[str, Any] = {**_machine(), **settings, "tasks": lines, "speech": heard}
    summary |= {"identities": identities, "notes": notes, "failures": failures + more}
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "downstream.json", json.dumps(summary, indent=2) + "\n")
    _write(out / "downstream.md", markdown(summary))
    return summary


def main(
    train: Annotated[list[Path], typer.Argument(help="Folders, tars or lists to learn from.")],
    valid: Annotated[Path, typer.Argument(help="One to score on: of no package of TRAIN.")],
    out: Annotated[Path, typer.Option(help="The folder for the results.")],
    manifest: Annotated[
        Path | None, typer.Option(help="CSV: path, class, and maybe language, package, text.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help='Lines "NAME: text" for clips made of named prompts.')
    ] = None,
    speech: Annotated[
        Path | None, typer.Option(help="A folder of English, what is said in .txt files beside it.")
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            help="tokens, tokens:WEIGHTS, mel, mel-32, mel-pooled, mel:CODEC; with commas."
        ),
    ] = "tokens,mel,mel-32,mel-pooled,mel:opus-6",
    codecs: Annotated[
        str, typer.Option(help="What the recogniser hears besides the original; with commas.")
    ] = "melcap,opus-6,opus-12",
    clips_per_class: Annotated[int, typer.Option(min=1, help="At most, on each side.")] = 80,
    seconds: Annotated[float, typer.Option(min=1, help="At most so much of each clip.")] = 10.0,
    seeds: Annotated[int, typer.Option(min=2, help="How often each probe is learnt.")] = 5,
    words_per_package: Annotated[
        int, typer.Option(min=1, help="Clips that the recogniser hears of a package, whole.")
    ] = 6,
    processes: Annotated[int, typer.Option(min=1, help="1: all in this one.")] = 2,
) -> None:
    """Probe frozen features for class and language, and count a recogniser's word errors."""
    torch.set_num_threads(1)
    console = Console(stderr=True)
    try:
        with Progress(console=console) as progress:

            def begin(part: str, total: int) -> Any:
                task = progress.add_task(part, total=total)
                return lambda: progress.advance(task)

            summary = evaluate(
                train,
                valid,
                out,
                begin,
                manifest=manifest,
                prompts=prompts,
                speech=speech,
                features=_names(features),
                codecs=_names(codecs),
                clips_per_class=clips_per_class,
                seconds=seconds,
                seeds=seeds,
                words_per_package=words_per_package,
                processes=processes,
            )
    except (MelcapError, OSError) as error:
        console.print(f"error: {error}", markup=False)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from error
    typer.echo(markdown(summary))
    for failure in summary["failures"]:
        console.print(f"failed: {failure}", markup=False)
    if summary["failures"]:
        raise typer.Exit(1)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in text.split(",") if name))


def _machine() -> Row:
    packages = ("melcap", "torch", "numpy", "av", "pocketsphinx", "jiwer")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {package: version(package) for package in packages},
    }


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
