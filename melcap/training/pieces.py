"""A batch that a step takes in pieces, whose gradients add up to those of the whole.

A batch in pieces needs the memory of one piece. Every loss is a mean over crops, so the mean of the
pieces' losses is the loss of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor

from melcap.errors import InputError

Pass = TypeVar("Pass")
"""The result of a forward pass, as a recipe defines it."""
Figures = dict[str, Tensor]


class Pieces(Generic[Pass]):
    """The pieces of a batch, each of which passes forward when its loss is needed.

    With discriminators there are two rounds, because they are updated on the whole batch before the
    codec is: `preview`, then `losses`. The first piece keeps its pass from one to the other, so a
    batch of one piece passes once.

    Args:
        batch: the batch, a tensor [crops, ...].
        count: the number of pieces.
        forward: returns the pass of a piece.

    Raises:
        InputError: for a batch that has no such number of equal pieces.
    """

    def __init__(self, batch: Tensor, count: int, forward: Callable[[Tensor], Pass]) -> None:
        if len(batch) % count:
            raise InputError(f"{len(batch)} crops cannot be taken in {count} equal pieces")
        self._pieces = batch.chunk(count)
        self._forward = forward
        self._first: Pass | None = None
        self._sums: Figures = {}

    def preview(self) -> Iterator[Pass]:
        """Yield the pass of each piece, the first one last, and only that one with a gradient."""
        for piece in self._pieces[:0:-1]:
            with torch.no_grad():
                passed = self._forward(piece)
            yield passed
        self._first = self._forward(self._pieces[0])
        yield self._first

    def losses(self, objective: Callable[[Pass], tuple[Tensor, Figures]]) -> Iterator[Tensor]:
        """Yield the loss of each piece in order; use each before the next, which frees its memory.

        Args:
            objective: returns the loss of a pass, and figures to log.
        """
        for index, piece in enumerate(self._pieces):
            passed, self._first = self._first, None
            if index or passed is None:
                passed = self._forward(piece)
            loss, figures = objective(passed)
            del passed
            for name, value in figures.items():
                self._sums[name] = self._sums.get(name, 0.0) + value.detach()
            yield loss

    def figures(self) -> Figures:
        """Return the means of the figures over the pieces whose losses were yielded."""
        return {name: total / len(self._pieces) for name, total in self._sums.items()}
