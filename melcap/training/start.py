"""The beginning of a run: its own checkpoint, trained weights, or the runs before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melcap.codec import Codec, require_own
from melcap.config import CodecConfig, VocoderConfig
from melcap.errors import InputError
from melcap.pretrained import default_file, load
from melcap.training.checkpoint import Checkpoint, Record
from melcap.training.config import TrainingConfig, differences
from melcap.training.joint import Joint
from melcap.training.mel_decoder import load_mel_decoder, path_beside
from melcap.training.stage1 import Stage1
from melcap.training.stage2 import Stage2

_PARTS = {
    "stage1": ("mel", "tokenizer"),
    "vocoder": ("mel", "vocoder"),
    "stage2": ("mel", "tokenizer", "vocoder"),
    "joint": ("mel", "tokenizer", "vocoder"),
}
"""The parts of a codec's configuration that the weights of a recipe depend on."""
_WITHOUT_WEIGHTS = {"vocoder.griffin_lim_steps", "vocoder.griffin_lim_momentum"}
"""Settings in those parts that no weights depend on."""


@dataclass(frozen=True)
class Start:
    """A recipe that is ready to be trained.

    Attributes:
        recipe: the recipe, on the CPU.
        checkpoint: the folder of its checkpoint, which need not exist.
        history: the records, in a new run, of what the recipe began with.
        notes: sentences for the user.
    """

    recipe: Stage1 | Stage2
    checkpoint: Path
    history: Sequence[Record]
    notes: Sequence[str] = ()


def prepare(out: Path, given: Mapping[str, Any], weights: str | None, batch: int) -> Start:
    """Return the recipe that the settings `given` ask for, in the folder `out`.

    Settings that are not given are those of the run's checkpoint, if there is one, else the
    recipe's own, with this `batch`. The codec is that of what the run begins with. A run that
    resumes gets the weights of its checkpoint from `train`. A new run begins with:

    - stage 1: `weights`, with the mel decoder beside them if there is one, else random weights;
    - the vocoder on true mels: the vocoder of `weights`, else random weights;
    - stage 2: the tokenizer of `out`/stage1, else of `weights`, and the vocoder of `out`/vocoder,
      else of `weights`, else random weights;
    - the joint stage: all of `out`/stage2 or of `weights`, of which there must be one.

    Args:
        out: the folder of the run's checkpoints.
        given: settings of `TrainingConfig`.
        weights: a weights file, "default" for those that ship, or None.
        batch: crops in a batch, where neither `given` nor a checkpoint says so.

    Raises:
        InputError: for settings that are not possible or do not fit the files, and for a missing
            file.
        WeightsError: for `weights` that cannot be loaded.
    """
    name = TrainingConfig.of(**given).recipe
    path = out / name
    trained = None
    if weights is not None:
        loaded = load(None if weights == "default" else weights)
        trained = require_own(loaded, "melcap train --weights")
    before = Checkpoint(path, name) if path.exists() else None
    first = None
    if before is None and name == "stage2" and (trained is None or (out / "stage1").exists()):
        first = _first_stage(out / "stage1")
    if before is None and name == "joint":
        first = _second_stage(out / "stage2", weights)
    config = _settings(given, trained, before, first, batch)
    _check_parts(config, weights, trained, before or first)

    torch.manual_seed(config.seed)
    history: list[Record] = []
    if trained is not None:
        history = [{"recipe": "weights", "model": trained.model}]
    if name == "stage1":
        stage1 = Stage1(config)
        if before is None and trained is not None:
            file = default_file() if weights == "default" else Path(str(weights))
            stage1.start_from(trained, _mel_decoder(file, trained))
        return Start(stage1, path, history)
    if name == "joint":
        joint = Joint(config, _tokenizer(before or first, trained))
        if first is not None:
            joint.vocoder.load_state_dict(first.exported()["vocoder"])
            history = [*first.records]
        elif before is None and trained is not None:
            joint.start_from(trained)
        return Start(joint, path, history, _notes_of_joint(before, out / "stage2"))
    stage2 = Stage2(config, None if name == "vocoder" else _tokenizer(before or first, trained))
    if before is not None:
        return Start(stage2, path, history, _notes(before, out / "stage1"))
    if first is not None:
        history = [*first.records, *history]
        if (out / "vocoder").exists():
            found = Checkpoint(out / "vocoder", "vocoder")
            _check_codec(found.path, found.codec, config.codec, _PARTS["vocoder"])
            stage2.vocoder.load_state_dict(found.exported()["vocoder"])
            return Start(stage2, path, [*history, *found.records])
    if trained is not None:
        stage2.start_from(trained)
    return Start(stage2, path, history)


