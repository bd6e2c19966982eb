"""A pool of reading processes that survives the crash of a decoder in one of them."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import cast

from melcap.bulk.manifests.entries import Entry
from melcap.bulk.reading.decoding import read_task
from melcap.bulk.reading.messages import Bad, Message, Window
from melcap.bulk.reading.tasks import Task, tasks
from melcap.bulk.reading.windows import Framing
from melcap.errors import MelcapError
from melcap.processes import SPAWN

_POLL_SECONDS = 0.2  # the longest time until `stop` takes effect


class ReaderPool:
    """A context manager that reads clips in several processes, each one task at a time.

    A process that dies (a crash of a decoder, no memory) is replaced, and its clips are read once
    more. If the next process dies at the same clip, that clip is `Bad`, and so are all that follow
    it in its file.

    Processes are spawned, so the caller's script must be guarded by
    `if __name__ == "__main__"`.

    Args:
        count: the number of processes.
        framing: the codec's rate, columns and context.
        mono: whether to mix the channels of each clip.

    Raises:
        MelcapError: if the processes do not start, when the block is entered.
    """

    def __init__(self, count: int, framing: Framing, mono: bool) -> None:
        self._stopped = False
        self._readers = [_Reader(framing, mono) for _ in range(count)]
        for reader in self._readers:
            reader.start()

    def read(self, entries: Iterator[tuple[int, Entry]]) -> Iterator[Message]:
        """Yield the messages of the processes as they come; processes wait for the consumer."""
        work = tasks(entries)
        for reader in self._readers:
            reader.take(next(work, []))
        while busy := {reader.connection: reader for reader in self._readers if reader.clips}:
            for connection in wait(list(busy), timeout=_POLL_SECONDS):
                reader = busy[cast("Connection", connection)]
                yield from reader.messages()
                if not reader.clips:
                    reader.take(next(work, []))
            if self._stopped:
                return

    def stop(self) -> None:
        """End `read` soon, in whatever thread it runs."""
        self._stopped = True

    def __enter__(self) -> ReaderPool:
        for reader in self._readers:
            reader.greet()
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.close()


class _Reader:
    """One process, and the clips that it is reading."""

    def __init__(self, framing: Framing, mono: bool) -> None:
        self._arguments = (framing, mono)
        self.clips: dict[int, Entry] = {}
        self._sent: Counter[int] = Counter()
        """Windows of each clip that were passed on."""
        self._seen: Counter[int] = Counter()
        """Windows of each clip that came from this process."""
        self._died_at: int | None = None

    def start(self) -> None:
        self.connection, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(
            target=serve, args=(theirs, *self._arguments), name="melcap reader", daemon=True
        )
        self._process.start()
        theirs.close()  # so that the connection ends with the process

    def greet(self) -> None:
        """Wait until the process is ready; if it cannot start, no clip is at fault."""
        try:
            self.connection.recv()
        except (EOFError, OSError) as error:
            raise MelcapError(
                f"the processes that read audio do not start ({self._exit()}); a script that "
                'starts them must be guarded by: if __name__ == "__main__":'
            ) from error

    def take(self, task: Task) -> None:
        self.clips = dict(task)
        self._sent.clear()
        self._begin()

    def _begin(self) -> None:
        self._seen.clear()
        if self.clips:
            with suppress(OSError):  # it has died since; `messages` handles that
                self.connection.send(list(self.clips.items()))

    def messages(self) -> list[Message]:
        """Receive a message: none if it was passed on before, several if a process died."""
        try:
            message = cast(Message, self.connection.recv())
        except (EOFError, OSError):
            return self._replaced()
        clip = message.clip
        if not isinstance(message, Window):
            del self.clips[clip]
            return [message]
        self._seen[clip] += 1
        if self._seen[clip] <= self._sent[clip]:
            return []
        self._sent[clip] += 1
        return [message]

    def _replaced(self) -> list[Message]:
        """Begin again in a new process, without the clip at which two have died."""
        why = f"two processes that read it died ({self._exit()})"
        clip, entry = next(iter(self.clips.items()))
        bad: list[Message] = []
        if self._died_at == clip:
            place = (entry.path, entry.offset, entry.row_group)
            for number, each in list(self.clips.items()):
                if (each.path, each.offset, each.row_group) == place:
                    del self.clips[number]
                    bad.append(Bad(number, f"{each.source} cannot be read: {why}"))
        self._died_at = clip
        self.close()
        self.start()
        self.greet()
        self._begin()
        return bad

    def close(self) -> None:
        self.connection.close()
        self._process.terminate()
        self._process.join()

    def _exit(self) -> str:
        """Return how the process ended: "signal 9" or "status 1"."""
        self._process.join()
        code = self._process.exitcode or 0
        return f"signal {-code}" if code < 0 else f"status {code}"


def serve(connection: Connection, framing: Framing, mono: bool) -> None:
    """Send one message when ready, then read the tasks that come, until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
    try:
        connection.send(None)
        # libsndfile's mp3 decoder writes to stderr, where the progress bar is.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        while True:
            for message in read_task(connection.recv(), framing, mono):
                connection.send(message)
    except (EOFError, OSError):  # the other end is closed
        pass
