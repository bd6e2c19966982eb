"""Decide by the rates of the first minute whether to compile a recipe's networks, and say so.

`torch.compile` takes about a minute on a GPU before it saves time, and for a recipe whose kernels
are fused already it may save none. So training begins uncompiled, its rate is measured, then it is
compiled and measured again, and the faster way stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from melcap.training.recipe import Recipe

WINDOW_SECONDS = 10.0
"""Seconds over which each rate is measured."""
WARM_STEPS = 5
"""Steps before a window: libraries choose their algorithms, or the compiler runs, during these."""
LEAST_SECONDS = 240.0
"""With less time than this left, compiling does not pay."""


class CompileTrial:
    """Times a recipe uncompiled, then compiled, and leaves it in the faster way.

    Call `after_step` behind every step. `verdict` is None until the decision has been made.

    Args:
        recipe: the recipe that is trained.
        seconds: how long this run may last.
        device: where it runs; a GPU is waited for before a clock is read.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        recipe: Recipe,
        seconds: float,
        device: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.verdict: str | None = None
        self._recipe, self._device, self._clock = recipe, device, clock
        self._ends = clock() + seconds
        self._compiled = False
        self._steps = -WARM_STEPS
        self._began = clock()
        self._asked = self._began
        self._uncompiled_rate = 0.0

    def after_step(self) -> str | None:
        """Count a step; returns the verdict as a sentence when this step brings it."""
        if self.verdict is not None:
            return None
        self._steps += 1
        if self._steps == 0:
            self._began = self._now()
        if self._steps <= 0 or self._clock() - self._began < WINDOW_SECONDS:
            return None
        now = self._now()
        rate = self._steps / (now - self._began)
        if self._compiled:
            self.verdict = self._choose(rate)
        elif self._ends - now < LEAST_SECONDS:
            self.verdict = (
                f"not compiled: {max(0.0, self._ends - now):.0f} s are left, and compiling pays "
                f"from {LEAST_SECONDS:.0f} s on ({rate:.2f} steps a second)"
            )
        else:
            self._uncompiled_rate, self._asked = rate, now
            self._recipe.compile()
            self._compiled, self._steps = True, -WARM_STEPS
        return self.verdict

    def _choose(self, rate: float) -> str:
        rates = f"{rate:.2f} steps a second compiled, {self._uncompiled_rate:.2f} not"
        taken = f"compiling took {self._began - self._asked:.0f} s"
        if rate > self._uncompiled_rate:
            return f"compiled: {rates}; {taken}"
        self._recipe.uncompile()
        return f"not compiled any more: {rates}; {taken}"

    def _now(self) -> float:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        return self._clock()
