"""Operations over all processes that train together; a process that trains alone skips them.

torch.distributed's default group says which processes these are. `melcap.training.launch` joins it
under torchrun. Each process has its own crops of a batch, and everything else in common: weights,
codebook, averages, optimisers and random numbers are the same in all of them, to the bit.

Gradients are averaged by one all-reduce of all of them at the end of a step. This takes the place
of `DistributedDataParallel`, which sends them in buckets while the backward pass still runs:

- There is little to hide. A step trains at most 2.2 M parameters, 9 MB, and the widest
  discriminators have 170 MB. At the 450 GB/s of NVLink these take less than a millisecond, and a
  step takes 70 of them or more.
- A step runs lists of stages, calls discriminators several times, and adds gradients up over
  pieces of the batch. The wrapper would need a module for each of these, and torch.compile splits
  its graphs inside it.
- `optimisers.backward` is the only place that needs to know. What trains through it is right.

Small decisions go through CPU tensors, so that no step waits for a GPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from melcap.errors import InputError, MelcapError

Shared = TypeVar("Shared")


def count() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Return whether this process writes files, tells the user and decides by its clock."""
    return rank() == 0


def rows(batch: int, accumulate: int) -> slice:
    """Return which crops of a batch are this process's, in the order of the batch.

    Args:
        batch: the number of crops of a step, of all processes.
        accumulate: the number of pieces in which each process takes its crops.

    Raises:
        InputError: for a batch that cannot be shared evenly.
    """
    shares = count() * accumulate
    if batch % shares:
        raise InputError(
            f"a batch of {batch} crops cannot be cut into {shares} equal parts (processes: "
            f"{count()}, pieces: {accumulate}): give a --batch that is a multiple of {shares}"
        )
    own = batch // count()
    return slice(rank() * own, (rank() + 1) * own)


def mean_(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their means over the processes, by one collective for all of them."""
    found = [*tensors]
    if count() == 1 or not found:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in found])
    sum_(flat)
    flat /= count()
    for tensor, mean in zip(found, flat.split([t.numel() for t in found]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def sum_(tensor: Tensor) -> Tensor:
    """Replace a tensor by its sum over the processes, and return it."""
    if count() > 1:
        with _connected():
            dist.all_reduce(tensor)
    return tensor


def gathered(tensor: Tensor) -> Tensor:
    """Return the tensors of all processes, joined along the first axis in their order."""
    if count() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(count())]
    with _connected():
        dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def objects(value: Shared) -> list[Shared]:
    """Return the objects of all processes in their order. Each must be small."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    with _connected():
        dist.all_gather_object(found, value)
    return found


def take_first_(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by those of the first process."""
    if count() > 1:
        with _connected():
            for tensor in tensors:
                dist.broadcast(tensor, 0)


def first_value(value: float) -> float:
    """Return the number that the first process has."""
    return _greatest(value if is_first() else -math.inf)[0] if count() > 1 else value


def clock() -> float:
    """Return the monotonic clock of the first process, in seconds."""
    return first_value(time.monotonic())


def lead(minutes: float, stop: bool) -> tuple[float, bool]:
    """Return the minutes of the first process, and whether any process asks to stop."""
    if count() == 1:
        return minutes, stop
    led, stopped = _greatest(minutes if is_first() else -math.inf, float(stop))
    return led, bool(stopped)


def greatest(number: int) -> int:
    """Return the greatest number of all processes; it waits for all of them."""
    return int(_greatest(float(number))[0]) if count() > 1 else number


def unequal(numbers: Tensor) -> list[bool]:
    """Return which of some whole numbers, int64 [n], are not the same in all processes."""
    both = torch.cat([numbers, -numbers]).cpu()
    if count() > 1:
        with _connected():
            dist.all_reduce(both, dist.ReduceOp.MAX)
    greatest, least = both[: len(numbers)], -both[len(numbers) :]
    return (greatest != least).tolist()


def _greatest(*numbers: float) -> list[float]:
    found = torch.tensor(numbers, dtype=torch.float64)
    with _connected():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()


@contextmanager
def _connected() -> Iterator[None]:
    """Raise MelcapError where a block cannot reach the other processes."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise MelcapError(
            f"the other processes cannot be reached ({reason}): run the same command again, which "
            "resumes from the last checkpoint, if there is one"
        ) from error
