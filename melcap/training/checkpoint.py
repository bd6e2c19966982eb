"""A training run on disk: a folder that holds all that the next step depends on.

    stage2/checkpoint.json                settings, step, records of the runs so far, list of files
    stage2/weights-...safetensors         the networks
    stage2/averages-...safetensors        moving averages of the networks that are exported
    stage2/optimisers-...safetensors      states of the optimisers and of the random generators
    stage2/discriminators-...safetensors, stage2/discriminator_optimisers-...safetensors

A file holds at most `FILE_BYTES`; a part that is larger has several. The name of a file carries the
hash of its contents, and `checkpoint.json` is replaced last, so a run that is killed while it saves
leaves the checkpoint before. A run resumes from what is there: only the weights are needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from melcap.config import CodecConfig
from melcap.errors import InputError, MelcapError
from melcap.io.files import replacing
from melcap.training.config import TrainingConfig
from melcap.training.nested import join, split
from melcap.training.recipe import Recipe

Record = dict[str, Any]
"""The figures of one run; see `melcap.training.sitting`."""

INDEX = "checkpoint.json"
FILE_BYTES = 15 << 20
"""Bytes of tensors in one file; a tensor that is larger has a file of its own."""
_FORMAT = 1
_DISCRIMINATORS = "discriminators"


class Checkpoint:
    """A checkpoint folder. Its index is read at once, its tensors when they are first asked for.

    Args:
        path: the folder that `save` wrote.
        recipe: the recipe that the checkpoint must be of; None takes any.

    Raises:
        InputError: for a folder without a checkpoint, one of another recipe, and, once tensors are
            asked for, weights that are missing and files that are not those that were saved.
    """

    def __init__(self, path: Path, recipe: str | None = None) -> None:
        self.path = path
        try:
            self.index: dict[str, Any] = json.loads((path / INDEX).read_text(encoding="utf-8"))
            if self.index["format"] != _FORMAT:
                raise InputError(f"{path}: the checkpoint of another version of melcap")
            self.step, self.minutes = int(self.index["step"]), float(self.index["minutes"])
            self.config = TrainingConfig.from_json(json.dumps(self.index["config"]))
            self.records: list[Record] = list(self.index["records"])
            self.missing = [
                part
                for part, files in self.index["files"].items()
                if not all((path / file["name"]).exists() for file in files)
            ]
        except OSError as error:
            raise InputError(f"{path}: cannot read the checkpoint: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a checkpoint of melcap.training") from error
        if recipe not in (None, self.recipe):
            raise InputError(
                f"{path}: the checkpoint of another stage: {self.recipe}, not {recipe}"
            )

    @property
    def codec(self) -> CodecConfig:
        """The codec that is trained."""
        return self.config.codec

    @property
    def recipe(self) -> str:
        """The name of the recipe: stage1, vocoder or stage2."""
        return self.config.recipe

    @cached_property
    def modules(self) -> dict[str, dict[str, Tensor]]:
        """The state of each network, by name; discriminators only where their file is there."""
        found: dict[str, dict[str, Tensor]] = dict(self._part("weights"))
        if _DISCRIMINATORS in self.index["files"] and _DISCRIMINATORS not in self.missing:
            found |= self._part(_DISCRIMINATORS)
        return found

    def states(self, kind: str) -> dict[str, Any]:
        """The states of a kind by name: "modules", "averages", "optimisers" or "random".

        What the folder lacks is left out.
        """
        if kind == "modules":
            return self.modules
        parts = {
            "averages": ["averages"],
            "optimisers": ["optimisers", "discriminator_optimisers"],
            "random": ["random"],
        }[kind]
        found: dict[str, Any] = {}
        for part in parts:
            if part in self.index["files"] and part not in self.missing:
                found |= self._part(part)
        return found

    def exported(self) -> dict[str, dict[str, Tensor]]:
        """The networks by name, averaged where an average has begun."""
        found = dict(self.modules)
        for name, average in self.states("averages").items():
            if average["n_averaged"]:
                found[name] = {key: average[f"module.{key}"] for key in found[name]}
        return found

    def tokenizer(self) -> dict[str, dict[str, Tensor]]:
        """The networks that stage 2 begins or goes on with."""
        found = self.exported()
        learner = found.get("learner") or {"codebook.vectors": found["codebook"]["vectors"]}
        return {"encoder": found["encoder"], "decoder": found["decoder"], "learner": learner}

    def _part(self, part: str) -> dict[str, Any]:
        tensors: dict[str, Tensor] = {}
        for file in self.index["files"][part]:
            path = self.path / file["name"]
            try:
                data = path.read_bytes()
                if hashlib.sha256(data).hexdigest() != file["sha256"]:
                    raise InputError(f"{path}: damaged: not the file that was saved")
                tensors |= safetensors.torch.load(data)
            except OSError as error:
                raise InputError(f"{path}: cannot read the checkpoint: {error.strerror}") from error
            except SafetensorError as error:
                raise InputError(f"{path}: not a checkpoint of melcap.training") from error
        found: dict[str, Any] = join(self.index["parts"][part], tensors)
        return found


def exported(checkpoint: Path) -> dict[str, dict[str, Tensor]]:
    """The networks of a checkpoint folder by name, averaged where an average has begun."""
    return Checkpoint(checkpoint).exported()


def save(
    path: Path,
    recipe: Recipe,
    averages: Mapping[str, AveragedModel],
    sampler: Mapping[str, object],
    step: int,
    minutes: float,
    records: Sequence[Record],
) -> None:
    """Write a checkpoint in place of the one that is there.

    Raises MelcapError, and leaves that one as it is, where the disk is full or a weight is not
    finite any more.
    """
    modules = {name: module.state_dict() for name, module in recipe.modules().items()}
    optimisers = {name: opt.state_dict() for name, opt in recipe.optimisers().items()}
    for name, state in modules.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and not value.isfinite().all():
                raise MelcapError(
                    f"{name}.{key} is not finite any more at step {step}: {still_there(path)}; go "
                    "on from there with a lower --rate"
                )
    random = {"torch": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        random["cuda"] = torch.cuda.get_rng_state()
    parts: dict[str, dict[str, Any]] = {
        "weights": {name: state for name, state in modules.items() if name != _DISCRIMINATORS},
        "averages": {name: average.state_dict() for name, average in averages.items()},
        "optimisers": {name: opt for name, opt in optimisers.items() if name != _DISCRIMINATORS},
        "random": random,
    }
    if _DISCRIMINATORS in modules:
        parts[_DISCRIMINATORS] = {_DISCRIMINATORS: modules[_DISCRIMINATORS]}
        parts["discriminator_optimisers"] = {_DISCRIMINATORS: optimisers[_DISCRIMINATORS]}
    index: dict[str, Any] = {
        "format": _FORMAT,
        "step": step,
        "minutes": minutes,
        "config": json.loads(recipe.config.to_json()),
        "records": list(records),
        "sampler": dict(sampler),
        "parts": {},
        "files": {},
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
        for part, state in parts.items():
            index["parts"][part], tensors = split(state)
            index["files"][part] = [
                _write(path, f"{part}-{step}", some) for some in _in_files(tensors)
            ]
        with replacing(path / INDEX) as temporary:
            temporary.write_text(json.dumps(index), encoding="utf-8")
    except OSError as error:
        raise MelcapError(
            f"{path}: the checkpoint of step {step} cannot be written ({error.strerror}): "
            f"{still_there(path)}; make room and go on from there"
        ) from error
    finally:
        _remove_unlisted(path)


def still_there(path: Path) -> str:
    """A sentence that says what is left of a run that has to stop."""
    if not (path / INDEX).exists():
        return "nothing was saved before"
    return f"the checkpoint of step {Checkpoint(path).step} is still there"


def resume(
    path: Path, recipe: Recipe, averages: Mapping[str, AveragedModel], device: str
) -> Checkpoint:
    """Load a checkpoint into a recipe; what it lacks (discriminators, say) begins anew.

    Raises InputError where it is another recipe's, or its settings are not these.
    """
    found = Checkpoint(path, recipe.config.recipe)
    recipe.config.check_resumes(found.config, path)
    kinds: dict[str, Mapping[str, nn.Module | torch.optim.Optimizer]] = {
        "modules": recipe.modules(),
        "averages": averages,
        "optimisers": recipe.optimisers(),
    }
    for kind, parts in kinds.items():
        kept = found.states(kind)
        for name, part in parts.items():
            if name not in kept:
                continue
            try:
                part.load_state_dict(kept[name])
            except (RuntimeError, ValueError) as error:
                raise InputError(f"{path}: {name} is of other sizes than these settings") from error
    random = found.states("random")
    if "torch" in random:
        torch.set_rng_state(random["torch"])
    if "cuda" in random and device.startswith("cuda"):
        torch.cuda.set_rng_state(random["cuda"], device)
    return found


def _in_files(tensors: Mapping[str, Tensor]) -> Iterable[dict[str, Tensor]]:
    """The tensors in order, in runs of at most `FILE_BYTES`."""
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
    """Write a file that is named by its contents; returns its entry in the index."""
    data = safetensors.torch.save(tensors)
    digest = hashlib.sha256(data).hexdigest()
    name = f"{stem}-{digest[:8]}.safetensors"
    with replacing(folder / name) as temporary:
        temporary.write_bytes(data)
    return {"name": name, "sha256": digest}


def _remove_unlisted(path: Path) -> None:
    """Remove the files that the index does not list: of the checkpoint before, or never finished.

    Where there is no index yet, all of them are.
    """
    listed: set[str] = set()
    if (path / INDEX).exists():
        files = Checkpoint(path).index["files"].values()
        listed = {file["name"] for part in files for file in part}
    for file in path.glob("*.safetensors"):
        if file.name not in listed:
            file.unlink(missing_ok=True)
