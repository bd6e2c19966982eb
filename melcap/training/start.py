"""What a run begins with: its own checkpoint, or trained weights, or the runs before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melcap.codec import Codec
from melcap.config import CodecConfig, VocoderConfig
from melcap.errors import InputError
from melcap.pretrained import default_file, load
from melcap.training.checkpoint import Checkpoint, Record
from melcap.training.config import TrainingConfig, differences
from melcap.training.mel_decoder import load_mel_decoder, path_beside
from melcap.training.stage1 import Stage1
from melcap.training.stage2 import Stage2

_PARTS = {
    "stage1": ("mel", "tokenizer"),
    "vocoder": ("mel", "vocoder"),
    "stage2": ("mel", "tokenizer", "vocoder"),
}
"""What of a codec's configuration the weights of a recipe depend on..."""
_WITHOUT_WEIGHTS = {"vocoder.griffin_lim_steps", "vocoder.griffin_lim_momentum"}
"""... and what in it they do not."""


@dataclass(frozen=True)
class Start:
    """A recipe on the CPU, where its checkpoint is or will be, and what led to a new run.

    `notes` are sentences for the person who started it.
    """

    recipe: Stage1 | Stage2
    checkpoint: Path
    history: Sequence[Record]
    notes: Sequence[str] = ()


def prepare(out: Path, given: Mapping[str, Any], weights: str | None, batch: int) -> Start:
    """Return the recipe that the settings `given` ask for, in the folder `out`.

    Settings that are not given are those of the run's checkpoint, where there is one, else the
    recipe's own, with this `batch`. The codec is that of what the run begins with; a run that goes
    on is given the weights of its checkpoint by `train`. A new run begins with:

    - stage 1: `weights`, with the mel decoder beside them if there is one, else random weights;
    - the vocoder on true mels: the vocoder of `weights`, else random weights;
    - stage 2: the tokenizer of `out`/stage1, else of `weights`, and the vocoder of `out`/vocoder,
      else of `weights`, else random weights.

    Args:
        out: the folder of the run's checkpoints.
        given: settings of `TrainingConfig`.
        weights: a weights file, "default" for those that ship, or None.
        batch: crops in a batch, where neither `given` nor a checkpoint says so.

    Raises:
        InputError: for settings that cannot be or do not fit the files, and for a missing file.
        WeightsError: for `weights` that cannot be loaded.
    """
    name = TrainingConfig.of(**given).recipe
    path = out / name
    file = default_file() if weights == "default" else None if weights is None else Path(weights)
    trained = None if weights is None else load(None if weights == "default" else weights)
    before = Checkpoint(path, name) if path.exists() else None
    first = None
    if before is None and name == "stage2" and (trained is None or (out / "stage1").exists()):
        first = _first_stage(out / "stage1")
    source = before or first
    kept: Mapping[str, Any] = {} if before is None else vars(before.config)
    codec = CodecConfig()
    if trained is not None:
        constant = given.get("constant_phase", kept.get("constant_phase", False))
        codec = trained.config if constant else _in_training(trained.config)
        if first is not None:
            codec = replace(first.codec, vocoder=codec.vocoder)
    elif source is not None:
        codec = source.codec
    config = TrainingConfig.of(**{"batch": batch, "codec": codec, **kept, **given})
    if source is not None:
        _check(source.path, source.codec, config.codec, _PARTS[source.recipe])
    if trained is not None:
        # Of the weights a stage 2 takes, or once took, the vocoder alone where it has a tokenizer.
        has_tokenizer = name == "stage2" and source is not None
        parts = ("mel", "vocoder") if has_tokenizer else _PARTS[name]
        _check(Path(str(weights)), trained.config, config.codec, parts)

    if config.decoder_only and trained is None and before is None:
        raise InputError("decoder_only needs a tokenizer that stays as it is: give --weights")

    torch.manual_seed(config.seed)
    history = [] if trained is None else [{"recipe": "weights", "model": trained.model}]
    if name == "stage1":
        tokenizer = Stage1(config)
        if before is None and trained is not None:
            assert file is not None
            tokenizer.start_from(trained, _mel_decoder(file, trained))
        return Start(tokenizer, path, history)
    if name == "vocoder":
        vocoder = Stage2(config)
    elif source is not None:
        vocoder = Stage2(config, source.tokenizer())
    else:
        assert trained is not None
        vocoder = Stage2(config, _tokenizer(trained))
    if before is not None:
        return Start(vocoder, path, history, _notes(before, out / "stage1"))
    if first is not None:
        history = [*first.records, *history]
        if (out / "vocoder").exists():
            found = Checkpoint(out / "vocoder", "vocoder")
            _check(found.path, found.codec, config.codec, _PARTS["vocoder"])
            vocoder.vocoder.load_state_dict(found.exported()["vocoder"])
            return Start(vocoder, path, [*history, *found.records])
    if trained is not None:
        vocoder.start_from(trained)
    return Start(vocoder, path, history)


def _in_training(codec: CodecConfig) -> CodecConfig:
    """With no more Griffin-Lim steps than a new codec: gradients through them grow with each."""
    steps = min(codec.vocoder.griffin_lim_steps, VocoderConfig.griffin_lim_steps)
    return replace(codec, vocoder=replace(codec.vocoder, griffin_lim_steps=steps))


def _notes(stage2: Checkpoint, stage1: Path) -> list[str]:
    """Say where stage 1 has gone on since stage 2 took its tokenizer."""
    if stage2.recipe != "stage2" or not stage1.exists():
        return []
    moved = Checkpoint(stage1, "stage1").exported()["learner"]["codebook.vectors"]
    if torch.equal(moved, stage2.modules["codebook"]["vectors"]):
        return []
    return [
        f"{stage2.path} goes on with the tokenizer that it began with; {stage1} has another one by "
        "now: to take it over, start stage 2 in a folder that has that stage1 alone"
    ]


def _mel_decoder(weights: Path, codec: Codec) -> Mapping[str, Tensor] | None:
    path = path_beside(weights)
    if not path.exists():
        return None
    return load_mel_decoder(path, codec)


def _first_stage(path: Path) -> Checkpoint:
    if not path.exists():
        raise InputError(f"{path}: not there; run --stage 1 first, or use --from-mels")
    return Checkpoint(path, "stage1")


def _tokenizer(codec: Codec) -> dict[str, Mapping[str, Tensor]]:
    return {
        "encoder": codec.encoder.state_dict(),
        "decoder": codec.decoder.state_dict(),
        "learner": {"codebook.vectors": codec.codebook.vectors},
    }


def _check(where: Path, theirs: CodecConfig, ours: CodecConfig, parts: Sequence[str]) -> None:
    for name, old, new in differences(theirs, ours):
        if name.partition(".")[0] in parts and name not in _WITHOUT_WEIGHTS:
            raise InputError(
                f"{where}: is of a codec whose {name} is {old}, not {new}: leave --codec out, or "
                "start another run in another folder"
            )
