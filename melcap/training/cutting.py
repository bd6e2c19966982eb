"""The choice of clips and the cutting of crops, for a cache and for a stream of shards alike.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melcap.errors import InputError
from melcap.training.audio_cache import FULL_SCALE, SAMPLE_RATE

SILENT_PEAK = 3e-3
"""Crops whose peak is below this (-50 dB) are not scaled: scaling would only raise their noise."""

NARROW_HZ = (3000.0, 16000.0)
"""The lowest and highest bandwidth that is drawn, from a telephone's to a compressed file's."""

DRAWS = 7
"""Random numbers for a crop: two choose its clip, five cut it. The number is always the same."""


class ClipChoice:
    """A random choice of clips: a class by its weight, then a clip in proportion to its length.

    Args:
        labels: the class of each clip.
        lengths: the length of each clip.
        weights: how likely each class is, relative to others; classes without a weight have
            weight 1.

    Raises:
        InputError: for class weights that are negative, not finite or all 0.
    """

    def __init__(
        self, labels: Sequence[str], lengths: Sequence[int], weights: Mapping[str, float]
    ) -> None:
        classes = sorted(set(labels))
        given = np.array([weights.get(label, 1.0) for label in classes], np.float64)
        if not np.isfinite(given).all() or (given < 0).any() or given.sum() == 0:
            raise InputError(f"class weights must be >= 0 and not all 0, not {dict(weights)}")
        ends = np.cumsum(given)
        self._class_ends = ends / ends[-1]
        self._clips = [
            [number for number, one in enumerate(labels) if one == label] for label in classes
        ]
        self._clip_ends = [np.cumsum([lengths[n] for n in clips]) for clips in self._clips]

    def clip(self, kind: float, place: float) -> int:
        """Return the number of the clip that two draws from [0, 1) choose."""
        label = int(np.searchsorted(self._class_ends, kind, side="right"))
        ends = self._clip_ends[label]
        return self._clips[label][int(np.searchsorted(ends, place * ends[-1], side="right"))]


@dataclass(frozen=True)
class Cutter:
    """The rules by which a crop is cut from a clip; see `CropSampler`.

    Raises:
        InputError: for a length below 1, and a gain range that is not low <= high <= 0.
    """

    samples: int
    gain_db: tuple[float, float] = (-18.0, 0.0)
    narrowed: float = 0.0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"a crop must have at least 1 sample, not {self.samples}")
        if self.gain_db[0] > self.gain_db[1] or self.gain_db[1] > 0:
            raise InputError(f"gain_db must be (low, high) with low <= high <= 0: {self.gain_db}")

    def starts(self, length: int, begins: bool = True, ends: bool = True) -> range:
        """Return the places where a crop may start, counted from the first sample of the audio.

        Args:
            length: the number of samples of the audio.
            begins: whether the audio is the beginning of its clip, before which there is silence.
            ends: whether it is the end of its clip, after which there is silence.
        """
        first = -(self.samples // 2) if begins else 0
        last = length - (self.samples // 2 if ends else self.samples)
        return range(first, last + 1)

    def cut(
        self,
        row: npt.NDArray[np.float32],
        audio: npt.NDArray[np.int16],
        draws: npt.NDArray[np.float64],
        begins: bool = True,
        ends: bool = True,
    ) -> None:
        """Fill a row of zeros with the crop of some audio that five draws from [0, 1) choose."""
        starts = self.starts(len(audio), begins, ends)
        start = starts[int(np.floor(draws[0] * len(starts)))]
        first, end = max(start, 0), min(start + self.samples, len(audio))
        row[first - start : end - start] = audio[first:end]
        if draws[3] < self.narrowed:
            row[:] = _narrow(row, NARROW_HZ[0] * (NARROW_HZ[1] / NARROW_HZ[0]) ** draws[4])
        row *= self._factor(float(np.abs(row).max()) / FULL_SCALE, draws[1], draws[2])

    def _factor(self, peak: float, level: float, polarity: float) -> np.float32:
        low, high = self.gain_db
        gain = 10 ** ((low + level * (high - low)) / 20) / peak if peak >= SILENT_PEAK else 1.0
        return np.float32((gain if polarity < 0.5 else -gain) / FULL_SCALE)


def _narrow(wave: npt.NDArray[np.float32], hertz: float) -> npt.NDArray[np.float32]:
    """Return a wave without what is above a frequency; the edge is a tenth of it wide."""
    spectrum = np.fft.rfft(wave)
    frequency = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    place = np.clip((frequency / hertz - 1) / 0.1, 0, 1)
    narrow = np.fft.irfft(spectrum * np.cos(np.pi / 2 * place) ** 2, len(wave))
    return narrow.astype(np.float32)
