"""`melcap export`: a codec as ONNX graphs, or the weights of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melcap.cli.options import AsJson, Force, Quiet
from melcap.cli.output import print_json


def export(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="SOURCE",
            help="With --onnx a weights file, the built-in weights by default. With --weights the "
            "folder of a training run that has a joint stage or a stage 2, or RUN/stage2 itself.",
        ),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write encoder.onnx, decoder.onnx and facts.json to this folder."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the trained codec to this .safetensors file."),
    ] = None,
    licences: Annotated[
        Path | None,
        typer.Option(help="With --weights: CSV of the data's packages and their licences."),
    ] = None,
    scorecard: Annotated[
        Path | None, typer.Option(help="With --weights: a scorecard.json of melcap evaluate.")
    ] = None,
    griffin_lim_steps: Annotated[
        int | None,
        typer.Option(
            min=0, help="With --weights: steps at the end of the vocoder. Default: as in training."
        ),
    ] = None,
    decoder_only: Annotated[
        bool,
        typer.Option(
            "--decoder-only",
            help="With --weights: write mel decoder and vocoder alone, for weights of the same "
            "tokenizer. With --onnx: write no encoder.",
        ),
    ] = False,
    ort: Annotated[
        bool,
        typer.Option(
            "--ort",
            help="With --onnx: write .ort files instead, the format of ONNX Runtime, which load "
            "faster.",
        ),
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Export a codec as ONNX graphs, or the codec of a training run as a weights file.

    `melcap export --onnx FOLDER` is for ONNX Runtime and others, which need no PyTorch.
    `melcap export RUN --weights FILE` writes the weights of the last stage, their hash and their
    model card.
    """
    if (onnx is None) == (weights is None):
        raise typer.BadParameter("give either --onnx or --weights", param_hint="--onnx")
    if weights is None:
        if licences or scorecard or griffin_lim_steps is not None:
            raise typer.BadParameter(
                "--licences, --scorecard and --griffin-lim-steps go with --weights",
                param_hint="--weights",
            )
        assert onnx is not None

        from melcap import load
        from melcap.onnx import export as export_onnx

        paths = export_onnx(load(source), onnx, decoder_only=decoder_only, ort=ort, force=force)
        files = {name: str(path) for name, path in paths.items()}
    else:
        if ort:
            raise typer.BadParameter("--ort goes with --onnx", param_hint="--ort")
        if source is None:
            raise typer.BadParameter("give the folder of a training run", param_hint="SOURCE")

        from melcap.training.export import ExportOptions, export_weights
        from melcap.training.loop import print_error

        options = ExportOptions(licences, scorecard, griffin_lim_steps, decoder_only, force)
        tell = (lambda _: None) if quiet else print_error
        digest = export_weights(source, weights, options, tell)
        files = {"weights": str(weights), "sha256": digest}
    if as_json:
        print_json(files)
    elif not quiet:
        typer.echo("\n".join(files.values()))
