"""The export of a training run to a weights file, with its hash, model card and mel decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from melcap.codec import Codec
from melcap.errors import InputError, OutputExistsError
from melcap.io.files import replacing
from melcap.pretrained import save, save_decoder
from melcap.training.card import card, read_licences, read_scorecard
from melcap.training.checkpoint import Checkpoint
from melcap.training.mel_decoder import path_beside, save_mel_decoder


@dataclass(frozen=True)
class ExportOptions:
    """The options of an export.

    Attributes:
        licences: a CSV file of the data's packages and their licences, for the model card.
        scorecard: a scorecard.json of `melcap evaluate`, for the model card.
        griffin_lim_steps: the number of steps at the end of the vocoder; None for as in training.
        decoder_only: write mel decoder and vocoder alone, for weights of the same tokenizer.
        force: replace files that exist.
    """

    licences: Path | None = None
    scorecard: Path | None = None
    griffin_lim_steps: int | None = None
    decoder_only: bool = False
    force: bool = False


def export_weights(run: Path, target: Path, options: ExportOptions | None = None) -> str:
    """Write the codec of a run's stage 2.

    Beside `target`, weights.safetensors, go its hash, weights.sha256, its model card, weights.md,
    and, if the run has a stage 1 of the same tokenizer, the mel decoder from which stage 1 can be
    continued, weights.mel-decoder.safetensors.

    Args:
        run: the folder of a training run that has a stage 2.
        target: the weights file to write, .safetensors.
        options: see `ExportOptions`.

    Returns:
        The SHA-256 of the weights file.

    Raises:
        InputError: for a target of another suffix, a run without a stage 2, and tables that cannot
            be read.
        OutputExistsError: if one of these files exists and is not to be replaced.
        WeightsError: if a file cannot be written.
    """
    options = options or ExportOptions()
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: the name of a weights file must end in .safetensors")
    files = [target, *map(target.with_suffix, (".sha256", ".md")), path_beside(target)]
    if not options.force and (existing := next(filter(Path.exists, files), None)):
        raise OutputExistsError(f"{existing} exists: use --force to replace it")
    packages = read_licences(options.licences) if options.licences else []
    scores = read_scorecard(options.scorecard) if options.scorecard else None
    checkpoint = Checkpoint(run / "stage2", "stage2")
    state = checkpoint.exported()
    config = checkpoint.codec
    if options.griffin_lim_steps is not None:  # these steps have no weights
        vocoder = replace(config.vocoder, griffin_lim_steps=options.griffin_lim_steps)
        config = replace(config, vocoder=vocoder)
    codec = Codec(config)
    for name in ("encoder", "codebook", "decoder", "vocoder"):
        codec.get_submodule(name).load_state_dict(state[name])
    digest = (save_decoder if options.decoder_only else save)(codec, target)
    text = card(codec, target, digest, checkpoint, packages, scores)
    _export_mel_decoder(run / "stage1", state, codec, target)
    for suffix, content in ((".sha256", f"{digest}  {target.name}\n"), (".md", text)):
        with replacing(target.with_suffix(suffix)) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return digest


def _export_mel_decoder(
    stage1: Path, state: Mapping[str, Mapping[str, Tensor]], codec: Codec, target: Path
) -> None:
    """Write the mel decoder of stage 1, if stage 1 is of the tokenizer that is exported."""
    path_beside(target).unlink(missing_ok=True)  # an earlier one may be of another tokenizer
    if not stage1.exists():
        return
    first = Checkpoint(stage1, "stage1").tokenizer()
    same = torch.equal(first["codebook"]["vectors"], state["codebook"]["vectors"]) and all(
        torch.equal(value, state["encoder"][name]) for name, value in first["encoder"].items()
    )
    if same:
        save_mel_decoder(path_beside(target), first["decoder"], codec)
