"""`StreamSampler`: random crops from tar shards that are decoded as the run goes on."""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from melcap.errors import InputError
from melcap.training import ranks
from melcap.training.audio_cache import SAMPLE_RATE
from melcap.training.checks import require
from melcap.training.cutting import DRAWS, Cutter
from melcap.training.stream.lane import Piece, Plan, Position
from melcap.training.stream.place import NOT_A_STATE, Identity, Place, join_ranks
from melcap.training.stream.process import LaneReader
from melcap.training.stream.shards import Shards
from melcap.training.stream.window import BLOCKS, Block, BlockReader, Window

PIECE = 60 * SAMPLE_RATE
"""The samples of a piece of a long clip, or fewer where memory is small; see `Plan`."""
EXAMPLE_SECONDS = 600
"""Audio of the first shard from which examples are taken."""


@dataclass(frozen=True)
class StreamOptions:
    """The options of a stream.

    Attributes:
        memory_gb: the memory for decoded audio, int16, in units of 10^9 bytes.
        reuse: the crops that are drawn from what is decoded, as a multiple of its length.
        decoders: the number of processes that decode, each from shards of its own; fewer where
            there are fewer shards.
        processes: False decodes in threads of this process, which survive no crash of a decoder.

    Raises:
        InputError: for numbers that are not above 0.
    """

    memory_gb: float = 2.0
    reuse: float = 4.0
    decoders: int = 8
    processes: bool = True

    def __post_init__(self) -> None:
        require(0 < self.memory_gb < float("inf"), "--stream-memory must be above 0")
        require(0 < self.reuse < float("inf"), "--reuse must be above 0")
        require(self.decoders >= 1, "--decoders must be at least 1")


