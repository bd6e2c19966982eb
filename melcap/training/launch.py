"""The processes of a session: this one alone, or those that torchrun started.

torchrun tells each process its place in the environment. The processes then find each other, train
as one (`melcap.training.ranks`) and end as one: an error of any of them is said once, by the one
that met it, and torchrun ends the others.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from melcap.errors import InputError, MelcapError
from melcap.processes import usable_cores

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The variables by which torchrun tells a process its place."""
TIMEOUT = timedelta(minutes=15)
"""The longest that processes wait for one that computes, compiles or saves."""
_POLL_SECONDS = 0.2
_LEAVE_SECONDS = 10.0


class Place(NamedTuple):
    """The place of a process among others.

    Attributes:
        rank: its number, from 0.
        local_rank: its number on its machine, from 0.
        size: the number of processes on all machines.
    """

    rank: int
    local_rank: int
    size: int


def place_of(environment: Mapping[str, str]) -> Place | None:
    """Return the place that torchrun gave this process, or None where it did not start it.

    Raises:
        InputError: for an environment that says a part of it, or what cannot be.
    """
    if not any(environment.get(name) for name in VARIABLES[:3]):
        return None
    missing = [name for name in VARIABLES if not environment.get(name)]
    if missing:
        found = [name for name in VARIABLES if name not in missing]
        raise InputError(
            f"the environment has {', '.join(found)} and lacks {', '.join(missing)}: start "
            "several processes with torchrun, which sets all of them, or unset them to train in one"
        )
    numbers = [environment[name] for name in VARIABLES[:3]]
    if all(number.isdecimal() for number in numbers):
        place = Place(*map(int, numbers))
        if place.local_rank <= place.rank < place.size:
            return place
    told = ", ".join(f"{name}={environment[name]}" for name in VARIABLES[:3])
    raise InputError(f"the environment says {told}, which cannot be: start with torchrun")


class Processes:
    """The processes of a session: without torchrun this one alone."""

    threads: int | None = None
    """The share of a machine's cores that torch's threads get; None to leave that to torch."""

    def device(self, name: str | None) -> str | None:
        """Return the device of this process, given the one that was asked for."""
        return name

    def begin(self, device: str) -> None:
        """Connect this process to the others, to train on a device."""

    def once_per_machine(self, work: Callable[[], object]) -> None:
        """Do some work in one process of each machine; return when it is done on this machine."""
        work()


class Launched(Processes):
    """The processes that torchrun started, of which this is one.

    Args:
        place: the place of this process.
        store: the store that they share.
    """

    def __init__(self, place: Place, store: Store) -> None:
        self.place = place
        self._store = store
        store.set(f"machine of {place.rank}", socket.gethostname())
        machines = [store.get(f"machine of {rank}") for rank in range(place.size)]
        neighbours = [r for r, name in enumerate(machines) if name == machines[place.rank]]
        self._builder = neighbours[0]
        self.threads = max(1, usable_cores() // len(neighbours))

    def device(self, name: str | None) -> str | None:
        """Return the GPU of this process's number on its machine, unless a CPU was asked for."""
        if name == "cpu" or (name is None and not torch.cuda.is_available()):
            return "cpu"
        if name not in (None, "cuda"):
            raise InputError(
                f"--device {name} names one GPU, and each process of torchrun takes its own: give "
                "--device cuda"
            )
        return f"cuda:{self.place.local_rank}"

    def begin(self, device: str) -> None:
        """Join the group of processes, with NCCL for GPUs and Gloo for CPUs and small decisions."""
        dist.init_process_group(
            "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
            store=PrefixStore("group", self._store),
            rank=self.place.rank,
            world_size=self.place.size,
            timeout=TIMEOUT,
        )

    def once_per_machine(self, work: Callable[[], object]) -> None:
        """Do some work in one process of each machine; return when it is done on this machine.

        It may take hours, so no collective waits for it. The machine of the first process is done
        before others begin: where machines share a folder, they find there what it has made.
        """
        if self.place.rank == self._builder:
            if self.place.rank != 0:
                self._wait(0)
            work()
            self._store.set(f"done by {self._builder}", "")
        else:
            self._wait(self._builder)

    def _wait(self, builder: int) -> None:
        while not self._store.check([f"done by {builder}"]):
            time.sleep(_POLL_SECONDS)


@contextmanager
def processes() -> Iterator[Processes]:
    """Yield the processes of this session, as the environment says.

    An exception in the block ends this process. The first process that meets one says it; others,
    for which it is a consequence or the same, end without a word.

    Raises:
        InputError: for an environment that cannot be.
        MelcapError: where the other processes cannot be reached.
    """
    place = place_of(os.environ)
    if place is None:
        yield Processes()
        return
    try:
        store: Store = next(iter(rendezvous("env://", timeout=TIMEOUT)))[0]
        launched = Launched(place, store)
    except RuntimeError as error:
        raise MelcapError(
            f"process {place.rank} of {place.size} cannot reach the others: {error}"
        ) from error
    try:
        yield launched
    except Exception as error:
        if not _is_first_to_fail(store):
            raise SystemExit(1) from error
        if isinstance(error, MelcapError):
            said = f"process {place.rank} of {place.size}: {error}"
            raise type(error)(said) from error
        raise
    finally:
        _leave()


def _leave() -> None:
    """Leave the group of processes, and wait for it briefly: peers that failed may never answer.

    The interpreter must not end before, because it would abort in threads that are still connected.
    """
    if dist.is_initialized():
        leaving = threading.Thread(target=dist.destroy_process_group, daemon=True)
        leaving.start()
        leaving.join(_LEAVE_SECONDS)


def _is_first_to_fail(store: Store) -> bool:
    try:
        return store.add("failed", 1) == 1
    except RuntimeError:
        return True  # the store is gone too, and nobody else may say it
