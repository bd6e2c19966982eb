"""Statistics of token sets: hours, and how much of the codebook is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.bulk.token_sets.rows import TokenRow
from melcap.bulk.token_sets.shards import read_rows, token_files
from melcap.errors import InputError
from melcap.io.files import replacing
from melcap.plot.figures import new_figure

EntryCounts = npt.NDArray[np.int64]
"""The number of occurrences of each codebook entry."""


@dataclass
class Summary:
    """Counts over all rows of token sets.

    Attributes:
        clips: the number of clips.
        hours: their length.
        channel_hours: the length of their channels together.
        tokens: the number of tokens.
        tokenizer_id: the tokenizer of all of them.
        models: clips by the name of the weights.
        sample_rates: clips by sample rate.
        channels: clips by number of channels.
        seconds: the length of each clip.
        counts: int64 [rows, codebook size], how often each codebook entry occurs in each row of the
            grid.
    """

    clips: int = 0
    hours: float = 0.0
    channel_hours: float = 0.0
    tokens: int = 0
    tokenizer_id: str = ""
    models: Counter[str] = field(default_factory=Counter)
    sample_rates: Counter[int] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    counts: EntryCounts = field(default_factory=lambda: np.zeros((0, 0), np.int64))

    def add(self, row: TokenRow) -> None:
        """Count a row.

        Raises:
            InputError: if its tokenizer or its grid is not that of the rows before it.
        """
        header, grid = row.header, row.grid
        shape = (header.rows, 1 << header.bits)
        if not self.counts.size:
            self.tokenizer_id, self.counts = header.tokenizer_id, np.zeros(shape, np.int64)
        elif header.tokenizer_id != self.tokenizer_id:
            raise InputError(
                f"{row.id}: its tokenizer is {header.tokenizer_id}, and that of the clips "
                f"before it {self.tokenizer_id}: their tokens cannot be counted together"
            )
        elif self.counts.shape != shape:
            raise InputError(f"{row.id}: its grid differs from that of the clips before it")
        for band, tokens in zip(self.counts, grid.transpose(1, 0, 2), strict=True):
            band += np.bincount(tokens.reshape(-1), minlength=len(band))
        self.clips += 1
        self.hours += row.seconds / 3600
        self.channel_hours += row.seconds * header.channels / 3600
        self.tokens += header.token_count
        self.models[header.model] += 1
        self.sample_rates[header.sample_rate] += 1
        self.channels[header.channels] += 1
        self.seconds.append(row.seconds)

    @property
    def used(self) -> int:
        """The number of codebook entries that occur."""
        return int((self.counts.sum(0) > 0).sum())

    @property
    def entropy(self) -> float:
        """The entropy in bits per token, over all rows of the grid together."""
        return entropy(self.counts.sum(0))

    @property
    def row_entropies(self) -> list[float]:
        """The entropy in bits per token of each row of the grid, the lowest band first."""
        return [entropy(band) for band in self.counts]

    def as_json(self) -> dict[str, Any]:
        """Return the statistics as values that JSON can hold."""
        seconds = np.array(self.seconds)
        quantiles = np.quantile(seconds, (0, 0.25, 0.5, 0.75, 1)).tolist()
        return {
            "clips": self.clips,
            "hours": self.hours,
            "channel_hours": self.channel_hours,
            "tokens": self.tokens,
            "tokenizer_id": self.tokenizer_id,
            "models": dict(self.models),
            "sample_rates": dict(self.sample_rates),
            "channels": dict(self.channels),
            "codebook": int(self.counts.shape[1]),
            "codes_used": self.used,
            "entropy_bits": self.entropy,
            "row_entropy_bits": self.row_entropies,
            "seconds": dict(zip(("min", "25%", "median", "75%", "max"), quantiles, strict=True)),
        }


def entropy(counts: EntryCounts) -> float:
    """Return the entropy, in bits per draw, of a distribution with these counts.

    Example:
        >>> entropy(np.array([4, 4, 0, 8]))
        1.5
    """
    share = counts[counts > 0] / max(int(counts.sum()), 1)
    return float(-(share * np.log2(share)).sum())


def summarise(sets: Sequence[Path]) -> Summary:
    """Read token sets completely, and return their statistics.

    Args:
        sets: folders, Parquet shards, tars or `.melcap` files.

    Raises:
        InputError: if there are no token sets, if they hold no clip, or if their tokenizers or
            grids differ.
        ContainerError: if one is damaged.
    """
    summary = Summary()
    for given in sets:
        for file in token_files(given):
            for row in read_rows(file, given if given.is_dir() else given.parent):
                summary.add(row)
    if not summary.clips:
        raise InputError(f"{', '.join(map(str, sets))} holds no clip")
    return summary


def plot(summary: Summary, target: Path) -> None:
    """Draw the lengths of clips, the frequencies of codebook entries, and each row's entropy."""
    figure = new_figure(12, 3.6)
    lengths, ranks, bands = figure.subplots(1, 3)
    lengths.hist(summary.seconds, bins=40, color="#1f77b4")
    lengths.set(
        title=f"{summary.clips} clips, {summary.hours:.3g} h", xlabel="seconds", yscale="log"
    )
    size = summary.counts.shape[1]
    often = np.sort(summary.counts.sum(0))[::-1][: summary.used]
    ranks.plot(np.arange(1, len(often) + 1), often)
    ranks.set(title=f"{summary.used} of {size} codebook entries, {summary.entropy:.2f} bits")
    ranks.set(xlabel="codebook entry, by frequency", ylabel="times", yscale="log", xscale="log")
    bands.bar(range(len(summary.counts)), summary.row_entropies, color="#1f77b4")
    bands.axhline(np.log2(size), color="grey", linestyle=":")
    bands.set(title="entropy of each row", xlabel="row of the grid, lowest band first")
    bands.set(ylabel="bits per token")
    with replacing(target) as temporary:
        figure.savefig(temporary)
