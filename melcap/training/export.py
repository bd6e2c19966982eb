"""Export a training run: `python -m melcap.training.export OUT weights.safetensors`.

Beside the weights go their hash, weights.sha256, their model card, weights.md, and, where the run
has a stage 1 of the same tokenizer, the mel decoder that stage 1 goes on with,
weights.mel-decoder.safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from melcap.cli.batch import sentences
from melcap.codec import Codec
from melcap.errors import InputError
from melcap.io.files import replacing
from melcap.pretrained import save, save_decoder
from melcap.training.card import card, read_licences, read_scorecard
from melcap.training.checkpoint import Checkpoint
from melcap.training.mel_decoder import path_beside, save_mel_decoder


def main(
    out: Annotated[Path, typer.Argument(help="folder of a training run that has a stage 2")],
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
    decoder_only: Annotated[
        bool,
        typer.Option(
            "--decoder-only",
            help="write mel decoder and vocoder alone, for weights of the same tokenizer",
        ),
    ] = False,
) -> None:
    """Write the codec of a finished stage 2, its hash and its model card."""
    with sentences():
        if target.suffix != ".safetensors":
            raise InputError(f"{target}: the name of a weights file must end in .safetensors")
        packages = read_licences(licences) if licences else []
        scores = read_scorecard(scorecard) if scorecard else None
        checkpoint = Checkpoint(out / "stage2", "stage2")
        state = checkpoint.exported()
        config = checkpoint.codec
        if griffin_lim_steps is not None:  # they have no weights
            vocoder = replace(config.vocoder, griffin_lim_steps=griffin_lim_steps)
            config = replace(config, vocoder=vocoder)
        codec = Codec(config)
        for name in ("encoder", "codebook", "decoder", "vocoder"):
            codec.get_submodule(name).load_state_dict(state[name])
        digest = (save_decoder if decoder_only else save)(codec, target)
        text = card(codec, target, digest, checkpoint, packages, scores)
        _export_mel_decoder(out / "stage1", state, codec, target)
        for suffix, content in ((".sha256", f"{digest}  {target.name}\n"), (".md", text)):
            with replacing(target.with_suffix(suffix)) as temporary:
                temporary.write_text(content, encoding="utf-8")
    typer.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


def _export_mel_decoder(
    stage1: Path, state: Mapping[str, Mapping[str, Tensor]], codec: Codec, target: Path
) -> None:
    """Write the mel decoder of stage 1, where stage 1 is of the tokenizer that is exported."""
    path_beside(target).unlink(missing_ok=True)  # an earlier one may be of another tokenizer
    if not stage1.exists():
        return
    first = Checkpoint(stage1, "stage1").exported()
    vectors = first["learner"]["codebook.vectors"]
    same = torch.equal(vectors, state["codebook"]["vectors"]) and all(
        torch.equal(value, state["encoder"][name]) for name, value in first["encoder"].items()
    )
    if same:
        save_mel_decoder(path_beside(target), first["decoder"], codec)


if __name__ == "__main__":
    typer.run(main)
