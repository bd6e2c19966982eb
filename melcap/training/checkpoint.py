"""A training run on disk: all that its next step depends on, in one file that is there or not.

Beside that a checkpoint holds its configuration, as JSON text, and a record of every sitting that
led to it, those of the runs it began from included. Checkpoints from before there were
configurations are those of the lite codec as it was then.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from melcap.config import CodecConfig, MelSpec, TokenizerConfig, VocoderConfig
from melcap.errors import InputError, MelcapError
from melcap.files import replacing
from melcap.training.config import TrainingConfig
from melcap.training.recipe import Recipe

Record = dict[str, Any]
"""What is known of one sitting; see `melcap.training.sitting`."""


FIRST_LITE = CodecConfig(
    name="melcap-lite",
    mel=MelSpec(44100, 1024, 256, 96, floor=1e-3, mean=-2.0, std=2.8),
    tokenizer=TokenizerConfig((32, 64, 128), (1, 3, 4), (1, 3, 2), 8192, 32),
    vocoder=VocoderConfig(256, 512, 4, (4,), (128,), (3,), 4, griffin_lim_steps=0),
)
"""The codec of checkpoints that do not name theirs."""
BEFORE = {"muon": False, "loudness": 0.0}
"""What was done before these were settings."""


class Checkpoint:
    """A checkpoint file, read onto a device.

    `config` is None where it is from before there were configurations. Raises InputError where the
    file is missing, no checkpoint, or that of another recipe than the one asked for.
    """

    def __init__(self, path: Path, recipe: str | None = None, device: str = "cpu") -> None:
        self.path = path
        try:
            self.state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            self.step, self.minutes = int(self.state["step"]), float(self.state["minutes"])
            self.modules: dict[str, dict[str, Tensor]] = self.state["modules"]
        except OSError as error:
            raise InputError(f"{path}: cannot read the checkpoint: {error.strerror}") from error
        except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise InputError(f"{path}: not a checkpoint of melcap.training") from error
        text = self.state.get("config")
        self.config = None if text is None else TrainingConfig.from_json(_as_it_was(text))
        if recipe not in (None, self.recipe):
            raise InputError(
                f"{path}: the checkpoint of another stage: {self.recipe}, not {recipe}"
            )

    @property
    def codec(self) -> CodecConfig:
        return FIRST_LITE if self.config is None else self.config.codec

    @property
    def recipe(self) -> str:
        if self.config is not None:
            return self.config.recipe
        if "vocoder" not in self.modules:
            return "stage1"
        return "stage2" if "encoder" in self.modules else "vocoder"

    @property
    def sittings(self) -> list[Record]:
        """The records, oldest first; of what was trained before there were any, one for all."""
        whole = {"recipe": self.recipe, "steps": self.step, "minutes": self.minutes}
        kept: list[Record] = self.state.get("sittings", [whole])
        return list(kept)

    def exported(self) -> dict[str, dict[str, Tensor]]:
        """The modules by name, averaged where an average has begun."""
        found = dict(self.modules)
        for name, average in self.state.get("averages", {}).items():
            if average["n_averaged"]:
                found[name] = {key: average[f"module.{key}"] for key in found[name]}
        return found

    def tokenizer(self) -> dict[str, dict[str, Tensor]]:
        """What stage 2 begins with, or goes on with."""
        found = self.exported()
        learner = found.get("learner") or {"codebook.vectors": found["codebook"]["vectors"]}
        return {"encoder": found["encoder"], "decoder": found["decoder"], "learner": learner}


def _as_it_was(text: str) -> str:
    """The settings of a checkpoint, whenever it was written, with what they meant then."""
    settings = json.loads(text)
    if "muon" in settings:
        return text
    if settings["stage"] == 1:  # had no use for these, which are other ones now
        for name in ("texture_weight", "spectral", "features", "adversarial"):
            settings.pop(name, None)
    return json.dumps(BEFORE | settings)


def exported(checkpoint: Path) -> dict[str, dict[str, Tensor]]:
    """The modules of a checkpoint file by name, averaged where an average has begun."""
    return Checkpoint(checkpoint).exported()


def save(
    path: Path,
    recipe: Recipe,
    averages: Mapping[str, AveragedModel],
    sampler: Mapping[str, object],
    step: int,
    minutes: float,
    sittings: Sequence[Record],
) -> None:
    """Write a checkpoint in place of the one that is there.

    Raises MelcapError, and leaves that one as it is, where the disk is full or a weight is not a
    number any more.
    """
    state = {
        "config": recipe.config.to_json(),
        "step": step,
        "minutes": minutes,
        "sittings": list(sittings),
        "modules": {name: module.state_dict() for name, module in recipe.modules().items()},
        "averages": {name: average.state_dict() for name, average in averages.items()},
        "optimisers": {name: opt.state_dict() for name, opt in recipe.optimisers().items()},
        "sampler": dict(sampler),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }
    for name, module in recipe.modules().items():
        for key, value in module.state_dict().items():
            if isinstance(value, Tensor) and not value.isfinite().all():
                raise MelcapError(
                    f"{name}.{key} is not finite any more at step {step}: {still_there(path)}; go "
                    "on from there with a lower --rate"
                )
    try:
        with replacing(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise MelcapError(
            f"{path}: the checkpoint of step {step} cannot be written ({reason}): "
            f"{still_there(path)}; make room and go on from there"
        ) from error


def still_there(path: Path) -> str:
    """What is left of a run that has to stop."""
    if not path.exists():
        return "nothing was saved before"
    return f"the checkpoint of step {Checkpoint(path).step} is still there"


def resume(
    path: Path,
    recipe: Recipe,
    averages: Mapping[str, AveragedModel],
    device: str,
) -> Checkpoint:
    """Load a checkpoint into a recipe; what it lacks (discriminators, say) begins anew.

    Raises InputError where it is another recipe's, or its settings are not these.
    """
    found = Checkpoint(path, recipe.config.recipe, device)
    if found.config is not None:
        recipe.config.check_resumes(found.config, path)
    kinds: dict[str, Mapping[str, nn.Module | torch.optim.Optimizer]] = {
        "modules": recipe.modules(),
        "averages": averages,
        "optimisers": recipe.optimisers(),
    }
    for kind, parts in kinds.items():
        kept = found.state.get(kind, {})
        for name, part in parts.items():
            if name not in kept:
                continue
            if kind == "optimisers":
                for entry in kept[name]["state"].values():
                    if "step" in entry:
                        entry["step"] = entry["step"].cpu()  # or each step would wait for the GPU
            try:
                part.load_state_dict(kept[name])
            except (RuntimeError, ValueError) as error:
                raise InputError(f"{path}: {name} is of other sizes than these settings") from error
    torch.set_rng_state(found.state["torch"].cpu())
    if found.state.get("cuda") is not None and device.startswith("cuda"):
        torch.cuda.set_rng_state(found.state["cuda"].cpu(), device)
    return found
