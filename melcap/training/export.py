"""The export of a training run to a weights file, with its hash, model card and mel decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from melcap.codec import Codec
from melcap.errors import InputError, OutputExistsError
from melcap.io.files import replacing
from melcap.pretrained import save, save_decoder
from melcap.training.card import ANOTHER_TOKENIZER, card, read_licences, read_scorecard
from melcap.training.checkpoint import INDEX, Checkpoint
from melcap.training.loop import print_error
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


def trained_codec(run: Path) -> Checkpoint:
    """Return the checkpoint of a whole codec in a run: of the joint stage, else of stage 2.

    Args:
        run: the folder of a training run, or that of one of its two checkpoints.

    Raises:
        InputError: for a folder without such a checkpoint.
    """
    if (run / INDEX).exists():
        found = Checkpoint(run)
        if found.recipe not in ("stage2", "joint"):
            raise InputError(f"{run}: a checkpoint of {found.recipe}, which is no whole codec")
        return found
    name = "joint" if (run / "joint").exists() else "stage2"
    return Checkpoint(run / name, name)


def export_weights(
    run: Path,
    target: Path,
    options: ExportOptions | None = None,
    tell: Callable[[str], None] = print_error,
) -> str:
    """Write the codec of a run's joint stage, or of its stage 2 if it has no joint stage.

    Beside `target`, weights.safetensors, go its hash, weights.sha256, its model card, weights.md,
    and, if the run has a stage 1 of the same tokenizer, the mel decoder from which stage 1 can be
    continued, weights.mel-decoder.safetensors.

    Args:
        run: the folder of a training run, or of one of its checkpoints; see `trained_codec`.
        target: the weights file to write, .safetensors.
        options: see `ExportOptions`.
        tell: prints a sentence for the user.

    Returns:
        The SHA-256 of the weights file.

    Raises:
        InputError: for a target of another suffix, a run without such a stage, and tables that
            cannot be read.
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
    checkpoint = trained_codec(run)
    state = checkpoint.exported() | checkpoint.tokenizer()
    config = checkpoint.codec
    if options.griffin_lim_steps is not None:  # these steps have no weights
        vocoder = replace(config.vocoder, griffin_lim_steps=options.griffin_lim_steps)
        config = replace(config, vocoder=vocoder)
    codec = Codec(config)
    for name in ("encoder", "codebook", "decoder", "vocoder"):
        codec.get_submodule(name).load_state_dict(state[name])
    digest = (save_decoder if options.decoder_only else save)(codec, target)
    text = card(codec, target, digest, checkpoint, packages, scores)
    _export_mel_decoder(checkpoint.path.parent / "stage1", state, codec, target)
    for suffix, content in ((".sha256", f"{digest}  {target.name}\n"), (".md", text)):
        with replacing(target.with_suffix(suffix)) as temporary:
            temporary.write_text(content, encoding="utf-8")
    if checkpoint.recipe == "joint":
        tell(ANOTHER_TOKENIZER)
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
