"""`melcap plot`: a picture of a part of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melcap.cli.batch import folder_for
from melcap.cli.options import (
    AsJson,
    Backend,
    BackendChoice,
    Decoder,
    Device,
    Force,
    QualityChoice,
    QualityName,
    Quiet,
    Weights,
    open_codec,
)
from melcap.cli.output import print_json


def plot(
    file: Annotated[Path, typer.Argument(help="An audio or .melcap file.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The .png file to write. Default: beside the input."),
    ] = None,
    start: Annotated[float, typer.Option(min=0, help="Where the picture begins, in seconds.")] = 0,
    seconds: Annotated[
        float, typer.Option(min=0.05, max=600, help="How much audio to show, in seconds.")
    ] = 10,
    channel: Annotated[int, typer.Option(min=1, help="The channel to show, from 1.")] = 1,
    quality: QualityChoice = QualityName.default,
    weights: Weights = None,
    decoder: Decoder = None,
    device: Device = "cpu",
    backend: BackendChoice = Backend.auto,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw the log-mel spectrogram before and after, and the tokens.

    The part of an audio file is coded by itself. With weights of the published MelCap architecture
    it has other tokens than in the whole file.

    A .melcap file holds tokens alone, so its picture has no spectrogram before. Its part is decoded
    as in the whole file.
    """
    from melcap.cli.picture import picture_of_file
    from melcap.transcode import refuse_existing

    target = out or file.with_suffix(".png")
    refuse_existing(file, target, force)
    with open_codec(weights, device, backend, quality, decoder) as codec, folder_for(target):
        picture_of_file(file, target, codec, start=start, seconds=seconds, channel=channel)
    if as_json:
        print_json({"source": str(file), "target": str(target)})
    elif not quiet:
        typer.echo(f"{file} -> {target}")
