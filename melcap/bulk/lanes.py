"""Threads that hold the codec, and turn windows of many clips into tokens."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from time import perf_counter

import torch

from melcap.bulk.encoding import Encoded, encode
from melcap.bulk.entry import Entry
from melcap.bulk.messages import Bad, End, Window
from melcap.bulk.packer import Packer
from melcap.bulk.readers import Readers
from melcap.bulk.windows import Framing
from melcap.codec import Codec

Results = queue.Queue[Encoded | End | Bad | BaseException | None]


class Lanes:
    """`lanes` threads, in which torch computes with `threads` threads each.

    On a CPU, several lanes of one thread do more than one lane of several. On a GPU, two lanes fill
    and copy a batch while another one is computed. Batches hold up to `batch_seconds` of audio, or
    one window.
    """

    def __init__(
        self, codec: Codec, framing: Framing, lanes: int, threads: int, batch_seconds: float
    ) -> None:
        self._codec = codec
        self._framing = framing
        self._lanes = lanes
        self._threads = threads
        self._batch_samples = int(batch_seconds * self._framing.rate)
        self._busy = [0.0] * lanes
        self._began = perf_counter()

    @property
    def busy(self) -> float:
        """The share of time in which lanes computed, and did not wait for audio."""
        return sum(self._busy) / self._lanes / max(perf_counter() - self._began, 1e-9)

    def encode(
        self, readers: Readers, entries: Iterator[tuple[int, Entry]]
    ) -> Generator[Encoded | End | Bad]:
        """Give what readers make of the entries, with tokens in place of windows, as it comes."""
        window = self._framing.samples(self._framing.columns)
        packer = Packer(self._batch_samples, 2 * self._lanes * max(self._batch_samples, window))
        results: Results = queue.Queue()

        def feed() -> None:
            try:
                for message in readers.read(entries):
                    if isinstance(message, Window):
                        packer.put(message)
                    else:
                        results.put(message)
            finally:
                packer.close()

        def work(lane: int) -> None:
            torch.set_num_threads(self._threads)
            while batch := packer.take():
                begun = perf_counter()
                for encoded in encode(self._codec, batch):
                    results.put(encoded)
                self._busy[lane] += perf_counter() - begun

        self._began = perf_counter()
        with _threads_of_torch(self._threads):
            works = [feed, *(lambda lane=lane: work(lane) for lane in range(self._lanes))]
            threads = [_begun(each, results) for each in works]
            try:
                running = len(threads)
                while running:
                    result = results.get()
                    if result is None:
                        running -= 1
                    elif isinstance(result, BaseException):
                        raise result
                    else:
                        yield result
            finally:
                readers.stop()
                packer.close(discard=True)
                for thread in threads:
                    thread.join()


def _begun(work: Callable[[], None], results: Results) -> threading.Thread:
    """A thread at work; its error, if there is one, and at its end None are put into `results`."""

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            results.put(error)
        results.put(None)

    # In a copy of the context, as the choice of a backend is part of it.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(guarded,), daemon=True)
    thread.start()
    return thread


@contextmanager
def _threads_of_torch(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
