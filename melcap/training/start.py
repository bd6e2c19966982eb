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
from melcap.pretrained import load
from melcap.training.checkpoint import BEFORE, Checkpoint, Record
from melcap.training.config import TrainingConfig, differences
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
    """A recipe on the CPU, where its checkpoint is or will be, and what led to a new run."""

    recipe: Stage1 | Stage2
    checkpoint: Path
    history: Sequence[Record]


def prepare(out: Path, given: Mapping[str, Any], weights: str | None, batch: int) -> Start:
    """The recipe that the settings `given` ask for, in the folder `out`.

    Settings that are not given are those of the run's checkpoint, where there is one, else the
    recipe's own, with this `batch`. The codec is that of what the run begins with. A new run begins
    with `weights` (a file, or "default"), else stage 2 with the tokenizer and, if there is one, the
    vocoder in `out`, else with weights drawn from its seed; one that goes on is given the weights
    of its checkpoint by `train`.

    Raises InputError for settings that cannot be or do not fit the files, and for a missing file;
    WeightsError for `weights` that cannot be loaded.
    """
    name = TrainingConfig.of(**given).recipe
    path = out / f"{name}.pt"
    trained = None if weights is None else load(None if weights == "default" else weights)
    before = source = Checkpoint(path, name) if path.exists() else None
    if source is None and trained is None and name == "stage2":
        source = _first_stage(out / "stage1.pt")
    kept: Mapping[str, Any] = {}
    if before is not None:
        kept = vars(before.config) if before.config else BEFORE
    codec = CodecConfig()
    if source is not None:
        codec = source.codec
    elif trained is not None:
        constant = given.get("constant_phase", False)
        codec = trained.config if constant else _in_training(trained.config)
    config = TrainingConfig.of(**{"batch": batch, "codec": codec, **kept, **given})
    if source is not None:
        _check(source.path, source.codec, config.codec, _PARTS[source.recipe])
    if trained is not None:
        _check(Path(str(weights)), trained.config, config.codec, _PARTS[name])

    torch.manual_seed(config.seed)
    if name == "stage1":
        return _begin(Stage1(config), path, before, trained)
    if name == "vocoder":
        return _begin(Stage2(config), path, before, trained)
    if source is None:
        assert trained is not None
        return _begin(Stage2(config, _tokenizer(trained)), path, before, trained)
    start = Start(recipe := Stage2(config, source.tokenizer()), path, source.sittings)
    vocoder = out / "vocoder.pt"
    if before is not None or not vocoder.exists():
        return start
    found = Checkpoint(vocoder, "vocoder")
    _check(vocoder, found.codec, config.codec, _PARTS["vocoder"])
    recipe.vocoder.load_state_dict(found.exported()["vocoder"])
    return Start(recipe, path, [*source.sittings, *found.sittings])


def _in_training(codec: CodecConfig) -> CodecConfig:
    """With no more Griffin-Lim steps than a new codec: gradients through them grow with each."""
    steps = min(codec.vocoder.griffin_lim_steps, VocoderConfig.griffin_lim_steps)
    return replace(codec, vocoder=replace(codec.vocoder, griffin_lim_steps=steps))


def _begin(
    recipe: Stage1 | Stage2, path: Path, before: Checkpoint | None, trained: Codec | None
) -> Start:
    if before is not None or trained is None:
        return Start(recipe, path, [])
    recipe.start_from(trained)
    return Start(recipe, path, [{"recipe": "weights", "model": trained.model}])


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
