"""Random crops of the training audio, in batches."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from melcap.errors import InputError
from melcap.training.audio_cache import FULL_SCALE, SAMPLE_RATE, AudioCache, Clip

SILENT_PEAK = 3e-3
"""Crops whose peak is below this (-50 dB) are not scaled: scaling would only raise their noise."""

NARROW_HZ = (3000.0, 16000.0)
"""The lowest and highest bandwidth that is drawn, from a telephone's to a compressed file's."""


class CropSampler:
    """An endless source of random crops, in float32 batches [batch, samples].

    Within a class a clip is chosen in proportion to its length. Clips are extended by silence on
    both sides and a crop starts anywhere in [-samples/2, length - samples/2], so starts, ends and
    clips shorter than the crop occur as they do in use. The polarity of each crop is random. The
    same seed gives the same batches; `state_dict` and `load_state_dict` resume exactly.

    Args:
        cache: the audio to cut crops from.
        samples: the length of a crop.
        batch: the number of crops in a batch.
        seed: the seed of all choices.
        gain_db: the range, in dB of full scale, from which the peak of each crop is drawn evenly.
        class_weights: how likely each class is, relative to others; classes without a weight have
            weight 1.
        narrowed: the share of crops that lose what is above a frequency drawn from `NARROW_HZ`,
            evenly in octaves, as if they had been recorded or coded at a lower rate.
        rows: the crops of a batch that `next` returns; None for all. Which crops a batch has does
            not depend on it, so processes that train together share a batch among them.

    Raises:
        InputError: for sizes below 1, a gain range that is not low <= high <= 0, and class weights
            that are unknown, negative, not finite or all 0.
    """

    def __init__(
        self,
        cache: AudioCache,
        samples: int,
        batch: int,
        seed: int,
        gain_db: tuple[float, float] = (-18.0, 0.0),
        class_weights: Mapping[str, float] | None = None,
        narrowed: float = 0.0,
        rows: slice | None = None,
    ) -> None:
        if samples < 1 or batch < 1:
            raise InputError(f"samples and batch must be at least 1, not {samples} and {batch}")
        if gain_db[0] > gain_db[1] or gain_db[1] > 0:
            raise InputError(f"gain_db must be (low, high) with low <= high <= 0, not {gain_db}")
        given = dict(class_weights or {})
        if unknown := sorted(set(given) - set(cache.classes)):
            raise InputError(f"no class {', '.join(unknown)} here: there are {cache.classes}")
        weights = np.array([given.get(label, 1.0) for label in cache.classes], np.float64)
        if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() == 0:
            raise InputError(f"class weights must be >= 0 and not all 0, not {given}")
        self.cache = cache
        self.samples = samples
        self.batch = batch
        self.gain_db = gain_db
        self.narrowed = narrowed
        self.rows = rows or slice(None)
        self.batches = 0
        self._rng = np.random.default_rng(seed)
        # One core cannot cut fast enough for a GPU. Threads help, since numpy releases the lock of
        # the interpreter while it copies.
        self._cutters = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "crops")
        ends = np.cumsum(weights)
        self._class_ends = ends / ends[-1]
        self._clips = [[c for c in cache.clips if c.label == label] for label in cache.classes]
        self._clip_ends = [np.cumsum([c.length for c in clips]) for clips in self._clips]

    def next(self) -> Tensor:
        """Return the next batch, float32 [batch, samples] in [-1, 1], on the CPU."""
        # The number of draws per crop is fixed, whatever they decide.
        draws = self._rng.random((self.batch, 7))[self.rows]
        out = np.zeros((len(draws), self.samples), np.float32)
        deque(self._cutters.map(self._cut, out, draws), maxlen=0)
        self.batches += 1
        return torch.from_numpy(out)

    def _cut(self, row: npt.NDArray[np.float32], draws: npt.NDArray[np.float64]) -> None:
        """Fill a row of zeros with the crop that seven draws choose."""
        clip = self._choose(draws[0], draws[1])
        start = int(np.floor(draws[2] * (clip.length + 1))) - self.samples // 2
        first, end = max(start, 0), min(start + self.samples, clip.length)
        crop = self.cache.samples[clip.start + first : clip.start + end]
        row[first - start : end - start] = crop
        if draws[5] < self.narrowed:
            row[:] = _narrow(row, NARROW_HZ[0] * (NARROW_HZ[1] / NARROW_HZ[0]) ** draws[6])
        row *= self._factor(float(np.abs(row).max()) / FULL_SCALE, draws[3], draws[4])

    def _choose(self, kind: float, place: float) -> Clip:
        label = int(np.searchsorted(self._class_ends, kind, side="right"))
        ends = self._clip_ends[label]
        return self._clips[label][int(np.searchsorted(ends, place * ends[-1], side="right"))]

    def _factor(self, peak: float, level: float, polarity: float) -> np.float32:
        low, high = self.gain_db
        gain = 10 ** ((low + level * (high - low)) / 20) / peak if peak >= SILENT_PEAK else 1.0
        return np.float32((gain if polarity < 0.5 else -gain) / FULL_SCALE)

    def state_dict(self) -> dict[str, object]:
        """Return plain numbers and strings, fit for JSON, from which `load_state_dict` resumes."""
        return {"batches": self.batches, "generator": dict(self._rng.bit_generator.state)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Resume after the batch at which `state` was taken.

        Raises:
            InputError: for what is not the state of a sampler.
        """
        batches, generator = state.get("batches"), state.get("generator")
        if not isinstance(batches, int) or not isinstance(generator, dict):
            raise InputError("this is not the state of a CropSampler: resume from a checkpoint")
        self._rng.bit_generator.state = generator
        self.batches = batches


