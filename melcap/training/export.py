"""Checkpoints to a weights file: `python -m melcap.training.export OUT weights.safetensors`.

Beside it go its hash, weights.sha256, and its model card, weights.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from melcap.cli.batch import sentences
from melcap.codec import Codec
from melcap.errors import InputError
from melcap.files import replacing
from melcap.pretrained import save
from melcap.training.card import card, read_licences, read_scorecard
from melcap.training.checkpoint import Checkpoint


def main(
    out: Annotated[Path, typer.Argument(help="folder of a training run, with stage2.pt")],
    target: Annotated[Path, typer.Argument(help="the weights file to write, .safetensors")],
    licences: Annotated[
        Path | None, typer.Option(help="CSV of the data's packages and their licences")
    ] = None,
    scorecard: Annotated[
        Path | None, typer.Option(help="scorecard.json of melcap.evaluation.scorecard")
    ] = None,
    griffin_lim_steps: Annotated[
        int | None,
        typer.Option(min=0, help="at the end of the vocoder; default: as in training"),
    ] = None,
) -> None:
    """Write the codec of a finished stage 2, its hash and its model card."""
    with sentences():
        if target.suffix != ".safetensors":
            raise InputError(f"{target}: the name of a weights file must end in .safetensors")
        packages = read_licences(licences) if licences else []
        scores = read_scorecard(scorecard) if scorecard else None
        checkpoint = Checkpoint(out / "stage2.pt", "stage2")
        state = checkpoint.exported()
        config = checkpoint.codec
        if griffin_lim_steps is not None:  # they have no weights
            vocoder = replace(config.vocoder, griffin_lim_steps=griffin_lim_steps)
            config = replace(config, vocoder=vocoder)
        codec = Codec(config)
        for name in ("encoder", "codebook", "decoder", "vocoder"):
            codec.get_submodule(name).load_state_dict(state[name])
        digest = save(codec, target)
        text = card(codec, target, digest, checkpoint, packages, scores)
        for suffix, content in ((".sha256", f"{digest}  {target.name}\n"), (".md", text)):
            with replacing(target.with_suffix(suffix)) as temporary:
                temporary.write_text(content, encoding="utf-8")
    typer.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


if __name__ == "__main__":
    typer.run(main)
