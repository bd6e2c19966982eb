"""The configuration of a codec of melcap's own architecture, whose default is the lite model."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field

from melcap.config.fields import (
    MAX_LEVELS,
    bounded,
    check_fields,
    parsed,
    require,
    require_name,
    tuples,
)
from melcap.config.mel import MelSpec
from melcap.config.rates import TokenRates, bits_of


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

    channels: tuple[int, ...] = bounded((32, 64, 128), 1, 2**12)
    encoder_blocks: tuple[int, ...] = bounded((1, 3, 4), 0, 64)
    decoder_blocks: tuple[int, ...] = bounded((1, 3, 2), 0, 64)
    codebook_size: int = bounded(8192, 2, 2**16)
    codebook_dim: int = bounded(8, 1, 2**10)
    unit_latents: bool = False
    time_levels: int = bounded(0, 0, MAX_LEVELS)

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            len(self.channels) == len(self.encoder_blocks) == len(self.decoder_blocks) >= 1,
            "channels, encoder_blocks and decoder_blocks must have one entry per level",
        )
        # the Haar patch, which is the first level, halves both
        require(
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
        return bits_of(self.codebook_size)


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

    dim: int = bounded(256, 1, 2**13)
    hidden: int = bounded(512, 1, 2**15)
    blocks: int = bounded(4, 0, 64)
    strides: tuple[int, ...] = bounded((), 1, 2**14)
    stage_channels: tuple[int, ...] = bounded((), 1, 2**13)
    stage_blocks: tuple[int, ...] = bounded((), 0, 64)
    # with 2 the squared windows would not add up to a constant
    head_overlap: int = bounded(4, 3, 16)
    griffin_lim_steps: int = bounded(4, 0, 256)
    griffin_lim_momentum: float = bounded(0.99, 0, 1)

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            len(self.strides) == len(self.stage_channels) == len(self.stage_blocks),
            "strides, stage_channels and stage_blocks must have one entry per upsampling stage",
        )
        require(
            self.griffin_lim_momentum < 1,
            f"griffin_lim_momentum must be below 1, not {self.griffin_lim_momentum}",
        )


@dataclass(frozen=True)
class CodecConfig(TokenRates):
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
        require_name(self.name)
        self.require_whole_rows()
        upsampled = 1
        for stride in self.vocoder.strides:
            upsampled *= stride
        require(
            self.mel.hop % upsampled == 0,
            f"the product of the vocoder's strides ({upsampled}) must divide hop ({self.mel.hop})",
        )
        require(
            not self.vocoder.griffin_lim_steps
            or (self.mel.n_fft % (2 * self.mel.hop) == 0 and self.mel.n_fft > 2 * self.mel.hop),
            "griffin_lim_steps need an n_fft of 4, 6, 8 ... hops, "
            f"not {self.mel.n_fft} with hop {self.mel.hop}",
        )

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
        return parsed(
            text,
            lambda data: cls(
                name=data["name"],
                mel=MelSpec(**data["mel"]),
                tokenizer=TokenizerConfig(**tuples(data["tokenizer"])),
                vocoder=VocoderConfig(**tuples(data["vocoder"])),
            ),
        )
