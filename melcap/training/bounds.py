"""Measure what bounds a training run: data, kernel launches, or the processor itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

DATA_SHARE = 0.1
"""The share of the time spent waiting for batches from which on data bounds a run."""
BUSY_SHARE = 0.85
"""The share of a step spent in kernels from which on the GPU bounds a run."""
PROFILED_STEP = 50
"""The first step that may be profiled."""

Figures = dict[str, Tensor]


class Bounds:
    """A measurement of where the time of a training run goes.

    Args:
        device: where the run computes. On a GPU one step is profiled, from `PROFILED_STEP` on.
    """

    def __init__(self, device: str) -> None:
        self._gpu = device.startswith("cuda")
        self._steps = 0
        self.busy: float | None = None
        self._start()

    def _start(self) -> None:
        self._began = time.monotonic()
        self._processor = time.process_time()
        self._waited = 0.0

    def batch(self, next_batch: Callable[[], Tensor]) -> Tensor:
        """Return the next batch, and count the seconds of waiting for it.

        The wait for the first one does not count: a stream decodes its first clips in it.
        """
        began = time.monotonic()
        wave = next_batch()
        if not self._steps:
            self._start()
        else:
            self._waited += time.monotonic() - began
        return wave

    def step(self, step: Callable[[], Figures], undisturbed: bool = False) -> Figures:
        """Run a step, one of them under the profiler where there is a GPU.

        Args:
            step: the step, which returns its figures.
            undisturbed: True for a step that is timed elsewhere. The profiler takes seconds to
                start.

        Returns:
            The figures of the step.
        """
        self._steps += 1
        wanted = self._gpu and self.busy is None and self._steps >= PROFILED_STEP
        if not wanted or undisturbed:
            return step()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            began = time.monotonic()
            figures = step()
            torch.cuda.synchronize()
            taken = time.monotonic() - began
        kernels = [
            event
            for event in seen.key_averages()
            if event.device_type == DeviceType.CUDA
            and not event.key.startswith("nccl")  # these wait for other GPUs
        ]
        self.busy = min(1.0, sum(e.self_device_time_total for e in kernels) / 1e6 / taken)
        return figures

    def sentence(self) -> str:
        """Return what bounds the run so far, with the figure that shows it."""
        taken = max(time.monotonic() - self._began, 1e-9)
        waiting = self._waited / taken
        if waiting >= DATA_SHARE:
            return f"bound by data: {waiting:.0%} of the time was spent waiting for batches"
        if not self._gpu:
            cores = (time.process_time() - self._processor) / taken
            return f"bound by the CPU: {cores:.1f} of {os.cpu_count()} cores are busy"
        if self.busy is None:
            return "it is unknown what bounds this run: it ended before a step was profiled"
        if self.busy >= BUSY_SHARE:
            return f"bound by the GPU: kernels take {self.busy:.0%} of a step"
        return f"bound by kernel launches: the GPU is busy for {self.busy:.0%} of a step"
