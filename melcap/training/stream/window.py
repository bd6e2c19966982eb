"""The audio in memory: blocks of pieces, of which the last few make the window of a stream.

A block has an equal part from each lane. While crops are drawn from the window, the next block is
decoded; then it takes the place of the oldest one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melcap.errors import MelcapError
from melcap.training.cutting import ClipChoice, Cutter
from melcap.training.stream.lane import LeftOut, Piece, Position
from melcap.training.stream.process import LaneReader, ready

BLOCKS = 4
"""The blocks of a window. Each stays for as many turns, and one more block is being decoded."""
MOST_BAD_CLIPS = 32
"""The run ends if so many clips cannot be decoded before the first that can."""
_MOST_NAMED = 100
"""The clips that are named when they are left out; more are only counted."""
_POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Block:
    """Pieces that were decoded together.

    Attributes:
        starts: the position of each lane before this block.
        pieces: the pieces, lane by lane.
        left_out: what could not be read, by the number of the lane.
    """

    starts: tuple[Position, ...]
    pieces: tuple[Piece, ...]
    left_out: tuple[tuple[int, LeftOut], ...]


class BlockReader:
    """Reads block after block from all lanes at once.

    Args:
        lanes: the lanes.
        room: the most samples of a lane in a block.
        longest: the most samples of a piece.
        stopped: ends a `read` that waits, once it is set.
    """

    def __init__(
        self, lanes: Sequence[LaneReader], room: int, longest: int, stopped: threading.Event
    ) -> None:
        self._lanes = lanes
        self._enough = room - longest
        self._stopped = stopped
        self._decoded = self._bad = 0

    def read(self) -> Block:
        """Return the next block.

        Raises:
            MelcapError: where a lane has ended, no clip can be decoded, or `stopped` is set.
        """
        starts = tuple(lane.at for lane in self._lanes)
        pieces: list[list[Piece]] = [[] for _ in self._lanes]
        left_out: list[tuple[int, LeftOut]] = []
        counts = [0] * len(self._lanes)
        numbers = {lane: number for number, lane in enumerate(self._lanes)}
        while numbers:
            if self._stopped.is_set():
                raise MelcapError("the stream was stopped")
            for lane in ready(list(numbers), _POLL_SECONDS):
                number, event = numbers[lane], lane.receive()
                if isinstance(event, Piece):
                    self._decoded += 1
                    pieces[number].append(event)
                    counts[number] += len(event.audio)
                    if counts[number] > self._enough:
                        del numbers[lane]
                elif event is not None:
                    self._report(event)
                    left_out.append((number, event))
        return Block(starts, tuple(piece for some in pieces for piece in some), tuple(left_out))

    def _report(self, event: LeftOut) -> None:
        self._bad += not event.is_shard
        if event.is_shard or self._bad <= _MOST_NAMED:
            log.warning("%s", event.reason)
        if self._bad == _MOST_NAMED and not event.is_shard:
            log.warning("further clips that cannot be decoded are counted, not named")
        if not self._decoded and self._bad >= MOST_BAD_CLIPS:
            raise MelcapError(
                f"none of the first {self._bad} clips can be decoded, the last one is: "
                f"{event.reason}"
            )

    def close(self) -> None:
        """End the processes of the lanes."""
        for lane in self._lanes:
            lane.close()


class Window:
    """The last blocks, and the choice of crops from them.

    Args:
        cutter: cuts the crops.
        weights: how likely each class is, relative to others. Only classes in the window count.
    """

    def __init__(self, cutter: Cutter, weights: Mapping[str, float]) -> None:
        self.blocks: deque[Block] = deque(maxlen=BLOCKS)
        self._cutter = cutter
        self._weights = weights

    def add(self, block: Block) -> None:
        """Take a block in, in the place of the oldest one if there are `BLOCKS` already."""
        self.blocks.append(block)
        self._pieces = [piece for one in self.blocks for piece in one.pieces]
        self._choice = ClipChoice(
            [piece.label for piece in self._pieces],
            [len(self._cutter.starts(len(p.audio), p.begins, p.ends)) for p in self._pieces],
            self._weights,
        )

    @property
    def samples(self) -> int:
        """Return the number of samples in the window."""
        return sum(len(piece.audio) for piece in self._pieces)

    def cut(self, row: npt.NDArray[np.float32], draws: npt.NDArray[np.float64]) -> None:
        """Fill a row of zeros with the crop that the draws choose."""
        piece = self._pieces[self._choice.clip(draws[0], draws[1])]
        self._cutter.cut(row, piece.audio, draws[2:], piece.begins, piece.ends)
