"""The configuration of a codec: frozen dataclasses that check themselves, to and from JSON."""

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
"""The most characters of a configuration as JSON; a real one has about a thousand."""
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
    """Return a field for a number from `low` to `high`, or for a tuple of such numbers.

    A weights file may come from anywhere, and its network is built before its weights are read. The
    bounds are far beyond what is useful.
    """
    return field(default=default, metadata={"bounds": (low, high)})


def _check_bounds(config: Any) -> None:
    """Check the type of every field of a configuration, and the bounds of its numbers."""
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

    A frame is centred on its hop: frame t covers the `n_fft` samples around
    [t * hop, (t + 1) * hop). A value is (ln(max(mel, floor)) - mean) / std.

    Attributes:
        sample_rate: of the audio, in Hz.
        n_fft: samples of a window.
        hop: samples from one frame to the next.
        n_mels: mel bins, from 0 Hz to half the sample rate.
        floor: the smallest mel magnitude.
        mean: what is subtracted from the logarithm.
        std: what the difference is divided by.

    Raises:
        WeightsError: for a value of another type, or out of range.

    Example:
        >>> from melcap.config import MelSpec
        >>> MelSpec(sample_rate=16000, n_fft=512, hop=128).margin
        192
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
        """Return how many samples a frame covers beyond its hop, on each side."""
        return (self.n_fft - self.hop) // 2


@dataclass(frozen=True)
class TokenizerConfig:
    """The 2D tokenizer: a Haar patch, then a strided level for each of `channels` but the first.

    Attributes:
        channels: channels of each level, finest first.
        encoder_blocks: residual blocks of each level of the encoder.
        decoder_blocks: residual blocks of each level of the mel decoder.
        codebook_size: entries of the codebook.
        codebook_dim: numbers of a codebook entry.
        unit_latents: whether latents and entries are directions, compared by their cosine.
        time_levels: how many of the coarsest levels halve frames alone. All others halve both mel
            bins and frames.

    Raises:
        WeightsError: for a value of another type or out of range, or levels that do not fit.
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
        """Return the number of bits of one token."""
        return (self.codebook_size - 1).bit_length()


@dataclass(frozen=True)
class VocoderConfig:
    """The vocoder: ConvNeXt blocks at the frame rate, upsampling stages, and an iSTFT head.

    Griffin-Lim steps on the STFT of the front end follow the head. They have no weights, and
    decoding may take more of them than training did. The lite model has no upsampling stage
    (docs/ablations.md).

    Attributes:
        dim: channels of the blocks at the frame rate.
        hidden: channels within these blocks.
        blocks: number of these blocks.
        strides: factor by which each upsampling stage multiplies the rate.
        stage_channels: channels that each upsampling stage returns.
        stage_blocks: ConvNeXt blocks of each upsampling stage.
        head_overlap: length of the head's window, in its hops.
        griffin_lim_steps: number of Griffin-Lim steps.
        griffin_lim_momentum: of these steps.

    Raises:
        WeightsError: for a value of another type or out of range, or stages that do not fit.
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
    """A whole codec: front end, tokenizer and vocoder.

    Attributes:
        name: of the model, in 1 to 64 printable ASCII characters.
        mel: the front end.
        tokenizer: the 2D tokenizer.
        vocoder: the vocoder.

    Raises:
        WeightsError: where the parts do not fit together.

    Example:
        >>> from melcap.config import CodecConfig
        >>> lite = CodecConfig()
        >>> lite.rows, lite.column_samples, lite.tokenizer.bits
        (12, 2048, 13)
    """

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
        """Return the number of tokens in one column."""
        return self.mel.n_mels // self.tokenizer.patch_bins

    @property
    def column_samples(self) -> int:
        """Return the number of samples that one column of tokens stands for."""
        return self.mel.hop * self.tokenizer.patch_frames

    @property
    def frame_rate(self) -> float:
        """Return the number of columns per second."""
        return self.mel.sample_rate / self.column_samples

    @property
    def tokens_per_second(self) -> float:
        """Return the number of tokens per second, for one channel."""
        return self.rows * self.mel.sample_rate / self.column_samples

    @property
    def bits_per_second(self) -> float:
        """Return the number of bits per second, for one channel."""
        return self.tokens_per_second * self.tokenizer.bits

    def to_json(self) -> str:
        """Return the configuration as JSON, for `from_json` to read."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> CodecConfig:
        """Return the configuration that `to_json` wrote.

        Fields of the three parts that are missing take their defaults.

        Raises:
            WeightsError: for a text that is not such a configuration.
        """
        _require(len(text) <= MAX_TEXT, f"{len(text)} characters of JSON are more than {MAX_TEXT}")
        try:
            data: Mapping[str, Any] = json.loads(text)
            return cls(
                name=data["name"],
                mel=MelSpec(**data["mel"]),
                tokenizer=TokenizerConfig(**_tuples(data["tokenizer"])),
                vocoder=VocoderConfig(**_tuples(data["vocoder"])),
            )
        except RecursionError:
            raise WeightsError("not a melcap configuration: JSON nested too deeply") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # huge numbers too
            raise WeightsError(f"not a melcap configuration: {error}") from error


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a part with tuples in place of the lists of JSON."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
