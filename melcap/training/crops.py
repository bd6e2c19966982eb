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
from melcap.training.audio_cache import SAMPLE_RATE, AudioCache, Clip
from melcap.training.cutting import DRAWS, ClipChoice, Cutter
from melcap.training.source import CropSource


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
        if batch < 1:
            raise InputError(f"a batch must have at least 1 crop, not {batch}")
        given = dict(class_weights or {})
        if unknown := sorted(set(given) - set(cache.classes)):
            raise InputError(f"no class {', '.join(unknown)} here: there are {cache.classes}")
        self.cache = cache
        self.batch = batch
        self.rows = rows or slice(None)
        self.batches = 0
        self._cutter = Cutter(samples, gain_db, narrowed)
        self._choice = ClipChoice(
            [clip.label for clip in cache.clips], [clip.length for clip in cache.clips], given
        )
        self._rng = np.random.default_rng(seed)
        # One core cannot cut fast enough for a GPU. Threads help, since numpy releases the lock of
        # the interpreter while it copies.
        self._threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "crops")

    @property
    def key(self) -> str:
        """Return the hash of the sources of the audio."""
        return self.cache.key

    def hours(self) -> dict[str, float]:
        """Return the hours of audio of each class."""
        samples = dict.fromkeys(self.cache.classes, 0)
        for clip in self.cache.clips:
            samples[clip.label] += clip.length
        return {label: count / SAMPLE_RATE / 3600 for label, count in samples.items()}

    def description(self) -> str:
        """Return what must be the same in all processes: the sources, and what was decoded."""
        return f"{self.key} {self.hours()}"

    def examples(self, samples: int, count: int) -> dict[str, Tensor]:
        """Return crops [count, samples] of each class at -3 dB, the same ones in every run."""
        found = {}
        for label in self.cache.classes:
            only = {other: float(other == label) for other in self.cache.classes}
            one = CropSampler(self.cache, samples, count, 0, (-3.0, -3.0), only)
            found[label] = one.next()
        return found

    def next(self) -> Tensor:
        """Return the next batch, float32 [batch, samples] in [-1, 1], on the CPU."""
        # The number of draws is fixed, whichever rows and whatever they decide.
        draws = self._rng.random((self.batch, DRAWS))[self.rows]
        out = np.zeros((len(draws), self._cutter.samples), np.float32)
        deque(self._threads.map(self._cut, out, draws), maxlen=0)
        self.batches += 1
        return torch.from_numpy(out)

    def _cut(self, row: npt.NDArray[np.float32], draws: npt.NDArray[np.float64]) -> None:
        """Fill a row of zeros with the crop that the draws choose."""
        clip = self._choose(draws[0], draws[1])
        self._cutter.cut(row, self.cache.samples[clip.start : clip.start + clip.length], draws[2:])

    def _choose(self, kind: float, place: float) -> Clip:
        return self.cache.clips[self._choice.clip(kind, place)]

    def stop(self) -> None:
        """Do nothing: `next` waits for nobody."""

    def state_dict(self) -> dict[str, object]:
        """Return plain numbers and strings, fit for JSON, from which `load_state_dict` resumes."""
        return {"batches": self.batches, "generator": dict(self._rng.bit_generator.state)}

    def state_of_all(self, state: Mapping[str, object]) -> Mapping[str, object]:
        """Return the state itself: all processes draw the same crops, and cut their own."""
        return state

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Resume after the batch at which `state` was taken.

        Raises:
            InputError: for what is not the state of a sampler.
        """
        batches, generator = state.get("batches"), state.get("generator")
        if not isinstance(batches, int) or not isinstance(generator, dict):
            raise InputError(
                "this is not the state of a CropSampler: a run that began with --stream resumes "
                "with --stream"
            )
        self._rng.bit_generator.state = generator
        self.batches = batches


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

    def __init__(self, sampler: CropSource, device: torch.device | str, ahead: int = 4) -> None:
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
        self._sampler.stop()
        self._thread.shutdown(cancel_futures=True)
        self._sampler.load_state_dict(self.state)

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
