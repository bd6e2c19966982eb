"""The place of a stream in a checkpoint: positions of what is in memory, and no audio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from melcap.errors import InputError
from melcap.training.stream.lane import Position
from melcap.training.stream.window import Block

NOT_A_STATE = (
    "this is not the state of a stream: a run that began without --stream resumes without it"
)


@dataclass(frozen=True)
class Identity:
    """The choices that may not change while a run lasts, because positions depend on them.

    Attributes:
        key: the hash of the shards.
        shards: the number of shards.
        seed: the seed of their order, and of the crops.
        world: the number of ranks.
        lanes: the number of lanes of each rank.
        memory: the bytes of audio in memory.
    """

    key: str
    shards: int
    seed: int
    world: int
    lanes: int
    memory: int

    def check(self, before: Mapping[str, Any]) -> None:
        """Refuse to go on from the state of a stream with another identity.

        Raises:
            InputError: for what is different.
        """
        if not vars(self).keys() <= before.keys():
            raise InputError(NOT_A_STATE)
        another = "resume it as it was, or start another run in another folder"
        if before["key"] != self.key:
            raise InputError(
                f"this run streams other shards: it had {before['shards']} and now there are "
                f"{self.shards}, or files of other names or sizes; {another}"
            )
        for name, option in (
            ("world", "processes that train"),
            ("lanes", "decoders, see --decoders"),
            ("memory", "bytes of memory, see --stream-memory"),
        ):
            if before[name] != getattr(self, name):
                raise InputError(
                    f"this run streams with {before[name]} {option}, not {getattr(self, name)}; "
                    f"{another}"
                )


@dataclass(frozen=True)
class Place:
    """The place of one rank.

    Attributes:
        turn: the number of the window, from 0; -1 before the first.
        crop: the crops of this turn that were drawn.
        starts: the position of each lane before the oldest block of the window.
        jumps: what the lanes left out since then. It must be left out again when a run resumes,
            even if it can be read by then.
        samples: the samples of each class that were decoded so far.
        clips_left_out: the clips that were left out so far.
        shards_left_out: the shards of which something was left out so far.
    """

    turn: int
    crop: int
    starts: tuple[Position, ...]
    jumps: tuple[Mapping[Position, Position], ...]
    samples: Mapping[str, int] = field(default_factory=dict)
    clips_left_out: int = 0
    shards_left_out: int = 0

    @classmethod
    def first(cls, lanes: int) -> Place:
        """Return the place before the first crop."""
        return cls(-1, 0, (Position(0, 0, 0),) * lanes, ({},) * lanes)

    def next_turn(self, starts: Sequence[Position], block: Block) -> Place:
        """Return the place at which the next turn begins.

        Args:
            starts: the position of each lane before the oldest block of its window.
            block: the newest block of that window.
        """
        jumps = [
            {at: after for at, after in some.items() if at >= start}
            for some, start in zip(self.jumps, starts, strict=True)
        ]
        for lane, event in block.left_out:
            jumps[lane][event.at] = event.after
        samples = dict(self.samples)
        for piece in block.pieces:
            samples[piece.label] = samples.get(piece.label, 0) + len(piece.audio)
        shards = sum(event.is_shard for _, event in block.left_out)
        return Place(
            self.turn + 1,
            0,
            tuple(starts),
            tuple(jumps),
            samples,
            self.clips_left_out + len(block.left_out) - shards,
            self.shards_left_out + shards,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, lists and strings."""
        return {
            **vars(self),
            "starts": [list(position) for position in self.starts],
            "jumps": [[[list(a), list(b)] for a, b in jumps.items()] for jumps in self.jumps],
            "samples": dict(self.samples),
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Place:
        """Return the place that `to_json` wrote.

        Raises:
            InputError: for anything else.
        """
        try:
            return cls(
                **{
                    **state,
                    "starts": tuple(Position(*position) for position in state["starts"]),
                    "jumps": tuple(
                        {Position(*a): Position(*b) for a, b in jumps} for jumps in state["jumps"]
                    ),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{NOT_A_STATE} ({error!r})") from error


def join_ranks(states: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Return one state for a checkpoint from the states of all ranks."""
    ranks = {rank: place for state in states for rank, place in state["ranks"].items()}
    return {"stream": states[0]["stream"], "ranks": ranks}
