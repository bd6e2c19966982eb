"""Every hyper-parameter of a codec: frozen dataclasses, self-validating, JSON in and out."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from melcap.errors import WeightsError
from melcap.limits import MAX_RATE, MIN_RATE

MAX_TEXT = 1 << 20
"""Characters of a configuration as JSON; a real one has about a thousand."""
_NAME = re.compile("[ -~]{1,64}")
_MAX_LEVELS = 8
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "a truth value",
    tuple: f"at most {_MAX_LEVELS} whole numbers",
}


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise WeightsError(f"configuration: {message}")


def _bounded(default: Any, low: float, high: float) -> Any:
    """Return a field for numbers from `low` to `high`: all of them, where it is a tuple.

    A weights file may come from anywhere, and what it asks for is built before its weights are
    looked at. The bounds are far beyond what is useful.
    """
    return field(default=default, metadata={"bounds": (low, high)})


def _check_bounds(config: Any) -> None:
    """Check the type of every field of a configuration, and that its numbers are within bounds."""
    for each in dataclasses.fields(config):
        value, kind = getattr(config, each.name), type(each.default)
        low, high = each.metadata.get("bounds", (False, True))
        numbers = value if kind is tuple else (value,)
        allowed = {tuple: (int,), float: (float, int)}.get(kind, (kind,))
        _require(
            isinstance(numbers, tuple)
            and len(numbers) <= _MAX_LEVELS
            and all(type(number) in allowed and low <= number <= high for number in numbers),
            f"{each.name} must be {_KINDS[kind]} from {low:g} to {high:g}, not {value!r:.80}",
        )


@dataclass(frozen=True)
class MelSpec:
    """The log-mel front end: periodic Hann window, magnitude, HTK mel filters, natural log, affine.

    A frame is centred on the hop it stands for: frame t covers the `n_fft` samples around
    [t * hop, (t + 1) * hop). A value is (ln(max(mel, floor)) - mean) / std.
    """

    sample_rate: int = _bounded(44100, MIN_RATE, MAX_RATE)
    n_fft: int = _bounded(1024, 1, 2**14)
    hop: int = _bounded(256, 1, 2**14)
    n_mels: int = _bounded(96, 1, 2**10)
    floor: float = _bounded(1e-3, 1e-30, 1e6)
    mean: float = _bounded(-2.0, -1e6, 1e6)
    std: float = _bounded(2.8, 1e-6, 1e6)

    def __post_init__(self) -> None:
        _check_bounds(self)
        _require(
            self.hop <= self.n_fft and (self.n_fft - self.hop) % 2 == 0,
            f"hop must be in 1..n_fft and n_fft - hop even, not {self.hop} and {self.n_fft}",
        )

    @property
    def margin(self) -> int:
        """Samples that a frame reaches beyond its own hop, on each side."""
        return (self.n_fft - self.hop) // 2


@dataclass(frozen=True)
class TokenizerConfig:
    """The 2D tokenizer: a Haar patch, then a strided level for each of `channels` but the first.

    `encoder_blocks` and `decoder_blocks` count the residual blocks of each level, finest first.
    With `unit_latents` latents and codes are directions, compared by their cosine. A level halves
    mel bins and frames, but the `time_levels` coarsest levels halve frames alone.
    """

    channels: tuple[int, ...] = _bounded((32, 64, 128), 1, 2**12)
    encoder_blocks: tuple[int, ...] = _bounded((1, 3, 4), 0, 64)
    decoder_blocks: tuple[int, ...] = _bounded((1, 3, 2), 0, 64)
    codebook_size: int = _bounded(8192, 2, 2**16)
    codebook_dim: int = _bounded(8, 1, 2**10)
    unit_latents: bool = False
    time_levels: int = _bounded(0, 0, _MAX_LEVELS)

    def __post_init__(self) -> None:
        _check_bounds(self)
        _require(
            len(self.channels) == len(self.encoder_blocks) == len(self.decoder_blocks) >= 1,
            "channels, encoder_blocks and decoder_blocks must have one entry per level",
        )
        # the Haar patch, which is the first level, halves both
        _require(
            0 <= self.time_levels < len(self.channels),
            f"time_levels must be in 0..{len(self.channels) - 1}, fewer than the levels, "
            f"not {self.time_levels}",
        )

    @property
    def level_strides(self) -> tuple[tuple[int, int], ...]:
        """Return the stride (mel bins, frames) of each level, finest first, Haar patch included."""
        both = len(self.channels) - self.time_levels
        return ((2, 2),) * both + ((1, 2),) * self.time_levels

    @property
    def patch_bins(self) -> int:
        """Return the number of mel bins that one token stands for."""
        return math.prod(bins for bins, _ in self.level_strides)

    @property
    def patch_frames(self) -> int:
        """Return the number of mel frames that one token stands for."""
        return math.prod(frames for _, frames in self.level_strides)

    @property
    def bits(self) -> int:
        """Bits of one token."""
        return (self.codebook_size - 1).bit_length()


@dataclass(frozen=True)
class VocoderConfig:
    """The vocoder: ConvNeXt blocks at the frame rate, upsampling stages, and an iSTFT head.

    Stage i multiplies the rate by `strides[i]`, leaves `stage_channels[i]` channels, and has
    `stage_blocks[i]` ConvNeXt blocks; lite has no such stage (docs/ablations.md). The head's window
    is `head_overlap` of its hops long. Behind it come `griffin_lim_steps`, on the STFT of the front
    end: these have no weights, and a trained codec may take more of them than it learnt with.
    """

    dim: int = _bounded(256, 1, 2**13)
    hidden: int = _bounded(512, 1, 2**15)
    blocks: int = _bounded(4, 0, 64)
    strides: tuple[int, ...] = _bounded((), 1, 2**14)
    stage_channels: tuple[int, ...] = _bounded((), 1, 2**13)
    stage_blocks: tuple[int, ...] = _bounded((), 0, 64)
    # with 2 the squared windows would not add up to a constant
    head_overlap: int = _bounded(4, 3, 16)
    griffin_lim_steps: int = _bounded(4, 0, 256)
    griffin_lim_momentum: float = _bounded(0.99, 0, 1)

    def __post_init__(self) -> None:
        _check_bounds(self)
        _require(
            len(self.strides) == len(self.stage_channels) == len(self.stage_blocks),
            "strides, stage_channels and stage_blocks must have one entry per upsampling stage",
        )
        _require(
            self.griffin_lim_momentum < 1,
            f"griffin_lim_momentum must be below 1, not {self.griffin_lim_momentum}",
        )


@dataclass(frozen=True)
class CodecConfig:
    """A whole codec: front end, tokenizer, vocoder."""

    name: str = "melcap-lite"
    mel: MelSpec = field(default_factory=MelSpec)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)

    def __post_init__(self) -> None:
        _require(
            isinstance(self.name, str) and _NAME.fullmatch(self.name) is not None,
            f"name must be 1 to 64 printable ASCII characters, not {self.name!r:.80}",
        )
        _require(
            self.mel.n_mels % self.tokenizer.patch_bins == 0,
            f"n_mels must be a multiple of {self.tokenizer.patch_bins}, not {self.mel.n_mels}",
        )
        upsampled = 1
        for stride in self.vocoder.strides:
            upsampled *= stride
        _require(
            self.mel.hop % upsampled == 0,
            f"the product of the vocoder's strides ({upsampled}) must divide hop ({self.mel.hop})",
        )
        _require(
            not self.vocoder.griffin_lim_steps
            or (self.mel.n_fft % (2 * self.mel.hop) == 0 and self.mel.n_fft > 2 * self.mel.hop),
            "griffin_lim_steps need an n_fft of 4, 6, 8 ... hops, "
            f"not {self.mel.n_fft} with hop {self.mel.hop}",
        )

    @property
    def rows(self) -> int:
        """Tokens of one column."""
        return self.mel.n_mels // self.tokenizer.patch_bins

    @property
    def column_samples(self) -> int:
        """Samples that one column of tokens stands for."""
        return self.mel.hop * self.tokenizer.patch_frames

    @property
    def tokens_per_second(self) -> float:
        return self.rows * self.mel.sample_rate / self.column_samples

    @property
    def bits_per_second(self) -> float:
        return self.tokens_per_second * self.tokenizer.bits

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> CodecConfig:
        """Return the configuration that `to_json` wrote.

        Raises:
            WeightsError: where the text is not such a configuration.
        """
        _require(len(text) <= MAX_TEXT, f"{len(text)} characters of JSON, more than {MAX_TEXT}")
        try:
            data: Mapping[str, Any] = json.loads(text)
            return cls(
                name=data["name"],
                mel=MelSpec(**data["mel"]),
                tokenizer=TokenizerConfig(**_tuples(data["tokenizer"])),
                # weights from before there were such steps
                vocoder=VocoderConfig(**{"griffin_lim_steps": 0, **_tuples(data["vocoder"])}),
            )
        except RecursionError:
            raise WeightsError("not a melcap configuration: JSON nested too deeply") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # also: huge numbers
            raise WeightsError(f"not a melcap configuration: {error}") from error


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
