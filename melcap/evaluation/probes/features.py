"""Compute features of clips: tokens of melcap or a log-mel, on the same grid of 12 x columns.

| name | each cell of the grid holds |
| --- | --- |
| tokens | the codebook's vector for the token of the weights that ship: 8 numbers |
| tokens:FILE | the same for a weights FILE of any architecture; 64 numbers in the published one |
| mel | the 8 lowest terms of the 2D DCT of the cell's 8 x 8 log-mel, as many numbers as `tokens` |
| mel-32 | the 32 lowest terms: more numbers than `tokens`, so a classifier of more parameters |
| mel-pooled | the 8 bins of the cell's log-mel, averaged over its 8 frames |
| mel:CODEC | the same as mel, after CODEC has encoded and decoded the clip |

The log-mel is that of the front end of the weights that ship, and the DCT is orthonormal. 32 terms
are half of the numbers that the encoder gets, and hold nearly all their energy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from melcap.audio_codec import AudioCodec
from melcap.errors import InputError
from melcap.evaluation.clips import RATE, Clip
from melcap.evaluation.peers.registry import FindPeer, peer
from melcap.evaluation.probes.jobs import name_of
from melcap.ops import log_mel
from melcap.pretrained import load

DEFINITIONS = 2
"""Raise it when a feature changes, so that old and new ones are never mixed."""

KEPT = 32
"""Terms of the DCT that are kept on disk."""

ROWS, COLUMN = 12, 2048
"""Rows of the grid of all features, and samples of its columns at the rate of the clips."""

Features: TypeAlias = npt.NDArray[np.float32]
"""Features of a clip, [numbers, rows, columns]."""


@dataclass(frozen=True)
class FeatureJob:
    """A feature of the first `seconds` of a clip, kept in a folder."""

    feature: str
    clip: Clip
    seconds: float
    folder: Path
    find_peer: FindPeer = peer

    @property
    def path(self) -> Path:
        """Return the path of the feature."""
        kind = "mel" if self.feature in ("mel-32", "mel-pooled") else self.feature  # one file
        source = self.clip.source.name
        version = identity(self.feature, self.find_peer)
        parts = (DEFINITIONS, kind, version, source, self.clip.name, self.seconds)
        return self.folder / f"{name_of(*parts)}.npy"

    def write(self, path: Path) -> None:
        """Compute the feature and write it to a file."""
        np.save(path, self._computed(_read(self.clip, self.seconds)))

    def load(self) -> Features:
        """Read the feature from its file, float32 [numbers, rows, columns].

        Raises:
            InputError: for a damaged file.
        """
        try:
            kept = np.load(self.path)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{self.path} is damaged ({error}): delete it") from error
        return _restored(self.feature, kept)

    def _computed(self, wave: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Return int16 [rows, columns] of tokens, or float16 [32, rows, columns] of a log-mel."""
        kind, _, name = self.feature.partition(":")
        if kind == "tokens":
            return _codec(name).encode(wave, RATE).numpy().astype(np.uint16)
        if name:
            wave, _ = self.find_peer(name).round_trip(wave, RATE)
        return patches(wave).astype(np.float16)


def check(feature: str, find_peer: FindPeer = peer) -> None:
    """Check the name of a feature.

    Raises:
        InputError: for a name that is no feature, or tokens on another grid.
        WeightsError: for a file that holds no weights.
        MelcapError: for a feature of a codec that is not installed.
    """
    kind, colon, name = feature.partition(":")
    if feature in ("tokens", "mel", "mel-32", "mel-pooled"):
        return
    if not (kind in ("tokens", "mel") and colon and name):
        raise InputError(
            f"unknown feature {feature!r}: choose among tokens, tokens:FILE, mel, mel-32, "
            "mel-pooled, mel:CODEC"
        )
    identity(feature, find_peer)


@cache
def identity(feature: str, find_peer: FindPeer = peer) -> str:
    """Return a text that changes with the weights or the version of a feature's codec."""
    kind, _, name = feature.partition(":")
    if kind == "tokens":
        return _codec(name).model
    return f"{load().config.mel} {find_peer(name).identity if name else ''}"


def _restored(feature: str, kept: npt.NDArray[Any]) -> Features:
    kind, _, name = feature.partition(":")
    if kind == "tokens":
        tokens = torch.from_numpy(kept.astype(np.int64))[None]
        return _codec(name).codebook.latents(tokens)[0].numpy()
    if feature == "mel-pooled":  # the terms that are constant over frames, inverted over bins
        across = [place for place, (_, time) in enumerate(_order()) if time == 0]
        kept = np.einsum("fi,frc->irc", dct(8) / math.sqrt(8), kept[across].astype(np.float32))
    elif feature != "mel-32":
        kept = kept[: _codec("").config.tokenizer.codebook_dim]
    return kept.astype(np.float32)


def patches(wave: npt.NDArray[np.float32]) -> Features:
    """Return the DCT of each 8 x 8 cell of the log-mel of a clip.

    Args:
        wave: [samples] at 44.1 kHz.

    Returns:
        The lowest 32 terms, float32 [32, 12, columns].
    """
    config = _codec("").config
    columns = -(-len(wave) // config.column_samples)
    bins, frames = config.tokenizer.patch_bins, config.tokenizer.patch_frames
    padded = torch.zeros(1, columns * config.column_samples)
    padded[0, : len(wave)] = torch.from_numpy(wave)
    mel = log_mel(padded, config.mel)[0].numpy()
    cells = mel.reshape(config.rows, bins, columns, frames)
    spectrum = np.einsum("fi,rict,gt->fgrc", dct(bins), cells, dct(frames))
    frequencies, times = zip(*_order(), strict=True)
    return spectrum[frequencies, times].astype(np.float32)


def dct(size: int) -> Features:
    """Return the matrix of the orthonormal DCT-II, float32 [size, size], a row for each term."""
    place = np.arange(size)
    matrix = math.sqrt(2 / size) * np.cos(math.pi / size * place[:, None] * (place + 0.5))
    matrix[0] /= math.sqrt(2)
    return matrix.astype(np.float32)


def _order() -> list[tuple[int, int]]:
    """Return (frequency, time) of the terms that are kept, in order.

    The lowest sums come first, and frequency before time. All eight terms that are constant over
    time are among them.
    """
    terms = [(frequency, time) for frequency in range(8) for time in range(8)]
    return sorted(terms, key=lambda term: (sum(term), term[1]))[:KEPT]


@lru_cache(maxsize=2)  # the next job is likely to be another feature of the same clip
def _read(clip: Clip, seconds: float) -> npt.NDArray[np.float32]:
    return clip.read(seconds)


@cache
def _codec(weights: str) -> AudioCodec:
    """Return the codec of a weights file, or of the weights that ship for "".

    Raises:
        InputError: for a codec whose tokens are on another grid.
    """
    codec = load(weights or None)
    grid = (codec.rows, codec.config.column_samples, codec.sample_rate)
    if grid != (ROWS, COLUMN, RATE):
        raise InputError(
            f"{weights}: melcap probe compares features on a grid of {ROWS} rows and columns of "
            f"{COLUMN} samples at {RATE} Hz, and the tokens of {codec.model} have {grid[0]} rows "
            f"and columns of {grid[1]} samples at {grid[2]} Hz"
        )
    return codec
