"""Small recipes and real clips to train them on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from melcap.training.checkpoint import Checkpoint
from melcap.training.config import TrainingConfig
from melcap.training.crops import CropSampler
from melcap.training.data import AudioCache, build_cache
from melcap.training.loop import Recipe, train
from melcap.training.stage1 import Stage1
from melcap.training.stage2 import Stage2
from tests.helpers import SMALL

DATA = Path(__file__).parents[1] / "data"
CLIPS = ("music", "sound", "speech")


def cache_of_clips(folder: Path) -> AudioCache:
    """Clips of tests/data, each its own class."""
    for clip in CLIPS:
        (folder / "clips" / clip).mkdir(parents=True)
        shutil.copy(DATA / f"{clip}.flac", folder / "clips" / clip)
    return AudioCache(build_cache([folder / "clips"], folder / "cache", workers=1))


def stage_1(**settings: Any) -> Stage1:
    return Stage1(TrainingConfig.of(**{"codec": SMALL, "columns": 4, "batch": 2, **settings}))


def stage_2(tokenizer: Mapping[str, Any] | None = None, **settings: Any) -> Stage2:
    settings = {"codec": SMALL, "columns": 6, "batch": 2, **settings}
    return Stage2(TrainingConfig.of(stage=2, from_mels=tokenizer is None, **settings), tokenizer)


def tokenizer() -> dict[str, Any]:
    return {name: module.state_dict() for name, module in stage_1().modules().items()}


def train_to(step: int, recipe: Recipe, cache: AudioCache, path: Path, **options: Any) -> None:
    """Until the run at `path` stands at this step."""
    sampler = CropSampler(cache, recipe.samples, recipe.config.batch, recipe.config.seed)
    train(recipe, sampler, path, 1e9, 1e9, steps=step, **options)


def states_of(path: Path) -> dict[str, Any]:
    """The states that a checkpoint holds, by kind."""
    found = Checkpoint(path)
    return {kind: found.states(kind) for kind in ("modules", "averages", "optimisers")}


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder with their contents, hidden ones too."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def flat(state: object, name: str = "") -> dict[str, Tensor]:
    """All tensors of a checkpoint, by where they stand."""
    if isinstance(state, Tensor):
        return {name: state}
    if isinstance(state, dict):
        return {
            k: v for key, value in state.items() for k, v in flat(value, f"{name}.{key}").items()
        }
    return {}
