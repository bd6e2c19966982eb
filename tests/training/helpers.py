"""Small recipes and real clips to train them on."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from melcap.training import ranks
from melcap.training.audio_cache import AudioCache
from melcap.training.checkpoint import Checkpoint, Record
from melcap.training.config import TrainingConfig
from melcap.training.crops import CropSampler
from melcap.training.decoding import build_cache
from melcap.training.joint import Joint
from melcap.training.loop import LoopOptions, train
from melcap.training.recipe import Recipe
from melcap.training.stage1 import Stage1
from melcap.training.stage2 import Stage2
from tests.helpers import SMALL

DATA = Path(__file__).parents[1] / "data"
CLIPS = ("music", "sound", "speech")


def cache_of_clips(folder: Path) -> AudioCache:
    """Return a cache of the clips of tests/data, each its own class."""
    for clip in CLIPS:
        (folder / "clips" / clip).mkdir(parents=True)
        shutil.copy(DATA / f"{clip}.flac", folder / "clips" / clip)
    return AudioCache(build_cache([folder / "clips"], folder / "cache", workers=1))


def stage_1(**settings: Any) -> Stage1:
    return Stage1(TrainingConfig.of(**{"codec": SMALL, "columns": 4, "batch": 2, **settings}))


def stage_2(tokenizer: Mapping[str, Any] | None = None, **settings: Any) -> Stage2:
    settings = {"codec": SMALL, "columns": 6, "batch": 2, **settings}
    return Stage2(TrainingConfig.of(stage=2, from_mels=tokenizer is None, **settings), tokenizer)


def joint_stage(**settings: Any) -> Joint:
    settings = {"codec": SMALL, "columns": 6, "batch": 2, **settings}
    states = states_for_stage_2(stage_1(codec=settings["codec"]))
    return Joint(TrainingConfig.of(joint=True, **settings), states)


def tokenizer() -> dict[str, Any]:
    return states_for_stage_2(stage_1())


def states_for_stage_2(first: Stage1) -> dict[str, Any]:
    """Return the tokenizer of a stage 1, as `Checkpoint.tokenizer` does."""
    return {
        "encoder": first.encoder.state_dict(),
        "decoder": first.decoder.state_dict(),
        "codebook": first.codebook.state_dict(),
    }


def train_to(
    step: int,
    recipe: Recipe,
    cache: AudioCache,
    path: Path,
    history: Sequence[Record] = (),
    **options: Any,
) -> None:
    """Train until the run at `path` is at this step, without pictures unless they are asked for."""
    options = {"picture_minutes": math.inf, **options}
    batch = recipe.config.batch
    rows = ranks.rows(batch, recipe.accumulate)
    sampler = CropSampler(cache, recipe.samples, batch, recipe.config.seed, rows=rows)
    loop = LoopOptions(minutes=1e9, schedule_minutes=1e9, steps=step, **options)
    train(recipe, sampler, path, loop, history)


def states_of(path: Path) -> dict[str, Any]:
    """Return the states that a checkpoint holds, by kind."""
    found = Checkpoint(path)
    return {kind: found.states(kind) for kind in ("modules", "averages", "optimisers")}


def files_of(folder: Path) -> dict[str, bytes]:
    """Return all files in a folder with their contents, hidden ones too."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def flat(state: object, name: str = "") -> dict[str, Tensor]:
    """Return all tensors of a nested state, by their place in it."""
    if isinstance(state, Tensor):
        return {name: state}
    if isinstance(state, dict):
        return {
            k: v for key, value in state.items() for k, v in flat(value, f"{name}.{key}").items()
        }
    return {}
