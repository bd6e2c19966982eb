"""The engine "ray" of `tokenize`: Ray Data reads and encodes on many machines.

Tasks read audio, actors hold the codec. Ray places and retries the work, limits how many windows
wait, and grows and shrinks the pool of actors. The process that called `tokenize` writes the
journal and the shards, as it does without Ray.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Generator, Iterable, Iterator
from copy import deepcopy
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.audio_codec import AudioCodec
from melcap.bulk.encoding.batches import Batcher
from melcap.bulk.encoding.encode import EncodedWindow, encode_windows
from melcap.bulk.manifests.entries import Entry
from melcap.bulk.options import Options
from melcap.bulk.reading.decoding import read_task
from melcap.bulk.reading.messages import Bad, End, Window
from melcap.bulk.reading.tasks import tasks
from melcap.bulk.reading.windows import Framing
from melcap.errors import MelcapError
from melcap.extras import import_extra
from melcap.ops import set_backend

INSTALL = 'pip install "melcap[ray]"'
_CLIPS_AT_ONCE = 100_000  # in one data set of Ray
_TASKS_PER_BLOCK = 16

_COLUMN = "message"

Batch = dict[str, npt.NDArray[np.object_]]
"""Rows of a data set of Ray: pickled objects in one column."""


class RayEncoder:
    """Encodes on the cluster that Ray is connected to (RAY_ADDRESS, or this machine).

    An actor has a GPU if the device is "cuda", else `options.threads` cores (1 by default). There
    are up to `options.encoders` actors, or as many as the cluster has room for.

    Args:
        codec: the codec, on any device.
        framing: the codec's rate, columns and context.
        options: the options of the run.
        device: the device of the actors, "cpu" or "cuda".
        batch_seconds: the most audio that an actor gets at once.

    Raises:
        MelcapError: if Ray is not installed, or the cluster has no room for one actor.
    """

    def __init__(
        self,
        codec: AudioCodec,
        framing: Framing,
        options: Options,
        device: str,
        batch_seconds: float,
    ) -> None:
        self._ray = import_extra("ray", INSTALL)
        self._data = import_extra("ray.data", INSTALL)
        if not self._ray.is_initialized():
            self._ray.init(log_to_driver=False)
        self._framing, self._mono = framing, options.mono
        self._device, self._backend = device, options.backend
        self._threads = options.threads or 1
        self._batch_samples = int(batch_seconds * framing.rate)
        needs = {"GPU": 1} if device == "cuda" else {"CPU": self._threads}
        have = self._ray.cluster_resources()
        self._needs = {f"num_{name.lower()}s": count for name, count in needs.items()}
        room = min(int(have.get(name, 0) // count) for name, count in needs.items())
        if not room:
            raise MelcapError(f"Ray's cluster has no {needs} for an actor: it has {dict(have)}")
        # If actors use cores, some are left for the tasks that read.
        self._actors = options.encoders or (room if device == "cuda" else max(1, room * 3 // 4))
        self._codec = self._ray.put(codec if codec.device.type == "cpu" else deepcopy(codec).cpu())

    def encode(self, entries: Iterator[tuple[int, Entry]]) -> Generator[EncodedWindow | End | Bad]:
        """Yield the results of the cluster as they come.

        There is no result for clips on which Ray gave up, because the tasks that read them kept
        dying.
        """
        self._data.DataContext.get_current().max_errored_blocks = -1
        self._data.DataContext.get_current().enable_progress_bars = False
        while some := list(islice(entries, _CLIPS_AT_ONCE)):
            yield from self._encode(some)

    def _encode(self, entries: list[tuple[int, Entry]]) -> Generator[EncodedWindow | End | Bad]:
        framing, mono = self._framing, self._mono
        work = list(tasks(entries))
        blocks = max(1, len(work) // _TASKS_PER_BLOCK)
        window = framing.samples(framing.columns)
        results = (
            self._data.from_items(
                [{_COLUMN: pickle.dumps(each)} for each in work], override_num_blocks=blocks
            )
            .map_batches(
                _read, batch_size=1, fn_kwargs={"framing": framing, "mono": mono}, num_cpus=1
            )
            .map_batches(
                _EncodingActor,
                batch_size=max(1, self._batch_samples // window),
                fn_constructor_args=(
                    self._codec,
                    self._device,
                    self._backend,
                    self._threads,
                    self._batch_samples,
                    framing.one_length,
                ),
                concurrency=(1, self._actors),
                **self._needs,
            )
        )
        for row in results.iter_rows():
            yield pickle.loads(row[_COLUMN])


def _read(batch: Batch, framing: Framing, mono: bool) -> Iterator[Batch]:
    """Read the clips of tasks, message by message; a task of Ray runs it."""
    for work in batch[_COLUMN]:
        for message in read_task(pickle.loads(work), framing, mono):
            yield _column([message])


class _EncodingActor:
    """An actor that holds the codec on the device that Ray gave it."""

    def __init__(
        self,
        codec: Any,
        device: str,
        backend: str,
        threads: int,
        batch_samples: int,
        one_length: bool,
    ) -> None:
        import ray
        import torch

        torch.set_num_threads(threads)
        set_backend(backend)
        self._codec: AudioCodec = ray.get(codec).to(device)
        self._batch_samples, self._one_length = batch_samples, one_length

    def __call__(self, batch: Batch) -> Batch:
        messages = [pickle.loads(message) for message in batch[_COLUMN]]
        results = [message for message in messages if not isinstance(message, Window)]
        batcher = Batcher(self._batch_samples, sys.maxsize, one_length=self._one_length)
        for message in messages:
            if isinstance(message, Window):
                batcher.put(message)
        batcher.close()
        while windows := batcher.take():
            results += encode_windows(self._codec, windows)
        return _column(results)


def _column(messages: Iterable[Any]) -> Batch:
    """Return messages as rows of Ray, pickled in one column."""
    pickled = [pickle.dumps(message) for message in messages]
    return {_COLUMN: np.array(pickled, dtype=object)}
