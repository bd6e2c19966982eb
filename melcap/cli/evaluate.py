"""`melcap evaluate`: codecs measured on clips, with tables and pictures of the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melcap.cli.exits import FAILURE
from melcap.cli.options import AsJson
from melcap.cli.output import print_json
from melcap.evaluation.peers import CODECS

if TYPE_CHECKING:
    from melcap.evaluation.workers import Begin

Processes = Annotated[
    int, typer.Option(min=1, help="Worker processes; 1 does everything in one process.")
]


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
            names(codecs),
            out,
            clips_per_class=clips_per_class,
            seconds=seconds,
            processes=processes,
            predictor=predictor,
            find_peer=peer,
            begin=begin,
        )
    print_summary(summary, markdown(summary["table"]), as_json)


def names(text: str) -> list[str]:
    """Split a list with commas, and leave out what is empty or occurs again."""
    return list(dict.fromkeys(name for name in text.split(",") if name))


@contextmanager
def progress_of_parts() -> Iterator[Begin]:
    """Show a progress bar on a terminal for each part of a run."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:

        def begin(part: str, total: int) -> Callable[[], object]:
            task = progress.add_task(part, total=total)
            return lambda: progress.advance(task)

        yield begin


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
