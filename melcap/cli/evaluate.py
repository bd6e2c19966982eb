"""`melcap evaluate`: codecs measured on clips, with tables and pictures of the results."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melcap.cli.exits import FAILURE
from melcap.cli.options import AsJson, Processes, split_names
from melcap.cli.output import print_json
from melcap.cli.progress import progress_of_parts
from melcap.evaluation.peers import CODECS

if TYPE_CHECKING:
    from melcap.evaluation.peers.decoded import DecodedCodec


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
    sample_rate: Annotated[
        int,
        typer.Option(
            min=8000,
            max=192000,
            metavar="HZ",
            help="The rate at which clips are read, coded and compared.",
        ),
    ] = 44100,
    decoded: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="A codec that ran elsewhere: FOLDER has its decoded file for each clip. Repeat.",
        ),
    ] = None,
    decoded_kbps: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=KBPS", help="The bit rate of a codec of --decoded. Repeat."),
    ] = None,
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
    from melcap.evaluation.report import score, short

    with progress_of_parts() as begin:
        summary = score(
            data,
            split_names(codecs),
            out,
            clips_per_class=clips_per_class,
            seconds=seconds,
            sample_rate=sample_rate,
            decoded=_decoded_codecs(decoded or [], decoded_kbps or []),
            processes=processes,
            predictor=predictor,
            find_peer=peer,
            begin=begin,
        )
    for warning in summary["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    print_summary(summary, short(summary), as_json)


def _decoded_codecs(decoded: list[str], decoded_kbps: list[str]) -> list[DecodedCodec]:
    """Return the codecs that --decoded and --decoded-kbps describe.

    Raises:
        typer.BadParameter: for a value of another form, and for the rate of another codec.
    """
    from melcap.evaluation.peers.decoded import DecodedCodec

    folders = [_pair(value, "--decoded") for value in decoded]
    rates: dict[str, float] = {}
    for value in decoded_kbps:
        name, rate = _pair(value, "--decoded-kbps")
        if name in rates or name not in (codec for codec, _ in folders):
            reason = "has two rates" if name in rates else "is no codec of --decoded"
            raise typer.BadParameter(f"{name} {reason}", param_hint="--decoded-kbps")
        try:
            rates[name] = float(rate)
        except ValueError:
            rates[name] = math.nan
        if not 0 < rates[name] < math.inf:
            raise typer.BadParameter(
                f"{rate!r} is no number of kilobits a second", param_hint="--decoded-kbps"
            )
    return [
        # Shells leave the ~ of NAME=~/FOLDER as it is.
        DecodedCodec(name, Path(folder).expanduser(), rates.get(name))
        for name, folder in folders
    ]


def _pair(value: str, option: str) -> tuple[str, str]:
    name, separator, rest = value.partition("=")
    if not re.fullmatch(r"\w[\w.+ -]*", name) or not separator or not rest:
        raise typer.BadParameter(
            f"{value!r} is no pair NAME=VALUE, with a NAME of letters, digits, spaces and . _ + -",
            param_hint=option,
        )
    return name, rest


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
