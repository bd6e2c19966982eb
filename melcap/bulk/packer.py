"""Windows of many clips, packed into batches: like with like, so that little is filled up."""

from __future__ import annotations

import threading

from melcap.bulk.messages import Window


class Packer:
    """Windows that wait, given out in batches of up to `batch_samples`, or of one window.

    It holds at most `room` samples and one window: `put` waits where it is full. For any number of
    threads.
    """

    def __init__(self, batch_samples: int, room: int) -> None:
        self._batch_samples = batch_samples
        self._room = max(room, batch_samples, 1)
        self._waiting: list[Window] = []
        self._held = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, window: Window) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._held < self._room)
            if not self._closed:
                self._waiting.append(window)
                self._held += len(window.samples)
                self._changed.notify_all()

    def close(self, *, discard: bool = False) -> None:
        """No window will follow; if they are discarded, none that waits is given out either."""
        with self._changed:
            self._closed = True
            if discard:
                self._waiting.clear()
            self._changed.notify_all()

    def take(self) -> list[Window]:
        """A full batch, or what there is when none will follow; none when all is given out.

        In it are the window that has waited longest and those nearest to it in length; filled up
        to the longest, they are no more than the batch may hold.
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
            longest = max(longest, len(window.samples))
            if batch and (len(batch) + 1) * longest > self._batch_samples:
                break
            batch.append(window)
        return batch
