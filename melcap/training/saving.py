"""The writing of checkpoints; `melcap.training.checkpoint` says what their files are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from melcap.errors import MelcapError
from melcap.io.files import replacing
from melcap.training.checkpoint import (
    DISCRIMINATORS,
    FORMAT,
    INDEX,
    Checkpoint,
    Record,
    describe_last,
)
from melcap.training.nested import split
from melcap.training.recipe import Recipe

FILE_BYTES = 15 << 20
"""Bytes of tensors in one file; a tensor that is larger has a file of its own."""


class TrainingProgress(NamedTuple):
    """The progress of a training run.

    Attributes:
        step: the number of steps since the very beginning.
        minutes: the minutes of training since then.
        sampler: the state of the sampler.
        records: the records of the sessions so far.
    """

    step: int
    minutes: float
    sampler: Mapping[str, object]
    records: Sequence[Record]


def save(
    path: Path, recipe: Recipe, averages: Mapping[str, AveragedModel], progress: TrainingProgress
) -> None:
    """Write a checkpoint, which replaces the one that is there.

    Args:
        path: the checkpoint folder.
        recipe: the recipe.
        averages: the moving averages of the recipe's modules.
        progress: how far the run has come.

    Raises:
        MelcapError: if the disk is full, or a weight is not finite. The checkpoint before is not
            changed then.
    """
    modules = {name: module.state_dict() for name, module in recipe.modules().items()}
    _check_finite(modules, progress.step, path)
    index: dict[str, Any] = {
        "format": FORMAT,
        "step": progress.step,
        "minutes": progress.minutes,
        "config": json.loads(recipe.config.to_json()),
        "records": list(progress.records),
        "sampler": dict(progress.sampler),
        "parts": {},
        "files": {},
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
        for part, state in _parts(modules, recipe, averages).items():
            index["parts"][part], tensors = split(state)
            index["files"][part] = [
                _write(path, f"{part}-{progress.step}", some) for some in _in_files(tensors)
            ]
        with replacing(path / INDEX) as temporary:
            temporary.write_text(json.dumps(index), encoding="utf-8")
    except OSError as error:
        raise MelcapError(
            f"{path}: the checkpoint of step {progress.step} cannot be written ({error.strerror}): "
            f"{describe_last(path)}; make room and resume from there"
        ) from error
    finally:
        _remove_unlisted(path)


def _check_finite(modules: Mapping[str, Mapping[str, Any]], step: int, path: Path) -> None:
    for name, state in modules.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and not value.isfinite().all():
                raise MelcapError(
                    f"{name}.{key} is not finite at step {step}: {describe_last(path)}; resume "
                    "from there with a lower --rate"
                )


def _parts(
    modules: Mapping[str, Mapping[str, Any]], recipe: Recipe, averages: Mapping[str, AveragedModel]
) -> dict[str, dict[str, Any]]:
    """Return the states of a checkpoint, by the part that they are saved in."""
    optimisers = {name: opt.state_dict() for name, opt in recipe.optimisers().items()}
    random = {"torch": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        random["cuda"] = torch.cuda.get_rng_state()
    parts: dict[str, dict[str, Any]] = {
        "weights": {name: state for name, state in modules.items() if name != DISCRIMINATORS},
        "averages": {name: average.state_dict() for name, average in averages.items()},
        "optimisers": {name: opt for name, opt in optimisers.items() if name != DISCRIMINATORS},
        "random": random,
    }
    if DISCRIMINATORS in modules:
        parts[DISCRIMINATORS] = {DISCRIMINATORS: modules[DISCRIMINATORS]}
        parts["discriminator_optimisers"] = {DISCRIMINATORS: optimisers[DISCRIMINATORS]}
    return parts


def _in_files(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors in order, in groups of at most `FILE_BYTES`."""
    some: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if some and size + tensor.nbytes > FILE_BYTES:
            yield some
            some, size = {}, 0
        some[name] = tensor
        size += tensor.nbytes
    yield some


def _write(folder: Path, stem: str, tensors: dict[str, Tensor]) -> dict[str, str]:
    """Write a file that is named by its contents; return its entry in the index."""
    data = safetensors.torch.save(tensors)
    digest = hashlib.sha256(data).hexdigest()
    name = f"{stem}-{digest[:8]}.safetensors"
    with replacing(folder / name) as temporary:
        temporary.write_bytes(data)
    return {"name": name, "sha256": digest}


def _remove_unlisted(path: Path) -> None:
    """Remove the files that the index does not list: older ones, and those of a save that failed.

    Without an index that is all of them.
    """
    listed: set[str] = set()
    if (path / INDEX).exists():
        files = Checkpoint(path).index["files"].values()
        listed = {file["name"] for part in files for file in part}
    for file in path.glob("*.safetensors"):
        if file.name not in listed:
            file.unlink(missing_ok=True)
