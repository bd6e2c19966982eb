"""A lane: the endless sequence of pieces of clips that one process decodes.

The shards of all epochs follow each other in one sequence, each epoch in an order of its own, and
the lanes of all ranks take them in turn. So each shard is read once an epoch, by one lane. What a
lane gives depends on its plan alone, never on how fast it is or on what is read elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from melcap.errors import MelcapError
from melcap.training.decoding import decoded
from melcap.training.stream.shards import TAR_ERRORS, is_local
from melcap.training.stream.tar_clips import TarClip, clips_in

ATTEMPTS_AFTER = (1.0, 4.0, 16.0)
"""Seconds to wait before a URL or command that failed is tried again; then it is left out."""
MOST_SHARDS_LEFT_OUT = 3
"""A lane that finds no clip in so many shards in a row, because they cannot be read, gives up."""


class Position(NamedTuple):
    """A place in a lane: a shard of its sequence, a clip of that, and a piece of that."""

    item: int
    clip: int
    piece: int


class Piece(NamedTuple):
    """Some audio of a clip.

    Attributes:
        after: the position after it.
        label: the class of the clip.
        audio: int16 [samples], mono at 44.1 kHz.
        begins: whether it is the beginning of its clip.
        ends: whether it is the end of its clip.
    """

    after: Position
    label: str
    audio: npt.NDArray[np.int16]
    begins: bool
    ends: bool


class Opened(NamedTuple):
    """A clip that is decoded next.

    Attributes:
        after: its position, from which the lane goes on if it is begun again.
        name: its name and that of its shard.
    """

    after: Position
    name: str


class LeftOut(NamedTuple):
    """A clip, or the rest of a shard, that cannot be read.

    Attributes:
        at: the position of what is left out.
        after: the position after it.
        reason: a sentence that names it.
    """

    at: Position
    after: Position
    reason: str

    @property
    def is_shard(self) -> bool:
        """Return whether the rest of a shard is left out."""
        return self.after.item > self.at.item


Event = Piece | Opened | LeftOut
Jumps = Mapping[Position, Position]
"""Positions at which a lane leaves out what follows, and where it goes on."""


@dataclass(frozen=True)
class Plan:
    """The choices on which the pieces of a lane depend.

    Attributes:
        shards: the shards of the collection.
        seed: the seed of their order.
        number: the number of this lane among those of all ranks.
        lanes: the number of lanes of all ranks.
        piece: the samples of a piece. Clips shorter than two pieces are whole; a longer clip is
            cut, and its last piece is longer than the others.
        unwanted: the classes that are not decoded.
    """

    shards: tuple[str, ...]
    seed: int
    number: int
    lanes: int
    piece: int
    unwanted: frozenset[str] = frozenset()

    def shard(self, item: int) -> str:
        """Return the shard that is number `item` in the sequence of this lane."""
        epoch, place = divmod(item * self.lanes + self.number, len(self.shards))
        return self.shards[_order(self.seed, epoch, len(self.shards))[place]]


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, shards: int) -> npt.NDArray[np.intp]:
    return np.random.default_rng([seed, epoch]).permutation(shards)


def events(plan: Plan, at: Position, jumps: Jumps) -> Iterator[Event]:
    """Yield the events of a lane from a position on: clips opened, pieces, what is left out.

    Args:
        plan: see `Plan`.
        at: the position to begin at.
        jumps: what is left out, because it was before.

    Raises:
        MelcapError: where nothing is left to try.
    """
    failed = barren = 0
    while True:
        item, found, lost = at.item, False, ""
        for event in _in_shard(plan, at, jumps):
            at = event.after
            if isinstance(event, Piece):
                found = True
            elif isinstance(event, LeftOut) and event.is_shard:
                lost = event.reason
            yield event
        at = Position(item + 1, 0, 0)
        failed = 0 if found or not lost else failed + 1
        if failed == MOST_SHARDS_LEFT_OUT:
            raise MelcapError(f"{failed} shards in a row cannot be read, the last one is: {lost}")
        barren = 0 if found or lost else barren + 1
        if barren > len(plan.shards):
            raise MelcapError("no shard holds audio of a class whose weight is above 0")


def _in_shard(plan: Plan, at: Position, jumps: Jumps) -> Iterator[Event]:
    """Yield what a shard gives from a position on, in several attempts if it is not local."""
    shard, after = plan.shard(at.item), Position(at.item + 1, 0, 0)
    waits = iter(() if is_local(shard) else ATTEMPTS_AFTER)
    while jumps.get(at) != after:
        try:
            for clip in clips_in(shard, at.clip):
                at = Position(at.item, clip.number, at.piece if clip.number == at.clip else 0)
                for event in _in_clip(plan, shard, clip, at, jumps):
                    at = event.after
                    yield event
                at = Position(at.item, clip.number + 1, 0)
                if jumps.get(at) == after:
                    break
            return
        except TAR_ERRORS as error:
            wait = next(waits, None)
            if wait is None:
                what = f"{shard} from clip {at.clip} on is left out of this epoch"
                yield LeftOut(at, after, f"{what}: {error}")
                return
            time.sleep(wait)


def _in_clip(plan: Plan, shard: str, clip: TarClip, at: Position, jumps: Jumps) -> Iterator[Event]:
    """Yield the pieces of a clip from a position on; a clip that cannot be read is left out."""
    after = Position(at.item, clip.number + 1, 0)
    if clip.label in plan.unwanted or jumps.get(at) == after:
        return
    name = f"{clip.name} of {shard}"
    yield Opened(at, name)
    try:
        if clip.fault:
            raise MelcapError(clip.fault)
        for number, (audio, begins, ends) in enumerate(_pieces(clip, plan.piece)):
            if number < at.piece:
                continue
            if jumps.get(at) == after:
                return
            at = after if ends else Position(at.item, clip.number, number + 1)
            yield Piece(at, clip.label, audio, begins, ends)
    except Exception as error:  # of any kind, because a clip must not end a run
        yield LeftOut(at, after, f"{name} is left out: {error}")


def _pieces(clip: TarClip, length: int) -> Iterator[tuple[npt.NDArray[np.int16], bool, bool]]:
    """Yield the audio of a clip in pieces of `length` samples, the last one longer than that."""
    held: list[npt.NDArray[np.int16]] = []
    count, begins = 0, True
    for block in decoded(cast("IO[bytes]", NamedFile(clip.audio, clip.name))):
        held.append(block)
        count += len(block)
        while count >= 2 * length:
            whole = np.concatenate(held)
            yield whole[:length], begins, False
            held, count, begins = [whole[length:]], count - length, False
    yield np.concatenate(held), begins, True


class NamedFile:
    """A file object that is read once, and whose name appears in errors."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name = name
        self.read = file.read
