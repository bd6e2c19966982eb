"""Measure how stable tokens are: how many change when a clip is changed a little.

A language model learns a sound once for each way in which its tokens come out. The changes are
those that recordings meet: another beginning, another level, faint noise, and one round of coding.
docs/measures.md defines them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from melcap.evaluation.measures.signals import Wave
from melcap.evaluation.peers.base import Audio, Peer

Tokens: TypeAlias = npt.NDArray[np.integer[Any]]

DEFINITIONS = 1
"""Raise it when a definition changes, so that old and new figures are never mixed."""

HEADLINE = "2 ms later"
"""The change of the measure in `TITLES`: the offset of AudioCodecBench (arXiv 2509.02349)."""
TITLES = {"stability": "stability"}

COLUMNS = 16
"""The columns in the middle of a clip that are compared. All would slow a scorecard down."""
EDGE = 8
"""The columns on each side that are encoded with them. The encoder of lite sees 7.2 of them, so the
tokens are those of the whole clip."""


def stability(
    codec: Peer, wave: Audio, decoded: Audio, sample_rate: int, name: str
) -> dict[str, Any]:
    """Compare the tokens of a clip with those of the same clip after each change.

    Args:
        codec: the codec.
        wave: the clip, [samples].
        decoded: the clip after coding, [samples].
        sample_rate: the rate of both in Hz.
        name: the clip's name, from which the noise is drawn.

    Returns:
        "changes", with the number of columns that are compared, and for each change and row how
        many tokens stay the same ("same") and how far the tokens move ("distance", a sum in root
        mean square distances between two entries); and "stability", the share of tokens that stay
        the same after the change `HEADLINE`. Nothing for a codec without tokens, or a clip of 16
        columns or fewer.
    """
    if codec.codebook is None:
        return {}
    entries, column = codec.codebook, round(codec.column_seconds * sample_rate)
    whole = min(len(wave) // column, COLUMNS + 2 * EDGE)
    kept = whole - 2 * EDGE
    if kept < 1:
        return {}
    first = (len(wave) // column - whole) // 2 * column
    part = slice(first, first + whole * column)
    spread = np.sqrt(2 * np.square(entries - entries.mean(axis=0)).sum(axis=1).mean())

    def tokens(changed: Audio, later: int) -> Tokens:
        found = codec.encode(changed, sample_rate).tokens
        assert found is not None
        return found[:, EDGE + later : EDGE + later + kept]

    before, same, distance = tokens(wave[part], 0), {}, {}
    for change, changed, later in _changes(wave, decoded, part, column, sample_rate, name):
        after = tokens(changed, later)
        moved = np.linalg.norm(entries[after] - entries[before], axis=2) / spread
        same[change] = (after == before).sum(axis=1).tolist()
        distance[change] = moved.sum(axis=1, dtype=np.float64).round(4).tolist()
    share = sum(same[HEADLINE]) / before.size
    return {"stability": share, "changes": {"columns": kept, "same": same, "distance": distance}}


def _changes(
    wave: Audio, decoded: Audio, part: slice, column: int, sample_rate: int, name: str
) -> Iterator[tuple[str, Audio, int]]:
    """Yield each change's name, the part of the clip after it, and the columns that it is late."""
    stretch = wave[part]
    for change, samples in (
        ("1 sample later", 1),
        ("16 samples later", 16),
        (HEADLINE, sample_rate * 2 // 1000),
        ("half a column later", column // 2),
        ("a column later", column),
    ):
        delayed = np.pad(stretch, (samples, 0))[: len(stretch)]
        yield change, delayed, samples // column
    for decibels in (-1, -3, -6, 3):
        yield f"{decibels:+d} dB", _clamped(stretch * 10 ** (decibels / 20)), 0
    rms = np.sqrt(np.square(wave, dtype=np.float64).mean())
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big")
    noise = rms * np.random.default_rng(seed).standard_normal(len(stretch))
    for decibels in (-60, -40, -30):
        noisy = stretch + noise * 10 ** (decibels / 20)
        yield f"noise at {decibels} dB", _clamped(noisy), 0
    yield "decoded", decoded[part], 0


def _clamped(wave: Wave) -> Audio:
    return wave.clip(-1, 1).astype(np.float32)
