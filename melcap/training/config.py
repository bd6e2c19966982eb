"""The settings of a training run: one frozen dataclass that checks itself, to JSON and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melcap.config import CodecConfig
from melcap.errors import InputError
from melcap.training.audio_cache import SAMPLE_RATE
from melcap.training.checks import CHECKS, check, parsed, require
from melcap.training.settings_files import json_object

MAY_CHANGE = frozenset({"rate", "batch", "columns", "discriminator_columns"})
"""Settings that may change when a run resumes; discriminators may be added as well."""
_OF_DISCRIMINATORS = frozenset({"discriminators", "discriminator_kind"})

_OF_WAVES: dict[str, Any] = {
    "betas": (0.8, 0.99),
    "clip": 10.0,
    "texture_weight": 1.0,
    "spectral": 5.0,
    "features": 2.0,
    "adversarial": 1.0,
}
_OWN: dict[str, dict[str, Any]] = {
    "stage1": {},
    "vocoder": {"columns": 10, "rate": 2e-3, **_OF_WAVES},
    "stage2": {"columns": 26, "rate": 7e-4, **_OF_WAVES},
    "joint": {
        "stage": 2,
        "columns": 26,
        "rate": 7e-4,
        "constant_phase": True,
        "codebook_decay": 0.999,
        **_OF_WAVES,
    },
}
"""The defaults of each recipe that differ from those of stage 1."""


@dataclass(frozen=True)
class TrainingConfig:
    """The settings that, with the data, determine the weights of a training run.

    How long a session lasts and what it runs on (minutes, device, bfloat16, compiling) is given to
    each session; a checkpoint keeps a record of it. `of` fills in the defaults of the recipe.

    Attributes:
        stage: 1 trains the tokenizer, 2 the vocoder.
        from_mels: stage 2 on true mels instead of tokens.
        joint: stage 2 trains encoder and codebook too; see `Joint`.
        codec: the configuration of the codec.
        seed: the seed of the weights and of the order of the data.
        batch: the number of crops in a batch.
        columns: the number of supervised columns in a crop.
        gain_db: see `CropSampler`.
        class_weights: see `CropSampler`.
        narrowed: see `CropSampler`.
        rate: the highest learning rate.
        warmup: the number of steps over which the learning rate rises.
        average: the decay of the moving average of the weights. It begins after the warm-up; at
            first the decay is less, so that the average is over the last ninth of the steps.
        muon: Muon trains the matrices, and AdamW the rest; see `optimisers_of`.
        betas: the betas of AdamW.
        weight_decay: the weight decay of both optimisers.
        clip: the norm that gradients are clipped to.
        loudness: the power of magnitudes in `loudness_l1`, in all losses of log magnitudes.
        encoder_rate: joint, the learning rate of the encoder as a share of that of the rest.
        commitment: stage 1 and joint, the weight of the commitment loss.
        picture_weight: joint, the weight of the L1 loss of stage 1 on the mel decoder's picture.
        codebook_warmup: stage 1, see `EmaCodebook`.
        codebook_decay: stage 1 and joint, see `EmaCodebook`.
        codebook_dead: stage 1 and joint, see `EmaCodebook`.
        stft_weight: stage 2, the weight of `multi_resolution_stft_loss`.
        mel_weight: stage 2, the weight of `multi_scale_mel_loss`.
        complex_weight: stage 2, the weight of `complex_stft_loss`.
        phase_weight: stage 2, the weight of `phase_loss`.
        texture_weight: the weight of `roughness_loss` in stage 1, of `texture_loss` in stage 2.
        decoder_only: stage 1 trains the mel decoder alone, for a tokenizer that does not change.
        constant_phase: stage 2, for a vocoder that was trained without it; see `ConstantPhase`.
        discriminators: the width of the discriminators; 0 trains without. They are of log-mel
            pictures in stage 1.
        discriminator_kind: stage 2, "waves" for discriminators of samples and complex spectra,
            "magnitudes" for one of log magnitudes alone; see `MagnitudeDiscriminator`.
        discriminator_columns: stage 2, the number of columns of a crop that the discriminators
            see; None for all.
        spectral: with discriminators, the factor of all other losses.
        features: with discriminators, the weight of feature matching.
        adversarial: with discriminators, the weight of the generator's hinge loss.

    Raises:
        InputError: for a setting, or a combination of settings, that is not possible.
    """

    stage: int = 1
    from_mels: bool = False
    joint: bool = False
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
    encoder_rate: float = 0.1
    commitment: float = 0.25
    picture_weight: float = 0.0
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
    discriminator_kind: str = "waves"
    discriminator_columns: int | None = None
    spectral: float = 1.0
    features: float = 0.1
    adversarial: float = 0.05

    def __post_init__(self) -> None:
        for name in CHECKS:
            check(name, getattr(self, name))
        require(
            not self.joint or (self.stage == 2 and not self.from_mels),
            "joint is stage 2 on tokens: it goes neither with stage 1 nor with from_mels",
        )
        require(self.stage == 2 or not self.from_mels, "from_mels is for stage 2 alone")
        require(self.stage == 2 or not self.constant_phase, "constant_phase is for stage 2 alone")
        require(
            self.stage == 2 or self.discriminator_kind == "waves",
            "discriminator_kind is for stage 2 alone",
        )
        require(
            self.joint or not self.picture_weight, "picture_weight is for the joint stage alone"
        )
        require(self.stage == 1 or not self.decoder_only, "decoder_only is for stage 1 alone")
        require(
            not self.constant_phase or self.codec.vocoder.griffin_lim_steps > 0,
            "constant_phase needs a codec with Griffin-Lim steps: give it vocoder.griffin_lim_steps"
            " of at least 1",
        )
        require(
            self.codec.mel.sample_rate == SAMPLE_RATE,
            f"the codec is for {self.codec.mel.sample_rate} Hz: its mel.sample_rate must be "
            f"{SAMPLE_RATE}, the rate of the training audio",
        )

    @classmethod
    def of(cls, **settings: Any) -> TrainingConfig:
        """Return a configuration with these settings, and the recipe's own for all others.

        Args:
            settings: settings by name, with lists for pairs, and a codec as its JSON has it, where
                they come from JSON.

        Raises:
            InputError: for a name that is no setting, and for what is not possible.
            WeightsError: for a codec that is not possible.
        """
        given = {name: parsed(name, value) for name, value in settings.items()}
        recipe = _recipe_name(
            given.get("stage", 1), given.get("from_mels", False), given.get("joint", False)
        )
        return cls(**{**_OWN[recipe], **given})

    @property
    def recipe(self) -> str:
        """Return the name of the recipe and its checkpoint: stage1, vocoder, stage2 or joint."""
        return _recipe_name(self.stage, self.from_mels, self.joint)

    def to_json(self) -> str:
        """Return all settings as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """Return the configuration that a JSON object says; settings may be left out.

        Raises:
            InputError: for text that is no JSON object, and as `of` does.
            WeightsError: for a codec that is not possible.
        """
        return cls.of(**json_object(text))

    def check_resumes(self, before: TrainingConfig, where: Path) -> None:
        """Refuse settings that the run at `where`, of which `before` are the settings, cannot take.

        Raises:
            InputError: naming the first such setting.
        """
        for name, old, new in differences(before, self):
            joins = name in _OF_DISCRIMINATORS and not before.discriminators
            if name in MAY_CHANGE or joins:
                continue
            raise InputError(
                f"{where}: this run has {name} {json.dumps(old)}, not {json.dumps(new)}: resume it "
                "with its own setting, or start another run in another folder"
            )


def differences(before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, value before, value after) where two configurations of one class differ."""
    for setting in dataclasses.fields(before):
        old, new = getattr(before, setting.name), getattr(after, setting.name)
        if dataclasses.is_dataclass(old):
            for name, *values in differences(old, new):
                yield f"{setting.name}.{name}", values[0], values[1]
        elif old != new:
            yield setting.name, old, new


def _recipe_name(stage: int, from_mels: bool, joint: bool) -> str:
    if joint:
        return "joint"
    if stage == 1:
        return "stage1"
    return "vocoder" if from_mels else "stage2"
