"""Batches of windows of many clips, of similar lengths or of one length."""

from __future__ import annotations

import threading

from melcap.bulk.reading.messages import Window


class Batcher:
    """A queue of windows that gives them out in batches. It is safe for any number of threads.

    It holds at most `room` samples and one window more; `put` waits while it is full.

    Args:
        batch_samples: the most samples of a batch, with padding. A single window may be longer.
        room: the samples at which the queue is full.
        one_length: whether the windows of a batch must have one length, for codecs that take
            padding into account.
    """

    def __init__(self, batch_samples: int, room: int, *, one_length: bool = False) -> None:
        self._batch_samples = batch_samples
        self._room = max(room, batch_samples, 1)
        self._one_length = one_length
        self._waiting: list[Window] = []
        self._held = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, window: Window) -> None:
        """Add a window; after `close` it is dropped."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._held < self._room)
            if not self._closed:
                self._waiting.append(window)
                self._held += len(window.samples)
                self._changed.notify_all()

    def close(self, *, discard: bool = False) -> None:
        """Accept no more windows, and with `discard` drop those that wait."""
        with self._changed:
            self._closed = True
            if discard:
                self._waiting.clear()
            self._changed.notify_all()

    def take(self) -> list[Window]:
        """Return a full batch, after `close` also a smaller one, and at the end an empty list.

        The batch has the window that has waited longest, and those nearest to it in length. Padded
        to the longest, they are no more than a batch may hold.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._waiting and self._held >= self._batch_samples)
            )
            batch = self._best_batch()
            taken = {id(window) for window in batch}
            self._waiting = [window for window in self._waiting if id(window) not in taken]
            self._held -= sum(len(window.samples) for window in batch)
            self._changed.notify_all()
            return batch

    def _best_batch(self) -> list[Window]:
        if not self._waiting:
            return []
        oldest = len(self._waiting[0].samples)
        batch: list[Window] = []
        longest = 0
        for window in sorted(self._waiting, key=lambda window: abs(len(window.samples) - oldest)):
            length = len(window.samples)
            longest = max(longest, length)
            too_long = (len(batch) + 1) * longest > self._batch_samples
            if batch and (too_long or (self._one_length and length != oldest)):
                break
            batch.append(window)
        return batch
