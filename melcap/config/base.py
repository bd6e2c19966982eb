"""The configuration of the published architecture, whose default is the size of its checkpoints."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from melcap.config.fields import (
    MAX_LEVELS,
    bounded,
    check_fields,
    one_of,
    parsed,
    require,
    require_name,
    tuples,
)
from melcap.config.mel import MelSpec
from melcap.config.rates import TokenRates, bits_of

ARCHITECTURE = "base"
"""The value of `architecture` in the JSON of such a configuration."""
GROUPS = 32
"""Groups of channels that a norm treats separately."""
SHORTEST_WINDOW = 12
"""The fewest columns of a window, unless the clip is shorter: the length of a training crop."""


@dataclass(frozen=True)
class BaseTokenizerConfig:
    """The 2D tokenizer: a Haar patch, and a level for each of `multipliers`, finest first.

    Every level but the last is followed by a halving of mel bins and frames.

    Attributes:
        channels: channels of the first convolution.
        multipliers: channels of each level, in multiples of `channels`.
        encoder_blocks: residual blocks of each level of the encoder.
        decoder_blocks: residual blocks of each level of the mel decoder.
        attention_levels: the levels, from 0, that have attention after each block.
        activation: the activation of all residual blocks, "tanh" or "silu".
        z_channels: channels of the latents before they are projected to `codebook_dim`.
        codebook_size: entries of the codebook.
        codebook_dim: numbers of a codebook entry.
        window_columns: columns that are coded together. Nothing depends on audio beyond them.

    Raises:
        WeightsError: for a value of another type or out of range, or channels that do not fit.
    """

    channels: int = bounded(128, 1, 2**12)
    multipliers: tuple[int, ...] = bounded((2, 4, 4), 1, 64)
    encoder_blocks: int = bounded(2, 1, 16)
    decoder_blocks: int = bounded(3, 1, 16)
    attention_levels: tuple[int, ...] = bounded((2,), 0, MAX_LEVELS - 1)
    activation: str = one_of("tanh", "silu")
    z_channels: int = bounded(256, 1, 2**12)
    codebook_size: int = bounded(8192, 2, 2**16)
    codebook_dim: int = bounded(64, 1, 2**10)
    window_columns: int = bounded(216, SHORTEST_WINDOW, 2**16)

    def __post_init__(self) -> None:
        check_fields(self)
        require(len(self.multipliers) >= 1, "multipliers must have one entry per level")
        require(
            self.channels % GROUPS == 0,
            f"channels must be a multiple of {GROUPS}, not {self.channels}",
        )
        require(
            all(level < len(self.multipliers) for level in self.attention_levels),
            f"attention_levels must be below {len(self.multipliers)}, not {self.attention_levels}",
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the channels of each level, finest first."""
        return tuple(self.channels * each for each in self.multipliers)

    @property
    def patch_bins(self) -> int:
        """Return the number of mel bins that one token stands for."""
        return 2 ** len(self.multipliers)

    @property
    def patch_frames(self) -> int:
        """Return the number of mel frames that one token stands for."""
        return self.patch_bins

    @property
    def bits(self) -> int:
        """Return the number of bits of one token."""
        return bits_of(self.codebook_size)


@dataclass(frozen=True)
class BaseVocoderConfig:
    """The vocoder, Vocos: ConvNeXt blocks at the frame rate, and an inverse STFT.

    Attributes:
        dim: channels of the blocks.
        hidden: channels within the blocks.
        blocks: number of blocks.

    Raises:
        WeightsError: for a value of another type or out of range.
    """

    dim: int = bounded(512, 1, 2**13)
    hidden: int = bounded(1536, 1, 2**15)
    blocks: int = bounded(8, 0, 64)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class BaseConfig(TokenRates):
    """A whole codec of the published architecture: front end, tokenizer and vocoder.

    Attributes:
        name: of the model, in 1 to 64 printable ASCII characters.
        mel: the front end.
        tokenizer: the 2D tokenizer.
        vocoder: the vocoder.

    Raises:
        WeightsError: where the parts do not fit together.

    Example:
        >>> from melcap.config import BaseConfig
        >>> base = BaseConfig()
        >>> base.rows, base.column_samples, base.tokenizer.bits
        (12, 2048, 13)
    """

    name: str = "melcap-base"
    mel: MelSpec = field(default_factory=lambda: MelSpec(floor=1e-7, mean=0.0, std=5.0))
    tokenizer: BaseTokenizerConfig = field(default_factory=BaseTokenizerConfig)
    vocoder: BaseVocoderConfig = field(default_factory=BaseVocoderConfig)

    def __post_init__(self) -> None:
        require_name(self.name)
        self.require_whole_rows()
        require(
            self.mel.n_fft == 4 * self.mel.hop,
            f"n_fft must be 4 hops, not {self.mel.n_fft} with hop {self.mel.hop}",
        )

    def to_json(self) -> str:
        """Return the configuration as JSON, for `from_json` to read."""
        return json.dumps({"architecture": ARCHITECTURE, **dataclasses.asdict(self)}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> BaseConfig:
        """Return the configuration that `to_json` wrote.

        Raises:
            WeightsError: for a text that is not such a configuration.
        """
        return parsed(
            text,
            lambda data: cls(
                name=data["name"],
                mel=MelSpec(**data["mel"]),
                tokenizer=BaseTokenizerConfig(**tuples(data["tokenizer"])),
                vocoder=BaseVocoderConfig(**data["vocoder"]),
            ),
        )
