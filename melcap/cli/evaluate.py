"""`melcap evaluate`: codecs measured on clips, with tables and pictures of the results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from melcap.cli import batch
from melcap.cli.options import AsJson
from melcap.errors import InputError
from melcap.evaluation import CODECS


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(help="A folder CLASS/FILE, a tar of one, or a CSV: path and maybe class."),
    ],
    codecs: Annotated[
        str,
        typer.Option(
            help=f"Separated by commas: {', '.join(CODECS)}, a weights file, or a checkpoint."
        ),
    ] = "melcap,opus-12",
    clips_per_class: Annotated[int, typer.Option(min=1)] = 8,
    seconds: Annotated[float, typer.Option(min=1, help="At most so much of each clip.")] = 10.0,
    processes: Annotated[int, typer.Option(min=1, help="1: all in this one.")] = 2,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the results.")] = Path(
        "results"
    ),
    predictor: Annotated[
        Path | None,
        typer.Option(help="Predictor by examples/token_lm.py, for codecs of its tokenizer."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How good codecs sound, beside Opus and others: ViSQOL, STOI, PESQ and more on your clips.

    A run that was stopped goes on where it was.
    """
    with batch.sentences():
        from rich.console import Console
        from rich.progress import Progress

        from melcap.evaluation import report
        from melcap.evaluation.table import markdown

        console = Console(stderr=True)
        with Progress(console=console, disable=not console.is_terminal) as progress:

            def begin(total: int) -> Callable[[], object]:
                task = progress.add_task("clips x codecs", total=total)
                return lambda: progress.advance(task)

            try:
                summary = report.score(
                    data,
                    list(dict.fromkeys(codecs.split(","))),
                    out,
                    clips_per_class=clips_per_class,
                    seconds=seconds,
                    processes=processes,
                    predictor=predictor,
                    begin=begin,
                )
            except InputError as error:
                progress.stop()
                typer.echo(f"error: {batch.sentence(error)}", err=True)
                raise typer.Exit(2) from error
        if as_json:
            batch.print_json(summary)
        else:
            typer.echo(markdown(summary["table"]))
        for failure in summary["failures"]:
            typer.echo(f"error: {failure}", err=True)
        if summary["failures"]:
            raise typer.Exit(1)
