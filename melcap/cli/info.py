"""`melcap info`: facts about a .melcap file or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melcap.cli.options import AsJson
from melcap.cli.output import print_json


def info(
    file: Annotated[
        Path | None,
        typer.Argument(help="A .melcap or weights file. Default: the built-in weights."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Describe a .melcap file, or a model: rates, receptive field, latency and size."""
    from melcap.cli.describe import describe

    data, text = describe(file)
    if as_json:
        print_json(data)
    else:
        typer.echo(text)
