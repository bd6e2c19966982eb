"""A pool of reading processes that outlives what a damaged file can do to one of them."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import cast

from melcap.bulk.entry import Entry
from melcap.bulk.messages import Bad, Message, Window
from melcap.bulk.reader import serve
from melcap.bulk.tasks import Task, tasks
from melcap.bulk.windows import Framing
from melcap.errors import MelcapError

_PATIENCE = 0.2  # seconds until a stop is noticed
_SPAWN = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half-way


class Readers:
    """Reads clips in `count` processes, each one task at a time. A context manager.

    A process that dies (a decoder's crash, no memory) is replaced, and its clips are read once
    more. Where the next one dies at the same clip, that clip is `Bad`, with all that follow it in
    its file.
    Processes are spawned: call it from a module guarded by `if __name__ == "__main__"`.

    Raises:
        MelcapError: where processes do not start.
    """

    def __init__(self, count: int, framing: Framing, mono: bool) -> None:
        self._stopped = False
        self._readers = [_Reader(framing, mono) for _ in range(count)]
        for reader in self._readers:
            reader.start()

    def read(self, entries: Iterator[tuple[int, Entry]]) -> Iterator[Message]:
        """Give what the processes make of the entries, as it comes; they wait where nobody asks."""
        work = tasks(entries)
        for reader in self._readers:
            reader.take(next(work, []))
        while busy := {reader.connection: reader for reader in self._readers if reader.at}:
            for connection in wait(list(busy), timeout=_PATIENCE):
                reader = busy[cast("Connection", connection)]
                yield from reader.messages()
                if not reader.at:
                    reader.take(next(work, []))
            if self._stopped:
                return

    def stop(self) -> None:
        """`read`, in whatever thread, comes to an end soon."""
        self._stopped = True

    def __enter__(self) -> Readers:
        for reader in self._readers:
            reader.greet()
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.close()


class _Reader:
    """One process, and the clips that it is at."""

    def __init__(self, framing: Framing, mono: bool) -> None:
        self._arguments = (framing, mono)
        self.at: dict[int, Entry] = {}
        self._sent: Counter[int] = Counter()
        """Windows of each clip that were passed on."""
        self._seen: Counter[int] = Counter()
        """Windows of each clip that this process has given."""
        self._died_at: int | None = None

    def start(self) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=serve, args=(theirs, *self._arguments), name="melcap reader", daemon=True
        )
        self._process.start()
        theirs.close()  # so that the process's end is the connection's end

    def greet(self) -> None:
        """Wait until the process is ready: one that cannot even start is not its clip's fault."""
        try:
            self.connection.recv()
        except (EOFError, OSError) as error:
            raise MelcapError(
                f"the processes that read audio do not start ({self._epitaph()}); a script that "
                'begins them must be guarded by: if __name__ == "__main__":'
            ) from error

    def take(self, task: Task) -> None:
        self.at = dict(task)
        self._sent.clear()
        self._begin()

    def _begin(self) -> None:
        self._seen.clear()
        if self.at:
            with suppress(OSError):  # it has died since, which `messages` finds out
                self.connection.send(list(self.at.items()))

    def messages(self) -> list[Message]:
        """Receive a message; none that was passed on before, and several where a process died."""
        try:
            message = cast(Message, self.connection.recv())
        except (EOFError, OSError):
            return self._replaced()
        clip = message.clip
        if not isinstance(message, Window):
            del self.at[clip]
            return [message]
        self._seen[clip] += 1
        if self._seen[clip] <= self._sent[clip]:
            return []
        self._sent[clip] += 1
        return [message]

    def _replaced(self) -> list[Message]:
        """Begin again in a fresh process, without the clip at which two have died."""
        why = f"two processes that read it died ({self._epitaph()})"
        clip, entry = next(iter(self.at.items()))
        bad: list[Message] = []
        if self._died_at == clip:
            place = (entry.path, entry.offset, entry.row_group)
            for number, each in list(self.at.items()):
                if (each.path, each.offset, each.row_group) == place:
                    del self.at[number]
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

    def _epitaph(self) -> str:
        self._process.join()
        code = self._process.exitcode or 0
        return f"signal {-code}" if code < 0 else f"status {code}"
