"""What the probes see of a clip: melcap's tokens, or a log-mel, on the same grid of 12 x columns.

| name | each cell of the grid holds |
| --- | --- |
| tokens, tokens:FILE | the codebook's vector for the token (of a weights FILE): 8 numbers in lite |
| mel | as many of the 64 numbers that the log-mel has there: the lowest terms of its 2D DCT |
| mel-32 | the lowest 32 of them: more numbers than tokens, and a probe of more parameters |
| mel-pooled | the log-mel's 8 bins there, averaged over the 8 frames |
| mel:CODEC | the same as mel, after CODEC has encoded and decoded the clip |

The log-mel is melcap's own front end, and the DCT is orthonormal: of the picture that the encoder
gets, 32 terms are the half that holds nearly all its energy.
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

from melcap.codec import Codec
from melcap.errors import InputError
from melcap.evaluation import peers
from melcap.evaluation.clips import RATE, Clip
from melcap.evaluation.probes.jobs import name_of
from melcap.ops import log_mel
from melcap.pretrained import load

DEFINITIONS = 2
"""Raise it when a feature changes, so that old and new ones are never mixed."""

KEPT = 32

Features: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FeatureJob:
    """One feature of the first `seconds` of a clip, kept in a folder."""

    feature: str
    clip: Clip
    seconds: float
    folder: Path

    @property
    def path(self) -> Path:
        kind = "mel" if self.feature in ("mel-32", "mel-pooled") else self.feature  # one file
        source = self.clip.source.name
        parts = (DEFINITIONS, kind, identity(self.feature), source, self.clip.name, self.seconds)
        return self.folder / f"{name_of(*parts)}.npy"

    def write(self, path: Path) -> None:
        np.save(path, _stored(self.feature, _read(self.clip, self.seconds)))

    def load(self) -> Features:
        """float32 [numbers, rows, columns]; raises `InputError` for a damaged file."""
        try:
            kept = np.load(self.path)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{self.path} is damaged ({error}): delete it") from error
        return _restored(self.feature, kept)


def check(feature: str) -> None:
    """Raises `InputError` for a name that is no feature, and what a codec that is missing does."""
    kind, colon, name = feature.partition(":")
    if feature in ("tokens", "mel", "mel-32", "mel-pooled"):
        return
    if not (kind in ("tokens", "mel") and colon and name):
        raise InputError(
            f"unknown feature {feature!r}: choose among tokens, tokens:FILE, mel, mel-32, "
            "mel-pooled, mel:CODEC"
        )
    identity(feature)


@cache
def identity(feature: str) -> str:
    """What tells a feature from that of other weights, or of another version of a codec."""
    kind, _, name = feature.partition(":")
    if kind == "tokens":
        return _codec(name).model
    return f"{load().config.mel} {peers.codec(name).identity if name else ''}"


def _stored(feature: str, wave: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """int16 [rows, columns] of tokens, or float16 [32, rows, columns] of a log-mel."""
    kind, _, name = feature.partition(":")
    if kind == "tokens":
        return _codec(name).encode(wave, RATE).numpy().astype(np.uint16)
    if name:
        wave, _ = peers.codec(name).round_trip(wave, RATE)
    return patches(wave).astype(np.float16)


def _restored(feature: str, kept: npt.NDArray[Any]) -> Features:
    kind, _, name = feature.partition(":")
    if kind == "tokens":
        tokens = torch.from_numpy(kept.astype(np.int64))[None]
        return _codec(name).codebook.latents(tokens)[0].numpy()
    if feature == "mel-pooled":  # the terms that are constant over the frames, back from the DCT
        across = [place for place, (_, time) in enumerate(_order()) if time == 0]
        kept = np.einsum("fi,frc->irc", dct(8) / math.sqrt(8), kept[across].astype(np.float32))
    elif feature != "mel-32":
        kept = kept[: _codec("").config.tokenizer.codebook_dim]
    return kept.astype(np.float32)


def patches(wave: npt.NDArray[np.float32]) -> Features:
    """[samples] at 44.1 kHz to float32 [32, 12, columns]: the DCT of each 8 x 8 of the log-mel."""
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
    """The orthonormal DCT-II: float32 [size, size], a row for each term."""
    place = np.arange(size)
    matrix = math.sqrt(2 / size) * np.cos(math.pi / size * place[:, None] * (place + 0.5))
    matrix[0] /= math.sqrt(2)
    return matrix.astype(np.float32)


def _order() -> list[tuple[int, int]]:
    """(frequency, time) of the terms that are kept: the lowest sums first, frequency before time.

    All eight that are constant over time are among them.
    """
    terms = [(frequency, time) for frequency in range(8) for time in range(8)]
    return sorted(terms, key=lambda term: (sum(term), term[1]))[:KEPT]


@lru_cache(maxsize=2)  # the next job is likely to be another feature of the same clip
def _read(clip: Clip, seconds: float) -> npt.NDArray[np.float32]:
    return clip.read(seconds)


@cache
def _codec(weights: str) -> Codec:
    return load(weights or None)
