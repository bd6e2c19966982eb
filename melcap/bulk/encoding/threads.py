"""Threads that run the codec, and turn windows of many clips into tokens."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from time import perf_counter

import torch

from melcap.audio_codec import AudioCodec
from melcap.bulk.encoding.batches import Batcher
from melcap.bulk.encoding.encode import EncodedWindow, encode_windows
from melcap.bulk.manifests.entries import Entry
from melcap.bulk.reading.messages import Bad, End, Window
from melcap.bulk.reading.pool import ReaderPool
from melcap.bulk.reading.windows import Framing

Results = queue.Queue[EncodedWindow | End | Bad | BaseException | None]


class EncoderThreads:
    """Several threads that encode with one codec.

    On a CPU, several encoder threads with one thread of torch each do more than one encoder thread
    with several. On a GPU, two encoder threads prepare and copy a batch while another is computed.

    Args:
        codec: the codec.
        framing: the codec's rate, columns and context, which give the lengths of windows.
        count: the number of encoder threads.
        torch_threads: the number of torch's threads in each of them.
        batch_seconds: the audio in a batch, which is at least one window.
    """

    def __init__(
        self,
        codec: AudioCodec,
        framing: Framing,
        count: int,
        torch_threads: int,
        batch_seconds: float,
    ) -> None:
        self._codec = codec
        self._framing = framing
        self._count = count
        self._torch_threads = torch_threads
        self._batch_samples = int(batch_seconds * self._framing.rate)
        self._busy = [0.0] * count
        self._began = perf_counter()

    @property
    def busy(self) -> float:
        """The share of time in which the threads computed, and did not wait for audio."""
        return sum(self._busy) / self._count / max(perf_counter() - self._began, 1e-9)

    def encode(
        self, readers: ReaderPool, entries: Iterator[tuple[int, Entry]]
    ) -> Generator[EncodedWindow | End | Bad]:
        """Yield the messages of the readers as they come, with tokens in place of windows.

        Args:
            readers: the processes that read the clips.
            entries: the clips, with their numbers.
        """
        window = self._framing.samples(self._framing.columns)
        batcher = Batcher(
            self._batch_samples,
            2 * self._count * max(self._batch_samples, window),
            one_length=self._framing.one_length,
        )
        results: Results = queue.Queue()

        def feed() -> None:
            try:
                for message in readers.read(entries):
                    if isinstance(message, Window):
                        batcher.put(message)
                    else:
                        results.put(message)
            finally:
                batcher.close()

        def work(number: int) -> None:
            torch.set_num_threads(self._torch_threads)
            while batch := batcher.take():
                begun = perf_counter()
                for encoded in encode_windows(self._codec, batch):
                    results.put(encoded)
                self._busy[number] += perf_counter() - begun

        self._began = perf_counter()
        with _threads_of_torch(self._torch_threads):
            works = [feed, *(lambda number=number: work(number) for number in range(self._count))]
            threads = [_started(each, results) for each in works]
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
                batcher.close(discard=True)
                for thread in threads:
                    thread.join()


def _started(work: Callable[[], None], results: Results) -> threading.Thread:
    """Start a thread, which puts its error, if any, and at its end None into `results`."""

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            results.put(error)
        results.put(None)

    # In a copy of the context, because the choice of a backend is part of it.
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
