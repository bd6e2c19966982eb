"""`melcap convert`: the published MelCap checkpoints as a weights file."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from melcap.cli.options import AsJson, Quiet
from melcap.cli.output import print_json
from melcap.cli.progress import progress_of_parts


class Activation(str, Enum):
    """The choices of --activation."""

    tanh = "tanh"
    silu = "silu"


def convert(
    stage1: Annotated[
        Path, typer.Option(help="The tokenizer, such as vae_00620000 (358 MB).", metavar="FILE")
    ],
    stage2: Annotated[
        Path,
        typer.Option(
            help="The Lightning checkpoint of mel decoder and vocoder, such as last.ckpt.",
            metavar="FILE",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The weights file to write, .safetensors.")
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            help="config.yaml of the training run of stage 2, to compare.", metavar="FILE"
        ),
    ] = None,
    activation: Annotated[
        Activation | None,
        typer.Option(help="Default: the one with which a clip comes out clearly better."),
    ] = None,
    name: Annotated[str, typer.Option(help="The name of the model.")] = "melcap-base",
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Overwrite a file that exists, and take a stage 1 of another name than in config.",
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Convert the published MelCap checkpoints to a weights file, and write its model card.

    The file works with --weights in encode, decode, transcode, detokenize, info and evaluate.
    """
    from melcap.conversion import STEPS
    from melcap.conversion import convert as run

    with progress_of_parts(visible=not quiet) as begin:
        done = begin("converting", len(STEPS))

        def step(_: str) -> None:
            done()

        converted = run(
            stage1,
            stage2,
            out,
            config=config,
            activation=activation.value if activation else None,
            name=name,
            force=force,
            progress=step,
        )
    if as_json:
        print_json(
            {
                "target": str(converted.target),
                "sha256": converted.sha256,
                "model": converted.model,
                "activation": converted.activation,
                "errors": converted.errors,
            }
        )
    elif not quiet:
        errors = ", ".join(f"{kind} {error:.2f}" for kind, error in converted.errors.items())
        typer.echo(
            f"{converted.target}: {converted.model}, activation {converted.activation} (mean error "
            f"of ln-mel on a clip: {errors})"
        )
