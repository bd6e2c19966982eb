"""Plans of ablations.

A plan is a JSON object:

    {"minutes": 6, "settings": {"stage": 1, "columns": 48}, "options": ["--bf16"],
     "variants": [{"name": "as it is"}, {"name": "decay 0.9", "settings": {"codebook_decay": 0.9}}]}

The settings of a variant override those of the plan. A "codec" among them needs to say only what
differs from the lite one. Options of a variant are added to those of the plan.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melcap.config import CodecConfig
from melcap.errors import InputError, MelcapError
from melcap.training.config import TrainingConfig
from melcap.training.settings_files import read_json


@dataclass(frozen=True)
class Variant:
    """A training run of an ablation.

    Attributes:
        name: what the tables call it.
        config: its settings.
        options: options of `melcap train`.
    """

    name: str
    config: TrainingConfig
    options: Sequence[str]

    def checkpoint(self, out: Path) -> Path:
        """Return the folder of the checkpoint, in the folder of the ablation."""
        return out / re.sub(r"\W+", "-", self.name).strip("-") / self.config.recipe


@dataclass(frozen=True)
class Plan:
    """Variants, of which each is trained for some minutes."""

    minutes: float
    variants: Sequence[Variant]


def read_plan(path: Path) -> Plan:
    """Return the plan in a JSON file.

    Raises:
        InputError: naming the file, where it cannot be read or is no plan, and for settings that
            are not possible.
    """
    found = read_json(path)
    try:
        shared, options = found.get("settings", {}), found.get("options", [])
        variants = [
            Variant(
                given["name"],
                TrainingConfig.of(**_merged({"codec": {}}, shared, given.get("settings", {}))),
                [*options, *given.get("options", [])],
            )
            for given in found["variants"]
        ]
        minutes = float(found["minutes"])
    except MelcapError as error:
        raise InputError(f"{path}: not a plan of an ablation: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: not a plan of an ablation: {error!r}") from error
    folders = {variant.checkpoint(Path()).parent for variant in variants}
    if minutes <= 0:
        raise InputError(f"{path}: minutes must be above 0, not {minutes:g}")
    if not folders or len(folders) < len(variants):
        raise InputError(f"{path}: a plan needs variants, each with a name of its own")
    # Stage 2 and the joint stage both make a whole codec, which the same measures are of.
    recipes = {variant.config.recipe for variant in variants}
    if len(recipes) > 1 and recipes != {"stage2", "joint"}:
        raise InputError(f"{path}: its variants are of different recipes, which do not compare")
    return Plan(minutes, variants)


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with later ones over earlier ones, and a codec's over those of lite."""
    merged: dict[str, Any] = {}
    codec = dataclasses.asdict(CodecConfig())
    for layer in layers:
        merged |= layer
        for part, values in layer.get("codec", {}).items():
            codec[part] = codec[part] | values if isinstance(values, Mapping) else values
    return merged | {"codec": codec}
