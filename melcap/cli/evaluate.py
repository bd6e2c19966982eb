"""`melcap evaluate`: codecs measured on clips, with tables and pictures of the results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from melcap.cli.exits import FAILURE
from melcap.cli.options import AsJson, Processes, split_names
from melcap.cli.output import print_json
from melcap.cli.progress import progress_of_parts
from melcap.evaluation.peers import CODECS


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder CLASS/FILE, a tar of one, or a CSV: path and maybe class.",
        ),
    ],
    codecs: Annotated[
        str,
        typer.Option(
            help=f"Separated by commas: {', '.join(CODECS)}, a weights file, or a checkpoint."
        ),
    ] = "melcap,opus-12",
    clips_per_class: Annotated[int, typer.Option(min=1, help="The most clips of each class.")] = 8,
    seconds: Annotated[float, typer.Option(min=1, help="The most seconds of each clip.")] = 10.0,
    processes: Processes = 2,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the results.")] = Path(
        "results"
    ),
    predictor: Annotated[
        Path | None,
        typer.Option(help="A predictor by examples/token_lm.py, for codecs with its tokenizer."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure codecs on your clips, beside Opus and others: ViSQOL, STOI, PESQ and more.

    A run that was stopped resumes where it was.
    """
    from melcap.ablation.checkpoints import peer
    from melcap.evaluation.report import score
    from melcap.evaluation.table import markdown

    with progress_of_parts() as begin:
        summary = score(
            data,
            split_names(codecs),
            out,
            clips_per_class=clips_per_class,
            seconds=seconds,
            processes=processes,
            predictor=predictor,
            find_peer=peer,
            begin=begin,
        )
    print_summary(summary, markdown(summary["table"]), as_json)


def print_summary(summary: dict[str, Any], text: str, as_json: bool) -> None:
    """Print a summary as text or JSON and its failures as errors, and exit with 1 if it has any."""
    if as_json:
        print_json(summary)
    else:
        typer.echo(text)
    for failure in summary["failures"]:
        typer.echo(f"error: {failure}", err=True)
    if summary["failures"]:
        raise typer.Exit(FAILURE)