def _narrow(wave: npt.NDArray[np.float32], hertz: float) -> npt.NDArray[np.float32]:
    """Return a wave without what is above a frequency; the edge is a tenth of it wide."""
    spectrum = np.fft.rfft(wave)
    frequency = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    place = np.clip((frequency / hertz - 1) / 0.1, 0, 1)
    narrow = np.fft.irfft(spectrum * np.cos(np.pi / 2 * place) ** 2, len(wave))
    return narrow.astype(np.float32)


class Batches:
    """A queue of the sampler's batches on a device, prepared in a thread, so that no step waits.

    `close`, or the end of a `with` block, leaves the sampler in the state `state`.

    Args:
        sampler: the sampler.
        device: where the batches go.
        ahead: the number of batches that are prepared ahead.

    Attributes:
        state: the sampler's state after the last batch that `next` returned, however many are
            ready after it. A run resumes with the batch that would have come next.
    """

    def __init__(self, sampler: CropSampler, device: torch.device | str, ahead: int = 4) -> None:
        self.state = sampler.state_dict()
        self._sampler = sampler
        self._device = torch.device(device)
        self._thread = ThreadPoolExecutor(1, "batches")
        self._ready: deque[Future[tuple[Tensor, dict[str, object]]]] = deque()
        for _ in range(ahead):
            self._ready.append(self._thread.submit(self._prepare))

    def next(self) -> Tensor:
        """Return float32 [batch, samples] on the device. Raise what the sampler raised."""
        wave, self.state = self._ready.popleft().result()
        self._ready.append(self._thread.submit(self._prepare))
        return wave.to(self._device, non_blocking=True)

    def _prepare(self) -> tuple[Tensor, dict[str, object]]:
        wave = self._sampler.next()
        # A copy from pinned memory runs in parallel with the GPU's work.
        wave = wave.pin_memory() if self._device.type == "cuda" else wave
        return wave, self._sampler.state_dict()

    def close(self) -> None:
        """Stop the thread and set the sampler to `state`."""
        self._thread.shutdown(cancel_futures=True)
        self._sampler.load_state_dict(self.state)

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
