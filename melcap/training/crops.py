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
from melcap.training.data import FULL_SCALE, SAMPLE_RATE, AudioCache, Clip

SILENT_PEAK = 3e-3
"""Crops whose peak is below this (-50 dB) are not scaled: it would only raise their noise."""

NARROW_HZ = (3000.0, 16000.0)
"""Between a telephone and a compressed file."""


class CropSampler:
    """Endless random crops: float32 batches [batch, samples].

    Classes are equally likely unless `class_weights` says otherwise (classes it does not name have
    weight 1); within a class a clip is chosen in proportion to its length. Clips are extended by
    silence on both sides and a crop starts anywhere in [-samples/2, length - samples/2], so starts,
    ends and clips shorter than the crop occur as they do in use. Each crop's peak is scaled to a
    level drawn evenly from `gain_db` (dB of full scale), and its polarity is random. A share of
    `narrowed` loses what is above a frequency drawn from `NARROW_HZ`, evenly in octaves, as if it
    had been recorded or coded at a lower rate.

    The same seed gives the same batches; `state_dict` and `load_state_dict` resume exactly.

    Raises InputError for sizes below 1, a bad gain range, and unknown or unusable class weights.
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
        self.batches = 0
        self._rng = np.random.default_rng(seed)
        # numpy lets go of the interpreter while it copies: a GPU takes more than one core can cut
        self._cutters = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "crops")
        ends = np.cumsum(weights)
        self._class_ends = ends / ends[-1]
        self._clips = [[c for c in cache.clips if c.label == label] for label in cache.classes]
        self._clip_ends = [np.cumsum([c.length for c in clips]) for clips in self._clips]

    def next(self) -> Tensor:
        """The next batch: float32 [batch, samples] in [-1, 1], on the CPU."""
        out = np.zeros((self.batch, self.samples), np.float32)
        # A fixed number of draws per crop, whatever they decide.
        draws = self._rng.random((self.batch, 7))
        deque(self._cutters.map(self._cut, out, draws), maxlen=0)
        self.batches += 1
        return torch.from_numpy(out)

    def _cut(self, row: npt.NDArray[np.float32], draws: npt.NDArray[np.float64]) -> None:
        """Fill a row of zeros as seven draws say."""
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
        """What `load_state_dict` needs: plain numbers and strings, fit for torch.save or JSON."""
        return {"batches": self.batches, "generator": dict(self._rng.bit_generator.state)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on after the batch at which `state` was taken. Raises InputError if it is not one."""
        batches, generator = state.get("batches"), state.get("generator")
        if not isinstance(batches, int) or not isinstance(generator, dict):
            raise InputError("this is not the state of a CropSampler: resume from a checkpoint")
        self._rng.bit_generator.state = generator
        self.batches = batches


def _narrow(wave: npt.NDArray[np.float32], hertz: float) -> npt.NDArray[np.float32]:
    """[samples] without what is above a frequency; the edge is a tenth of it wide."""
    spectrum = np.fft.rfft(wave)
    frequency = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    place = np.clip((frequency / hertz - 1) / 0.1, 0, 1)
    narrow = np.fft.irfft(spectrum * np.cos(np.pi / 2 * place) ** 2, len(wave))
    return narrow.astype(np.float32)


class Batches:
    """The sampler's batches on a device, prepared ahead in a thread, so that no step waits for one.

    `state` is the sampler's as of the last batch that `next` gave, however many are ready behind
    it: a run resumes with the batch that would have come next. `close`, or the end of a `with`
    block, leaves the sampler in that state.
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
        """float32 [batch, samples] on the device. Raises what the sampler raised."""
        wave, self.state = self._ready.popleft().result()
        self._ready.append(self._thread.submit(self._prepare))
        return wave.to(self._device, non_blocking=True)

    def _prepare(self) -> tuple[Tensor, dict[str, object]]:
        wave = self._sampler.next()
        # From pinned memory a copy runs beside the GPU's work.
        wave = wave.pin_memory() if self._device.type == "cuda" else wave
        return wave, self._sampler.state_dict()

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._sampler.load_state_dict(self.state)

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
