"""The rates of tokens that follow from a configuration, in every architecture."""

from __future__ import annotations

from typing import Protocol

from melcap.config.fields import require
from melcap.config.mel import MelSpec


def bits_of(codebook_size: int) -> int:
    """Return the number of bits of a token from a codebook of so many entries."""
    return (codebook_size - 1).bit_length()


class Grid(Protocol):
    """The configuration of a tokenizer, as far as rates depend on it."""

    @property
    def patch_bins(self) -> int:
        """Return the number of mel bins that one token stands for."""

    @property
    def patch_frames(self) -> int:
        """Return the number of mel frames that one token stands for."""

    @property
    def bits(self) -> int:
        """Return the number of bits of one token."""


class TokenRates:
    """The rates of a configuration with a front end, `mel`, and a `tokenizer`."""

    mel: MelSpec
    tokenizer: Grid

    def require_whole_rows(self) -> None:
        """Raise a WeightsError unless the mel bins make up whole rows of tokens."""
        bins = self.tokenizer.patch_bins
        require(
            self.mel.n_mels % bins == 0,
            f"n_mels must be a multiple of {bins}, not {self.mel.n_mels}",
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
