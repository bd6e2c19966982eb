"""Statistics of token sets: hours, and the use of the codebook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.bulk.rows import TokenRow
from melcap.bulk.shards import read_rows, token_files
from melcap.errors import InputError
from melcap.io.files import replacing
from melcap.plot.figures import new_figure

Counts = npt.NDArray[np.int64]


@dataclass
class Summary:
    """Counts of all rows together. `hours` are of the clips, `channel_hours` of their channels."""

    clips: int = 0
    hours: float = 0.0
    channel_hours: float = 0.0
    tokens: int = 0
    tokenizer_id: str = ""
    models: Counter[str] = field(default_factory=Counter)
    sample_rates: Counter[int] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """Lengths of the clips."""
    counts: Counts = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """[rows, codebook size]: how often each code stands in each row of the grid."""

    def add(self, row: TokenRow) -> None:
        header, grid = row.header, row.grid
        shape = (header.rows, 1 << header.bits)
        if not self.counts.size:
            self.tokenizer_id, self.counts = header.tokenizer_id, np.zeros(shape, np.int64)
        elif header.tokenizer_id != self.tokenizer_id:
            raise InputError(
                f"{row.id}: is of tokenizer {header.tokenizer_id}, and the clips before it are of "
                f"{self.tokenizer_id}: their tokens cannot be counted together"
            )
        elif self.counts.shape != shape:
            raise InputError(f"{row.id}: is of another grid than the clips before it")
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
        """Number of codes that occur."""
        return int((self.counts.sum(0) > 0).sum())

    @property
    def entropy(self) -> float:
        """Bits per token, of the codes' frequencies in all rows of the grid together."""
        return entropy(self.counts.sum(0))

    @property
    def row_entropies(self) -> list[float]:
        """Bits per token in each row of the grid, the lowest band first."""
        return [entropy(band) for band in self.counts]

    def as_json(self) -> dict[str, Any]:
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


def entropy(counts: Counts) -> float:
    """Bits per draw from frequencies like these."""
    share = counts[counts > 0] / max(int(counts.sum()), 1)
    return float(-(share * np.log2(share)).sum())


def summarise(sets: Sequence[Path]) -> Summary:
    """Read token sets (folders, shards, `.melcap` files) from end to end.

    Raises:
        InputError: where there is none, or no clip in them, or their tokenizers or grids differ.
        ContainerError: for a damaged one.
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
    """Draw how long clips are, how often codes occur, and the entropy of each band."""
    figure = new_figure(12, 3.6)
    lengths, ranks, bands = figure.subplots(1, 3)
    lengths.hist(summary.seconds, bins=40, color="#1f77b4")
    lengths.set(
        title=f"{summary.clips} clips, {summary.hours:.3g} h", xlabel="seconds", yscale="log"
    )
    size = summary.counts.shape[1]
    often = np.sort(summary.counts.sum(0))[::-1][: summary.used]
    ranks.plot(np.arange(1, len(often) + 1), often)
    ranks.set(title=f"{summary.used} of {size} codes, {summary.entropy:.2f} bits")
    ranks.set(xlabel="code, by how often it occurs", ylabel="times", yscale="log", xscale="log")
    bands.bar(range(len(summary.counts)), summary.row_entropies, color="#1f77b4")
    bands.axhline(np.log2(size), color="grey", linestyle=":")
    bands.set(title="entropy of each band", xlabel="row of the grid, lowest band first")
    bands.set(ylabel="bits per token")
    with replacing(target) as temporary:
        figure.savefig(temporary)
