"""`melcap probe`: classifiers trained on tokens, and a recogniser run on decoded speech."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melcap.cli.evaluate import print_summary
from melcap.cli.options import AsJson, Processes, split_names
from melcap.cli.progress import progress_of_parts


def probe(
    train: Annotated[
        list[Path],
        typer.Argument(metavar="TRAIN...", help="Folders, tars or lists of clips to train on."),
    ],
    valid: Annotated[
        Path,
        typer.Argument(
            metavar="VALID", help="The same with the clips to score, from other packages."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the results.")],
    manifest: Annotated[
        Path | None,
        typer.Option(help="CSV: path, class, and maybe language, package, speaker, text, listed."),
    ] = None,
    speech: Annotated[
        Path | None, typer.Option(help="A folder of English, with what is said in .txt files.")
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            help="Separated by commas: tokens, tokens:WEIGHTS, mel, mel-32, mel-pooled, mel:CODEC."
        ),
    ] = "tokens,mel,mel-32,mel-pooled,mel:opus-6",
    codecs: Annotated[
        str, typer.Option(help="Whose decoded speech is recognised; separated by commas.")
    ] = "melcap,opus-6,opus-12",
    clips_per_class: Annotated[
        int, typer.Option(min=1, help="The most clips of each class, on each side.")
    ] = 80,
    clips_per_package: Annotated[
        int, typer.Option(min=1, help="The most clips for the recogniser, which gets whole clips.")
    ] = 6,
    seconds: Annotated[float, typer.Option(min=1, help="The most seconds of each clip.")] = 10.0,
    seeds: Annotated[int, typer.Option(min=2, help="How often each probe is trained.")] = 5,
    processes: Processes = 2,
    as_json: AsJson = False,
) -> None:
    """Train classifiers on tokens and on the log-mel, and count a recogniser's word errors.

    A run that was stopped resumes where it was.
    """
    import torch

    from melcap.ablation.checkpoints import peer
    from melcap.evaluation.probes.run import probe as run
    from melcap.evaluation.probes.settings import Settings
    from melcap.evaluation.probes.table import markdown

    torch.set_num_threads(1)  # as in the worker processes
    settings = Settings(
        features=tuple(split_names(features)),
        codecs=tuple(split_names(codecs)),
        clips_per_class=clips_per_class,
        clips_per_package=clips_per_package,
        seconds=seconds,
        seeds=seeds,
        processes=processes,
        find_peer=peer,
    )
    with progress_of_parts() as begin:
        summary = run(train, valid, out, settings, manifest=manifest, speech=speech, begin=begin)
    print_summary(summary, markdown(summary), as_json)
