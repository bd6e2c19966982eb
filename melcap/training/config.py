"""Every setting of a training run: one frozen dataclass, self-validating, JSON in and out."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melcap.config import CodecConfig
from melcap.errors import InputError
from melcap.training.data import SAMPLE_RATE

MAY_CHANGE = frozenset({"rate", "batch", "columns", "judged"})
"""What a run that goes on may do otherwise than before; discriminators may join it as well."""

_OF_WAVES: dict[str, Any] = {
    **{"betas": (0.8, 0.99), "clip": 10.0, "texture_weight": 1.0},
    **{"spectral": 5.0, "features": 2.0, "adversarial": 1.0},
}
_OWN: dict[str, dict[str, Any]] = {
    "stage1": {},
    "vocoder": {"columns": 10, "rate": 2e-3, **_OF_WAVES},
    "stage2": {"columns": 26, "rate": 7e-4, **_OF_WAVES},
}
"""Where the defaults of a recipe are not those of stage 1."""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(f"training configuration: {message}")


@dataclass(frozen=True)
class TrainingConfig:
    """What a run learns and how: with the data, all that its weights depend on.

    How long a sitting lasts and what it runs on (minutes, device, bfloat16, compiling) are said
    anew each time; a checkpoint keeps a record of them. `of` fills in the recipe's own defaults.

    stage, from_mels: 1, the tokenizer; 2, the vocoder, on true mels or on tokens.
    seed: of the weights and of the order of the data.
    batch, columns: crops in a batch, and supervised columns of tokens in each.
    gain_db, class_weights, narrowed: see `CropSampler`.
    rate, warmup: the highest learning rate, and the steps over which it is reached.
    average: decay of the moving average of the weights, which begins behind the warm-up; at first
    it is less, for an average over the last ninth of the steps since then.
    muon: whether Muon teaches the matrices, and AdamW the rest alone; see `optimisers_of`.
    betas, weight_decay: of AdamW. clip: the norm that gradients are cut to.
    loudness: the power of magnitudes in `loudness_l1`, in all losses of log magnitudes.
    commitment and codebook_*: stage 1, see `CodebookLearner`.
    stft_weight, mel_weight: stage 2, of magnitudes. complex_weight, phase_weight: of phases too.
    decoder_only: stage 1, for a tokenizer that is to stay as it is: its mel decoder learns alone.
    texture_weight: of `roughness_loss` in stage 1, of `texture_loss` in stage 2.
    constant_phase: stage 2, for a vocoder that has learnt phases without it; see `ConstantPhase`.
    discriminators: their width (0: none); of log-mel pictures in stage 1, of waves in stage 2.
    judged: stage 2, the columns of a crop that they hear (None: all).
    spectral, features, adversarial: under discriminators all other losses count `spectral` times,
    beside `features` times feature matching and `adversarial` times the hinge loss.

    Raises InputError for what cannot be.
    """

    stage: int = 1
    from_mels: bool = False
    codec: CodecConfig = field(default_factory=CodecConfig)
    seed: int = 0
    batch: int = 8
    columns: int = 24
    gain_db: tuple[float, float] = (-18.0, 0.0)
    class_weights: Mapping[str, float] = field(default_factory=dict)
    narrowed: float = 0.0
    rate: float = 1.5e-3
    warmup: int = 100
    average: float = 0.999
    muon: bool = True
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0
    loudness: float = 0.3
    commitment: float = 0.25
    codebook_warmup: int = 300
    codebook_decay: float = 0.99
    codebook_dead: float = 0.03
    stft_weight: float = 1.0
    mel_weight: float = 1.0
    complex_weight: float = 0.0
    phase_weight: float = 0.0
    texture_weight: float = 0.0
    decoder_only: bool = False
    constant_phase: bool = False
    discriminators: int = 0
    judged: int | None = None
    spectral: float = 1.0
    features: float = 0.1
    adversarial: float = 0.05

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            _require(_fits(str(setting.type), value), f"{setting.name} cannot be {value!r}")
        _require(self.stage in (1, 2), f"stage must be 1 or 2, not {self.stage}")
        for name in ("from_mels", "constant_phase"):
            _require(self.stage == 2 or not getattr(self, name), f"{name} is for stage 2")
        _require(self.stage == 1 or not self.decoder_only, "decoder_only is for stage 1")
        steps = self.codec.vocoder.griffin_lim_steps
        _require(steps > 0 or not self.constant_phase, "constant_phase needs Griffin-Lim steps")
        _require(
            self.codec.mel.sample_rate == SAMPLE_RATE,
            f"training audio is at {SAMPLE_RATE} Hz, not at {self.codec.mel.sample_rate}",
        )
        for name in ("batch", "columns", "judged", "warmup", "rate", "clip"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{name} must be positive, not {value}")
        for name in ("average", "codebook_decay"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"{name} must be in 0..1 and below 1, not {value}")
        _require(all(0 <= b < 1 for b in self.betas), f"betas must be below 1: {self.betas}")
        _require(0 <= self.narrowed <= 1, f"narrowed must be in 0..1, not {self.narrowed}")
        low, high = self.gain_db
        _require(low <= high <= 0, f"gain_db must be low <= high <= 0, not {self.gain_db}")
        _require(
            all(weight >= 0 for weight in self.class_weights.values()),
            f"class_weights must not be negative: {self.class_weights}",
        )
        for name in (
            *("seed", "weight_decay", "loudness", "commitment", "codebook_warmup", "codebook_dead"),
            *("stft_weight", "mel_weight", "complex_weight", "phase_weight", "texture_weight"),
            *("discriminators", "spectral", "features", "adversarial"),
        ):
            value = getattr(self, name)
            _require(value >= 0, f"{name} must not be negative, not {value}")

    @classmethod
    def of(cls, **settings: Any) -> TrainingConfig:
        """These settings, and the recipe's own for all others.

        `codec` may be what its JSON says. Raises InputError, for a name that is no setting as well,
        and WeightsError for a codec that cannot be.
        """
        known = {setting.name for setting in dataclasses.fields(cls)}
        for name in settings:
            _require(name in known, f"no setting is called {name!r}")
        given: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()
        }
        if not isinstance(given.get("codec", CodecConfig()), CodecConfig):
            given["codec"] = CodecConfig.from_json(json.dumps(given["codec"]))
        stage, from_mels = given.get("stage", 1), given.get("from_mels", False)
        return cls(**{**_OWN[_name(stage, from_mels)], **given})

    @property
    def recipe(self) -> str:
        """stage1, vocoder or stage2: so its checkpoint is called."""
        return _name(self.stage, self.from_mels)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """The reverse of `to_json`; settings may be left out. Raises as `of` does."""
        return cls.of(**_settings(text))

    def check_resumes(self, before: TrainingConfig, where: Path) -> None:
        """Raises InputError, by name, for a setting that a run at `where` cannot go on with."""
        for name, old, new in differences(before, self):
            if name in MAY_CHANGE or (name == "discriminators" and not old):
                continue
            raise InputError(
                f"{where}: this run has {name} {_say(old)}, not {_say(new)}: go on with that, or "
                "start another run in another folder"
            )


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a JSON file, of which some may be left out, for `TrainingConfig.of`.

    Raises InputError where there is no such file, or it holds no JSON object.
    """
    try:
        return _settings(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the settings: {error}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def differences(before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, value before, value after) wherever two configurations of a kind differ."""
    for setting in dataclasses.fields(before):
        old, new = getattr(before, setting.name), getattr(after, setting.name)
        if dataclasses.is_dataclass(old):
            for name, *values in differences(old, new):
                yield f"{setting.name}.{name}", values[0], values[1]
        elif old != new:
            yield setting.name, old, new


def _settings(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"training configuration: not JSON: {error}") from error
    _require(isinstance(found, dict), f"a JSON object was expected, not {text[:40]!r}")
    return dict(found)


def _name(stage: Any, from_mels: Any) -> str:
    return "vocoder" if stage == 2 and from_mels else "stage2" if stage == 2 else "stage1"


def _fits(kind: str, value: Any) -> bool:
    """Whether a value is of the annotated type: JSON may hold anything."""
    if kind.endswith(" | None"):
        return value is None or _fits(kind.removesuffix(" | None"), value)
    if kind in ("int", "bool"):
        return type(value).__name__ == kind
    if kind == "float":
        return type(value) in (int, float) and math.isfinite(value)
    if kind == "tuple[float, float]":
        return (
            isinstance(value, tuple) and len(value) == 2 and all(_fits("float", v) for v in value)
        )
    if kind == "Mapping[str, float]":
        return isinstance(value, Mapping) and all(_fits("float", v) for v in value.values())
    return isinstance(value, CodecConfig)


def _say(value: Any) -> str:
    return json.dumps(value)
