"""`melcap doctor`: what is installed, what runs, and what to do about problems."""

from __future__ import annotations

import typer

from melcap.cli.exits import FAILURE
from melcap.cli.options import AsJson
from melcap.cli.output import print_json


def doctor(as_json: AsJson = False) -> None:
    """Check this installation: packages, devices, backends and weights, with advice.

    The exit status is 1 where something keeps melcap from working.
    """
    from melcap.cli.diagnosis import examine

    data, text = examine()
    if as_json:
        print_json(data)
    else:
        typer.echo(text)
    if data["problems"]:
        raise typer.Exit(FAILURE)