def _settings(
    given: Mapping[str, Any],
    trained: Codec | None,
    before: Checkpoint | None,
    first: Checkpoint | None,
    batch: int,
) -> TrainingConfig:
    """Return the settings of a run: those given, else of its checkpoint, else the recipe's own."""
    kept: Mapping[str, Any] = {} if before is None else vars(before.config)
    source = before or first
    codec = CodecConfig()
    if trained is not None:
        constant = TrainingConfig.of(**{**kept, **given}).constant_phase
        codec = trained.config if constant else _in_training(trained.config)
        if first is not None:
            codec = replace(first.codec, vocoder=codec.vocoder)
    elif source is not None:
        codec = source.codec
    defaults: dict[str, Any] = {"batch": batch, "codec": codec}
    return TrainingConfig.of(**{**defaults, **kept, **given})


def _check_parts(
    config: TrainingConfig, weights: str | None, trained: Codec | None, source: Checkpoint | None
) -> None:
    """Refuse a codec that does not fit the weights or the checkpoint that the run begins with."""
    if source is not None:
        _check_codec(source.path, source.codec, config.codec, _PARTS[source.recipe])
    if trained is not None:
        # A stage 2 that has a tokenizer takes, or once took, only the vocoder of the weights.
        has_tokenizer = config.recipe == "stage2" and source is not None
        parts = ("mel", "vocoder") if has_tokenizer else _PARTS[config.recipe]
        _check_codec(Path(str(weights)), trained.config, config.codec, parts)
    if config.decoder_only and trained is None and source is None:
        raise InputError("decoder_only needs a tokenizer that does not change: give --weights")


def _check_codec(where: Path, theirs: CodecConfig, ours: CodecConfig, parts: Sequence[str]) -> None:
    for name, old, new in differences(theirs, ours):
        if name.partition(".")[0] in parts and name not in _WITHOUT_WEIGHTS:
            raise InputError(
                f"{where}: is of a codec whose {name} is {old}, not {new}: leave --codec out, or "
                "start another run in another folder"
            )


def _in_training(codec: CodecConfig) -> CodecConfig:
    """Return a codec with no more Griffin-Lim steps than a new one: gradients grow with each."""
    steps = min(codec.vocoder.griffin_lim_steps, VocoderConfig.griffin_lim_steps)
    return replace(codec, vocoder=replace(codec.vocoder, griffin_lim_steps=steps))


def _notes(stage2: Checkpoint, stage1: Path) -> list[str]:
    """Return a sentence if stage 1 was trained further after stage 2 took its tokenizer."""
    if stage2.recipe != "stage2" or not stage1.exists():
        return []
    vectors = Checkpoint(stage1, "stage1").tokenizer()["codebook"]["vectors"]
    if torch.equal(vectors, stage2.modules["codebook"]["vectors"]):
        return []
    return [
        f"{stage2.path} keeps the tokenizer that it began with; {stage1} has another one by now: "
        "to use that, start stage 2 in a folder that has that stage1 alone"
    ]


def _notes_of_joint(joint: Checkpoint | None, stage2: Path) -> list[str]:
    """Return a sentence if stage 2 is not, or not any more, what the joint stage began with."""
    if joint is None or not stage2.exists():
        return []
    began_with = [record for record in joint.records if record["recipe"] != "joint"]
    if began_with == Checkpoint(stage2, "stage2").records:
        return []
    return [
        f"{joint.path} goes on from what it began with, and {stage2} is something else by now: to "
        "use that, start the joint stage in a folder that has that stage2 alone"
    ]


def _mel_decoder(weights: Path, codec: Codec) -> Mapping[str, Tensor] | None:
    path = path_beside(weights)
    return load_mel_decoder(path, codec) if path.exists() else None


def _first_stage(path: Path) -> Checkpoint:
    if not path.exists():
        raise InputError(f"{path}: does not exist; run --stage 1 first, or use --from-mels")
    return Checkpoint(path, "stage1")


def _second_stage(path: Path, weights: str | None) -> Checkpoint | None:
    """Return the checkpoint that a new joint stage begins with; None for the weights."""
    if path.exists() and weights is not None:
        raise InputError(
            f"{path}: the joint stage begins either with it or with --weights: leave --weights "
            "out, or give another --out"
        )
    if weights is not None:
        return None
    if not path.exists():
        raise InputError(f"{path}: does not exist; run --stage 2 first, or give --weights")
    return Checkpoint(path, "stage2")


def _tokenizer(
    source: Checkpoint | None, trained: Codec | None
) -> Mapping[str, Mapping[str, Tensor]]:
    """Return the tokenizer of a checkpoint, else of trained weights."""
    if source is not None:
        return source.tokenizer()
    assert trained is not None  # a run without either has been refused
    parts = ("encoder", "decoder", "codebook")
    return {name: trained.get_submodule(name).state_dict() for name in parts}
