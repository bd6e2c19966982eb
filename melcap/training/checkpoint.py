"""A training run on disk: a folder that holds all that the next step depends on.

    stage2/checkpoint.json                settings, step, records of the sessions, list of files
    stage2/weights-...safetensors         the networks
    stage2/averages-...safetensors        moving averages of the networks that are exported
    stage2/optimisers-...safetensors      states of the optimisers
    stage2/random-...safetensors          states of the random generators
    stage2/discriminators-...safetensors, stage2/discriminator_optimisers-...safetensors

A file holds at most `saving.FILE_BYTES`; a part that is larger has several files. The name of a
file carries the hash of its contents, and `checkpoint.json` is replaced last, so a run that is
killed while it saves leaves the checkpoint before. A run resumes from the files that are there:
only the weights are required.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
from melcap.training.config import TrainingConfig
from melcap.training.nested import join
from melcap.training.recipe import Recipe

Record = dict[str, Any]
"""The record of a session; see `melcap.training.session`."""

INDEX = "checkpoint.json"
FORMAT = 1
DISCRIMINATORS = "discriminators"


class Checkpoint:
    """A checkpoint folder. Its index is read at once, its tensors at first use.

    Args:
        path: the folder that `saving.save` wrote.
        recipe: the recipe that the checkpoint must be of; None takes any.

    Attributes:
        step: the number of steps since the very beginning.
        minutes: the minutes of training since then.
        config: the settings.
        records: the records of the sessions, and of what the run began with.
        missing: the parts of which files are missing.

    Raises:
        InputError: for a folder without a checkpoint, or with one of another recipe. Reading
            tensors raises it for missing weights and for files that are not those that were saved.
    """

    def __init__(self, path: Path, recipe: str | None = None) -> None:
        self.path = path
        self.index: dict[str, Any] = _read_index(path)
        try:
            self.step, self.minutes = int(self.index["step"]), float(self.index["minutes"])
            self.config = TrainingConfig.from_json(json.dumps(self.index["config"]))
            self.records: list[Record] = list(self.index["records"])
            self.missing = [
                part
                for part, files in self.index["files"].items()
                if not all((path / file["name"]).exists() for file in files)
            ]
        except MelcapError as error:
            raise InputError(f"{path}: not a checkpoint of melcap train: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a checkpoint of melcap train: {error!r}") from error
        if recipe not in (None, self.recipe):
            raise InputError(f"{path}: a checkpoint of another stage: {self.recipe}, not {recipe}")

    @property
    def codec(self) -> CodecConfig:
        """Return the configuration of the codec that is trained."""
        return self.config.codec

    @property
    def recipe(self) -> str:
        """Return the name of the recipe: stage1, vocoder, stage2 or joint."""
        return self.config.recipe

    @cached_property
    def modules(self) -> dict[str, dict[str, Tensor]]:
        """Return the state of each network by name; discriminators only if their file is there."""
        found: dict[str, dict[str, Tensor]] = dict(self._part("weights"))
        if DISCRIMINATORS in self.index["files"] and DISCRIMINATORS not in self.missing:
            found |= self._part(DISCRIMINATORS)
        return found

    def states(self, kind: str) -> dict[str, Any]:
        """Return the states of a kind by name. States that the folder lacks are left out.

        Args:
            kind: "modules", "averages", "optimisers" or "random".
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
        """Return the networks by name, averaged where an average has begun."""
        found = dict(self.modules)
        for name, average in self.states("averages").items():
            if average["n_averaged"]:
                found[name] = {key: average[f"module.{key}"] for key in found[name]}
        return found

    def tokenizer(self) -> dict[str, dict[str, Tensor]]:
        """Return the states of encoder, mel decoder and codebook, for the stages after."""
        found = self.exported()
        if "ema_codebook" in found:
            vectors = found["ema_codebook"]["codebook.vectors"]
        else:
            vectors = found["codebook"]["vectors"]
        return {
            "encoder": found["encoder"],
            "decoder": found["decoder"],
            "codebook": {"vectors": vectors},
        }

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
                raise InputError(f"{path}: not a file of a checkpoint: {error}") from error
        found: dict[str, Any] = join(self.index["parts"][part], tensors)
        return found


def resume(
    path: Path, recipe: Recipe, averages: Mapping[str, AveragedModel], device: str
) -> Checkpoint:
    """Load a checkpoint into a recipe. What it lacks, such as discriminators, begins anew.

    Args:
        path: the checkpoint folder.
        recipe: the recipe, on its device.
        averages: the moving averages of the recipe's modules.
        device: the device of the recipe.

    Returns:
        The checkpoint.

    Raises:
        InputError: for the checkpoint of another recipe, or of settings that cannot change.
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
                raise InputError(
                    f"{path}: {name} is of other sizes than these settings ask for"
                ) from error
    random = found.states("random")
    if "torch" in random:
        torch.set_rng_state(random["torch"])
    if "cuda" in random and device.startswith("cuda"):
        torch.cuda.set_rng_state(random["cuda"], device)
    return found


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((path / INDEX).read_text(encoding="utf-8"))
        version = index["format"]
    except OSError as error:
        raise InputError(f"{path}: cannot read the checkpoint: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a checkpoint of melcap train: {error!r}") from error
    if version != FORMAT:
        raise InputError(f"{path}: a checkpoint of another version of melcap: train it anew")
    return index


def describe_last(path: Path) -> str:
    """Return a sentence on what is saved of a run that has to stop."""
    if not (path / INDEX).exists():
        return "nothing was saved before"
    return f"the checkpoint of step {Checkpoint(path).step} is still there"
