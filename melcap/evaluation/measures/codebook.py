"""Measure how much of a codebook is used: usage and entropy over tokens.

Few tokens cannot use many entries, and cannot have more bits of entropy than log2 of their number:
compare figures of equally many tokens. `melcap stats` measures the same over whole token sets.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from melcap.errors import InputError

Counts: TypeAlias = npt.NDArray[np.int64]
"""The number of times that each entry of a codebook occurs, [codebook size]."""


@dataclass(frozen=True)
class CodebookStatistics:
    """The usage of a codebook over tokens.

    Attributes:
        usage: the fraction of entries that occur at least once.
        entropy: the entropy of the entries' frequencies in bits per token, at most log2(size).
        tokens: the number of tokens.
    """

    usage: float
    entropy: float
    tokens: int


def codebook_statistics(tokens: npt.NDArray[np.integer[Any]], size: int) -> CodebookStatistics:
    """Return usage and entropy of a codebook over tokens.

    Args:
        tokens: integers of any shape, 0 <= token < size.
        size: the number of entries of the codebook.

    Raises:
        InputError: where there is no token, or one is out of range.

    Example:
        >>> import numpy as np
        >>> codebook_statistics(np.array([0, 0, 1, 1]), size=4)
        CodebookStatistics(usage=0.5, entropy=1.0, tokens=4)
    """
    return statistics_of(count_tokens(tokens, size))


def count_tokens(tokens: npt.NDArray[np.integer[Any]], size: int) -> Counts:
    """Count how often each of `size` entries occurs; raises as `codebook_statistics`."""
    flat = np.asarray(tokens).reshape(-1)
    if not flat.size or flat.min() < 0 or flat.max() >= size:
        raise InputError(f"codebook_statistics: needs tokens, all of them in 0..{size - 1}")
    return np.bincount(flat, minlength=size)


def statistics_of(counts: Counts) -> CodebookStatistics:
    """Return usage and entropy of a codebook from the counts of its entries, not all of them 0."""
    total = int(counts.sum())
    share = counts[counts > 0] / total
    entropy = float(-(share * np.log2(share)).sum())
    return CodebookStatistics(float((counts > 0).mean()), entropy, total)


def pack_counts(counts: Counts) -> str:
    """Pack counts as ASCII text, about 2 kB for 10 s of audio."""
    return base64.b85encode(zlib.compress(counts.astype("<u4").tobytes(), 9)).decode()


def unpack_counts(text: str) -> Counts:
    """Unpack the text of `pack_counts`."""
    return np.frombuffer(zlib.decompress(base64.b85decode(text)), "<u4").astype(np.int64)
