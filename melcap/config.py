"""Every hyper-parameter of a codec: frozen dataclasses, self-validating, JSON in and out."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from melcap.errors import WeightsError


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise WeightsError(f"configuration: {message}")


@dataclass(frozen=True)
class MelSpec:
    """The log-mel front end: periodic Hann window, magnitude, HTK mel filters, natural log, affine.

    A frame is centred on the hop it stands for: frame t covers the `n_fft` samples around
    [t * hop, (t + 1) * hop). A value is (ln(max(mel, floor)) - mean) / std.
    """

    sample_rate: int = 44100
    n_fft: int = 1024
    hop: int = 256
    n_mels: int = 96
    floor: float = 1e-3
    mean: float = -2.0
    std: float = 2.8

    def __post_init__(self) -> None:
        _require(self.sample_rate > 0, f"sample_rate must be positive, not {self.sample_rate}")
        _require(
            0 < self.hop <= self.n_fft and (self.n_fft - self.hop) % 2 == 0,
            f"hop must be in 1..n_fft and n_fft - hop even, not {self.hop} and {self.n_fft}",
        )
        _require(self.n_mels > 0, f"n_mels must be positive, not {self.n_mels}")
        _require(
            self.floor > 0 and self.std > 0,
            f"floor and std must be positive, not {self.floor} and {self.std}",
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

    channels: tuple[int, ...] = (32, 64, 128)
    encoder_blocks: tuple[int, ...] = (1, 3, 4)
    decoder_blocks: tuple[int, ...] = (1, 3, 2)
    codebook_size: int = 8192
    codebook_dim: int = 8
    unit_latents: bool = False
    time_levels: int = 0

    def __post_init__(self) -> None:
        _require(
            len(self.channels) == len(self.encoder_blocks) == len(self.decoder_blocks) >= 1,
            "channels, encoder_blocks and decoder_blocks must have one entry per level",
        )
        _require(
            2 <= self.codebook_size <= 65536,
            f"codebook_size must be in 2..65536, not {self.codebook_size}",
        )
        _require(self.codebook_dim >= 1, f"codebook_dim must be positive, not {self.codebook_dim}")
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

    dim: int = 256
    hidden: int = 512
    blocks: int = 4
    strides: tuple[int, ...] = ()
    stage_channels: tuple[int, ...] = ()
    stage_blocks: tuple[int, ...] = ()
    head_overlap: int = 4
    griffin_lim_steps: int = 4
    griffin_lim_momentum: float = 0.99

    def __post_init__(self) -> None:
        _require(
            len(self.strides) == len(self.stage_channels) == len(self.stage_blocks),
            "strides, stage_channels and stage_blocks must have one entry per upsampling stage",
        )
        _require(
            all(stride >= 1 for stride in self.strides), f"strides must be positive: {self.strides}"
        )
        # with 2 the squared windows would not add up to a constant
        _require(self.head_overlap >= 3, f"head_overlap must be 3 or more, not {self.head_overlap}")
        _require(
            self.griffin_lim_steps >= 0,
            f"griffin_lim_steps must not be negative, not {self.griffin_lim_steps}",
        )
        _require(
            0 <= self.griffin_lim_momentum < 1,
            f"griffin_lim_momentum must be in 0..1 and below 1, not {self.griffin_lim_momentum}",
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
        """Raises `WeightsError` where the text is not such a configuration."""
        try:
            data: Mapping[str, Any] = json.loads(text)
            return cls(
                name=str(data["name"]),
                mel=MelSpec(**data["mel"]),
                tokenizer=TokenizerConfig(**_tuples(data["tokenizer"])),
                # weights from before there were such steps
                vocoder=VocoderConfig(**{"griffin_lim_steps": 0, **_tuples(data["vocoder"])}),
            )
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"not a melcap configuration: {error}") from error


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