class StreamSampler:
    """An endless source of random crops, in float32 batches [crops, samples].

    Crops are those of `CropSampler`, drawn from a window: the clips that were decoded last, as many
    as fit the memory. Classes have their weights within the window, and a clip is chosen in
    proportion to its length. Block by block the window moves on through the shards, whose order is
    another one in each epoch. Each block stays for `window.BLOCKS` turns, in which crops of `reuse`
    times its length are drawn on the average.

    A clip of two minutes or more is cut into pieces, and a crop never crosses from one to the next.
    With little memory that is so for shorter clips too.

    The crops depend on the shards, the seed, the class weights, the number of ranks and the options
    but for `processes`, and not on how fast anything is. `state_dict` and `load_state_dict` resume
    exactly: the window is decoded again. Clips that cannot be decoded, and the rest of a shard that
    cannot be read, are left out with a warning; the next epoch tries the shard again.

    Args:
        patterns: paths, URLs and `pipe:` commands of tar shards, with braces; see
            `shards.expand_braces`.
        samples: the length of a crop.
        batch: the number of crops in a batch, of all ranks together.
        seed: the seed of all choices.
        gain_db: see `CropSampler`.
        class_weights: see `CropSampler`.
        narrowed: see `CropSampler`.
        options: see `StreamOptions`.
        rank: the number of this rank. It gives the rows from batch * rank / world on of each batch,
            from shards that no other rank reads in this epoch.
        world: the number of ranks.

    Raises:
        InputError: for shards that are missing or fewer than the ranks, too little memory for a
            crop, and the settings that `CropSampler` refuses.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        samples: int,
        batch: int,
        seed: int,
        gain_db: tuple[float, float] = (-18.0, 0.0),
        class_weights: Mapping[str, float] | None = None,
        narrowed: float = 0.0,
        options: StreamOptions | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._options = options or StreamOptions()
        self._weights = dict(class_weights or {})
        self._shards = Shards.of(patterns)
        count = len(self._shards.names)
        require(batch >= world, f"a batch of {batch} has no crop for each of {world} processes")
        require(count >= world, f"{count} shards are too few for {world} processes that train")
        weights = self._weights.values()
        require(
            all(0 <= weight < float("inf") for weight in weights),
            f"class weights must be >= 0, not {self._weights}",
        )
        self._cutter = Cutter(samples, gain_db, narrowed)
        self._rank = rank
        self._rows = batch * (rank + 1) // world - batch * rank // world
        lanes = min(self._options.decoders, count // world)
        memory = round(self._options.memory_gb * 1e9)
        self._identity = Identity(self._shards.key, count, seed, world, lanes, memory)
        # Two bytes a sample; the block that is being decoded needs room as well.
        self._room = memory // 2 // (BLOCKS + 1) // lanes
        self._piece = min(PIECE, self._room // 4)
        if samples > self._piece:
            needed = samples * 4 * 2 * (BLOCKS + 1) * lanes / 1e9
            raise InputError(
                f"{memory / 1e9:g} GB are too little memory for {lanes} decoders and crops of "
                f"{samples / SAMPLE_RATE:.1f} s: --stream-memory must be above {needed:.2f}"
            )
        self._place = Place.first(lanes)
        self._reader: BlockReader | None = None
        self._next_block: Future[Block] | None = None
        self._stopped = threading.Event()
        self._decoding = ThreadPoolExecutor(1, "decoding")
        self._cutters = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "crops")

    @property
    def key(self) -> str:
        """Return the hash of the shards."""
        return self._shards.key

    def hours(self) -> dict[str, float]:
        """Return the hours of each class that were decoded so far, in all epochs together.

        All ranks call it at the same step, and get the sums over all of them.
        """
        totals: Counter[str] = Counter()
        for seen in ranks.objects(dict(self._place.samples)):
            totals.update(seen)
        return _hours(totals)

    def description(self) -> str:
        """Return what must be the same in all ranks: the shards, and the choices for a run."""
        return str(self._identity)

    def summary(self) -> str:
        """Return a sentence on what this rank decoded and left out."""
        place, hours = self._place, _hours(self._place.samples)
        classes = ", ".join(f"{label} {value:.2f}" for label, value in hours.items()) or "none"
        left_out = (
            f"{place.clips_left_out} clips and the rest of {place.shards_left_out} shards were left"
            " out"
        )
        never = sorted(set(self._weights) - set(hours)) if hours else []
        unseen = f"; no clip of class {', '.join(never)} has come" if never else ""
        who = f"process {self._rank} of {self._identity.world} " if self._identity.world > 1 else ""
        return (
            f"{who}streamed {sum(hours.values()):.2f} hours so far ({classes}); {left_out}{unseen}"
        )

    def next(self) -> Tensor:
        """Return this rank's rows of the next batch, float32 in [-1, 1], on the CPU.

        Raises:
            MelcapError: where no more audio can be had, see `BlockReader.read`.
        """
        out = np.zeros((self._rows, self._cutter.samples), np.float32)
        if self._reader is None:
            self._begin()
        done = 0
        while done < self._rows:
            left = self._crops - self._place.crop
            if left <= 0:
                self._next_turn()
                continue
            some = out[done : done + left]
            draws = self._rng.random((len(some), DRAWS))
            deque(self._cutters.map(self._window.cut, some, draws), maxlen=0)
            self._place = replace(self._place, crop=self._place.crop + len(some))
            done += len(some)
        return torch.from_numpy(out)

    def _begin(self) -> None:
        """Start to decode at the place; decode its window again if it has one."""
        lanes = [self._lane(number) for number in range(self._identity.lanes)]
        self._reader = BlockReader(lanes, self._room, 2 * self._piece, self._stopped)
        self._window = Window(self._cutter, self._weights)
        self._crops = 0
        if self._place.turn >= 0:
            for _ in range(min(self._place.turn + 1, BLOCKS)):
                self._window.add(self._reader.read())
            self._begin_turn()
        self._next_block = self._decoding.submit(self._reader.read)

    def _lane(self, number: int) -> LaneReader:
        plan = Plan(
            self._shards.names,
            self._identity.seed,
            self._rank * self._identity.lanes + number,
            self._identity.world * self._identity.lanes,
            self._piece,
            frozenset(label for label, weight in self._weights.items() if not weight),
        )
        place = self._place
        at, jumps = place.starts[number], place.jumps[number]
        return LaneReader(plan, at, jumps, self._options.processes)

    def _next_turn(self) -> None:
        """Take in the block that was decoded meanwhile, and begin to decode another."""
        assert self._reader is not None
        assert self._next_block is not None
        block = self._next_block.result()
        self._next_block = self._decoding.submit(self._reader.read)
        self._window.add(block)
        self._place = self._place.next_turn(self._window.blocks[0].starts, block)
        self._begin_turn()

    def _begin_turn(self) -> None:
        """Set the number of crops of this turn, and its generator at the place."""
        share = self._options.reuse * self._window.samples / BLOCKS
        self._crops = max(1, round(share / self._cutter.samples))
        identity = self._identity
        seed = [identity.seed, identity.world, self._rank, self._place.turn]
        self._rng = np.random.default_rng(seed)
        self._rng.random((self._place.crop, DRAWS))

    def examples(self, samples: int, count: int) -> dict[str, Tensor]:
        """Return crops [count, samples] of the classes at the beginning of the first shard.

        They are the same ones in every run, at -3 dB.
        """
        plan = Plan(self._shards.names[:1], 0, 0, 1, max(PIECE, samples))
        cutter = Cutter(samples, (-3.0, -3.0))
        found: dict[str, list[Piece]] = {}
        missing = EXAMPLE_SECONDS * SAMPLE_RATE
        lane = LaneReader(plan, Position(0, 0, 0), process=self._options.processes)
        try:
            while missing > 0 and not lane.at.item:
                event = lane.receive()
                if isinstance(event, Piece) and not lane.at.item:
                    found.setdefault(event.label, []).append(event)
                    missing -= len(event.audio)
        finally:
            lane.close()
        crops = {}
        for label, pieces in sorted(found.items()):
            window = Window(cutter, {})
            window.add(Block((), tuple(pieces), ()))
            out = np.zeros((count, samples), np.float32)
            for row, draws in zip(
                out, np.random.default_rng(0).random((count, DRAWS)), strict=True
            ):
                window.cut(row, draws)
            crops[label] = torch.from_numpy(out)
        return crops

    def stop(self) -> None:
        """Make a `next` that waits in another thread end with an error."""
        self._stopped.set()

    def close(self) -> None:
        """End what decodes. The sampler can go on after `load_state_dict`."""
        reader, self._reader = self._reader, None
        if reader is not None:
            self._stopped.set()
            if self._next_block is not None:
                wait([self._next_block])
            reader.close()
        self._next_block = None
        self._stopped.clear()

    def state_dict(self) -> dict[str, object]:
        """Return plain numbers and strings, fit for JSON, from which `load_state_dict` resumes.

        It is the state of this rank. `state_of_all` makes that of all ranks.
        """
        places = {str(self._rank): self._place.to_json()}
        return {"stream": dict(vars(self._identity)), "ranks": places}

    def state_of_all(self, state: Mapping[str, object]) -> Mapping[str, object]:
        """Return one state for a checkpoint from the states of all ranks, which all call it."""
        return join_ranks(ranks.objects(dict(state)))

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Resume after the batch at which `state` was taken; the seed is that of the state.

        Raises:
            InputError: for the state of other shards, another number of ranks or lanes, or other
                memory, and for what is not the state of a stream.
        """
        stream, places = state.get("stream"), state.get("ranks")
        if not isinstance(stream, dict) or not isinstance(places, dict):
            raise InputError(NOT_A_STATE)
        self._identity.check(stream)
        if str(self._rank) not in places:
            raise InputError(f"this checkpoint does not have the place of rank {self._rank}")
        self.close()
        self._identity = replace(self._identity, seed=int(stream["seed"]))
        self._place = Place.from_json(places[str(self._rank)])

    def __enter__(self) -> StreamSampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _hours(samples: Mapping[str, int]) -> dict[str, float]:
    """Return the hours of each class, given its samples."""
    return {label: count / SAMPLE_RATE / 3600 for label, count in sorted(samples.items())}
