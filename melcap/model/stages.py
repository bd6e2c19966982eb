"""Networks as chains of stages that never pad time, and the arithmetic of their receptive field.

Every stage is a kind of convolution without padding. It returns only the output steps whose inputs
are all there. Three things follow:

- The receptive field is computed from the layers.
- A chunk with its context gives exactly what the whole signal gives there.
- A stream runs the same stages, and keeps a few inputs of each between pushes.

In a chain, stages with `down` above 1 come before all stages with `up` above 1. After those, the
position of a stride would not be defined.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

Self = TypeVar("Self", bound="Stage")


class Stage(nn.Module):
    """A layer over the last axis, time.

    For every `down` input steps a stage returns `up` output steps. For these it needs `left` input
    steps before and `right` input steps after them, so n input steps become
    (n - left - right) // down * up output steps.
    """

    left = 0
    right = 0
    down = 1
    up = 1

    def parts(self: Self) -> Sequence[Self]:
        """Return the stages that a stream runs in the place of this one."""
        return [self]


class Chain(nn.Sequential):
    """A sequence of stages, each of which runs on the output of the one before."""

    def __init__(self, *stages: Stage) -> None:
        super().__init__(*stages)

    def __iter__(self) -> Iterator[Stage]:
        """Iterate over the stages, first to last."""
        stages: Iterator[Stage] = super().__iter__()  # type: ignore[assignment]
        return stages


def inputs_for(stages: Sequence[Stage], first: int, last: int) -> tuple[int, int]:
    """Return the input steps [first, last) that output steps [first, last) of a chain depend on.

    Steps are numbered so that input step 0 and output step 0 stand for the same moment. A negative
    number is a step before the beginning of the signal.

    Args:
        stages: the chain.
        first: the first output step.
        last: the step after the last output step.

    Example:
        >>> import melcap
        >>> from melcap.model.stages import inputs_for
        >>> inputs_for(melcap.load().encode_stages, 0, 1)  # samples for the first column
        (-14720, 16768)
    """
    for stage in reversed(stages):
        first = first // stage.up * stage.down - stage.left
        last = -(-last // stage.up) * stage.down + stage.right
    return first, last


def outputs_of(stages: Sequence[Stage], first: int, last: int) -> tuple[int, int]:
    """Return the output steps [first, last) that a chain returns for input steps [first, last).

    Args:
        stages: the chain.
        first: the first input step, at which the receptive field of some output step begins (see
            `inputs_for`).
        last: the step after the last input step.
    """
    for stage in stages:
        first = -(-(first + stage.left) // stage.down) * stage.up
        last = (last - stage.right) // stage.down * stage.up
    return first, max(first, last)


def rate(stages: Sequence[Stage]) -> tuple[int, int]:
    """Return (up, down), where a chain returns `up` output steps for every `down` input steps."""
    up = down = 1
    for stage in stages:
        up, down = up * stage.up, down * stage.down
    return up, down


def run(stages: Iterable[Stage], x: Tensor) -> Tensor:
    """Return the output of a chain of stages for the input `x`."""
    for stage in stages:
        x = stage(x)
    return x


class StageStream:
    """A chain that runs over a signal in pieces.

    The outputs, joined, are those of the whole signal. Each stage keeps the inputs that its next
    output still needs, so no stage returns an output step twice. Inside a stage of several steps,
    such as `GriffinLim`, the steps of its context are computed again for every piece; so such a
    stage runs in parts of a few steps. One object is one stream, or one batch of streams that run
    in step.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(part for stage in stages for part in stage.parts())
        self._pending: list[Tensor | None] = [None] * len(self.stages)

    def push(self, x: Tensor) -> Tensor | None:
        """Return the output steps that have become possible, or None where there are none yet.

        Args:
            x: the next piece of the signal, [..., steps].
        """
        for index, stage in enumerate(self.stages):
            pending = self._pending[index]
            # always a copy, because the caller may reuse its buffer
            x = x.clone() if pending is None else torch.cat((pending, x), dim=-1)
            ready = (x.shape[-1] - stage.left - stage.right) // stage.down * stage.down
            if ready <= 0:
                self._pending[index] = x
                return None
            self._pending[index] = x[..., ready:].clone()
            x = stage(x[..., : ready + stage.left + stage.right])
        return x
