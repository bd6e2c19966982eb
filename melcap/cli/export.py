"""`melcap export`: the codec for runtimes without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melcap.cli import batch
from melcap.cli.options import AsJson, Force, Quiet, Weights


def export(
    onnx: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where encoder.onnx and decoder.onnx go.")
    ],
    weights: Weights = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """The codec as ONNX graphs, for ONNX Runtime and others: no PyTorch needed to run them."""
    from melcap import load
    from melcap.onnx import export as export_onnx

    encoder, decoder = export_onnx(load(weights), onnx, force=force)
    if as_json:
        batch.print_json({"encoder": str(encoder), "decoder": str(decoder)})
    elif not quiet:
        typer.echo(f"{encoder}\n{decoder}")
