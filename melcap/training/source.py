"""The interface of a source of crops, as the training loop uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class CropSource(Protocol):
    """An endless source of random crops: `CropSampler` of a cache, or `StreamSampler` of shards."""

    @property
    def key(self) -> str:
        """Return the hash of the sources of the audio."""
        ...

    def hours(self) -> dict[str, float]:
        """Return the hours of audio of each class: all of a cache, or what a stream decoded.

        All processes that train together call it at the same step.
        """
        ...

    def description(self) -> str:
        """Return what must be the same in all processes that train together."""
        ...

    def examples(self, samples: int, count: int) -> Mapping[str, Tensor]:
        """Return crops [count, samples] of each class at -3 dB, the same ones in every run."""
        ...

    def next(self) -> Tensor:
        """Return the next batch, float32 [batch, samples] in [-1, 1], on the CPU."""
        ...

    def stop(self) -> None:
        """Make a `next` that waits in another thread end with an error."""
        ...

    def state_dict(self) -> dict[str, object]:
        """Return plain numbers and strings, fit for JSON, from which `load_state_dict` resumes."""
        ...

    def state_of_all(self, state: Mapping[str, object]) -> Mapping[str, object]:
        """Return the state for a checkpoint, given the state of each process.

        All processes that train together call it at the same step.
        """
        ...

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Resume after the batch at which `state` was taken, also after `stop`.

        Raises:
            InputError: for what is not the state of such a source.
        """
        ...
