"""A trial at the start of a training run that decides whether to compile the networks.

`torch.compile` takes about a minute on a GPU before it saves time, and for a recipe whose kernels
are already fused it may save none. So training begins uncompiled and its rate is measured. Then the
recipe is compiled and measured again, and the faster variant is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from melcap.training.recipe import Recipe

WINDOW_SECONDS = 10.0
"""Seconds over which each rate is measured."""
WARM_STEPS = 5
"""Steps before each measurement, in which libraries choose algorithms or the compiler runs."""
LEAST_SECONDS = 240.0
"""The least remaining time for which the recipe is compiled; in less, compiling does not pay."""


class CompileTrial:
    """A trial that times a recipe uncompiled, then compiled, and keeps the faster variant.

    Call `after_step` after every step.

    Args:
        recipe: the recipe that is trained.
        seconds: how long this session may last.
        device: where it runs; a GPU is synchronised before the clock is read.
        clock: returns seconds; tests give their own.

    Attributes:
        decision: the decision as a sentence, None until it has been made.
    """

    def __init__(
        self,
        recipe: Recipe,
        seconds: float,
        device: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.decision: str | None = None
        self._recipe, self._device, self._clock = recipe, device, clock
        self._ends = clock() + seconds
        self._compiled = False
        self._steps = -WARM_STEPS
        self._began = clock()
        self._compile_began = self._began
        self._uncompiled_rate = 0.0

    def after_step(self) -> str | None:
        """Count a step; return the decision as a sentence if it was made now, else None."""
        if self.decision is not None:
            return None
        self._steps += 1
        if self._steps == 0:
            self._began = self._now()
        if self._steps <= 0 or self._clock() - self._began < WINDOW_SECONDS:
            return None
        now = self._now()
        rate = self._steps / (now - self._began)
        if self._compiled:
            self.decision = self._choose(rate)
        elif self._ends - now < LEAST_SECONDS:
            self.decision = (
                f"not compiled: {max(0.0, self._ends - now):.0f} s are left, and compiling pays "
                f"from {LEAST_SECONDS:.0f} s on ({rate:.2f} steps/s)"
            )
        else:
            self._uncompiled_rate, self._compile_began = rate, now
            self._recipe.compile()
            self._compiled, self._steps = True, -WARM_STEPS
        return self.decision

    def _choose(self, rate: float) -> str:
        """Keep the faster variant and return the decision; `rate` is that of the compiled one."""
        rates = f"{rate:.2f} steps/s compiled, {self._uncompiled_rate:.2f} steps/s uncompiled"
        duration = f"compiling took {self._began - self._compile_began:.0f} s"
        if rate > self._uncompiled_rate:
            return f"compiled: {rates}; {duration}"
        self._recipe.uncompile()
        return f"uncompiled again: {rates}; {duration}"

    def _now(self) -> float:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        return self._clock()
