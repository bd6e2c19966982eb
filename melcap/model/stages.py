"""Networks as chains of stages that never pad time, and the arithmetic of their receptive field.

Every stage is a convolution of some kind that consumes its own context: given n input steps it
returns only the output steps for which it has seen everything. So the receptive field follows from
the layers, a chunk with its context gives exactly what the whole signal gives there, and a stream
is the same stages with a few inputs kept between pushes. In a chain, a stage with `down` above 1
stands before all those with `up` above 1; behind them it would not know where its strides begin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn


class Stage(nn.Module):
    """A layer over the last axis, time.

    For the outputs that stand for `down` input steps it needs `left` steps before and `right` steps
    after them, and gives `up` steps: n inputs become (n - left - right) // down * up outputs.
    """

    left = 0
    right = 0
    down = 1
    up = 1


class Chain(nn.Sequential):
    """Stages, one after the other."""

    def __init__(self, *stages: Stage) -> None:
        super().__init__(*stages)

    def __iter__(self) -> Iterator[Stage]:
        stages: Iterator[Stage] = super().__iter__()  # type: ignore[assignment]
        return stages


def inputs_for(stages: Sequence[Stage], first: int, last: int) -> tuple[int, int]:
    """The input steps [first, last) that output steps [first, last) of a chain depend on."""
    for stage in reversed(stages):
        first = first // stage.up * stage.down - stage.left
        last = -(-last // stage.up) * stage.down + stage.right
    return first, last


def outputs_of(stages: Sequence[Stage], first: int, last: int) -> tuple[int, int]:
    """The output steps [first, last) that a chain gives for input steps [first, last).

    `first` must be where the field of some output begins (see `inputs_for`).
    """
    for stage in stages:
        first = -(-(first + stage.left) // stage.down) * stage.up
        last = (last - stage.right) // stage.down * stage.up
    return first, max(first, last)


def rate(stages: Sequence[Stage]) -> tuple[int, int]:
    """(up, down): a chain gives `up` output steps for every `down` input steps."""
    up = down = 1
    for stage in stages:
        up, down = up * stage.up, down * stage.down
    return up, down


def run(stages: Iterable[Stage], x: Tensor) -> Tensor:
    for stage in stages:
        x = stage(x)
    return x


class StageStream:
    """A chain over a signal that arrives in pieces, exact and without computing anything twice.

    Holds for each stage the inputs that its next output still needs. One object is one stream (or
    one batch of streams that run in step).
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        self._pending: list[Tensor | None] = [None] * len(self.stages)

    def push(self, x: Tensor) -> Tensor | None:
        """The outputs that have become possible, or None where there are none yet."""
        for index, stage in enumerate(self.stages):
            held = self._pending[index]
            # a copy in any case: the caller may use its buffer again
            x = x.clone() if held is None else torch.cat((held, x), dim=-1)
            ready = (x.shape[-1] - stage.left - stage.right) // stage.down * stage.down
            if ready <= 0:
                self._pending[index] = x
                return None
            self._pending[index] = x[..., ready:].clone()
            x = stage(x[..., : ready + stage.left + stage.right])
        return x
