"""A pool of reading processes that outlives what a damaged file can do to one of them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import cast

from melcap.bulk.reader import Bad, Message, Window, serve
from melcap.bulk.sources import Entry
from melcap.bulk.windows import Framing
from melcap.errors import MelcapError

_PATIENCE = 0.2  # seconds until a stop is noticed
_SPAWN = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half-way


class Readers:
    """Reads clips in `count` processes, each one clip at a time. A context manager.

    A process that dies (a decoder's crash, no memory) makes its clip `Bad`, and is replaced.
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
        """What the processes make of the entries, as it comes; they wait where nobody asks."""
        for reader in self._readers:
            reader.take(next(entries, None))
        while busy := {reader.connection: reader for reader in self._readers if reader.at}:
            for connection in wait(list(busy), timeout=_PATIENCE):
                reader = busy[cast("Connection", connection)]
                message = reader.message()
                yield message
                if not isinstance(message, Window):
                    reader.take(next(entries, None))
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
    """One process, and the clip that it is at."""

    def __init__(self, framing: Framing, mono: bool) -> None:
        self._arguments = (framing, mono)
        self.at: tuple[int, Entry] | None = None

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

    def take(self, work: tuple[int, Entry] | None) -> None:
        self.at = work
        if work:
            self.connection.send(work)

    def message(self) -> Message:
        assert self.at
        try:
            return cast(Message, self.connection.recv())
        except (EOFError, OSError):
            clip, entry = self.at
            why = f"the process that read it died ({self._epitaph()})"
            self.close()
            self.start()
            self.greet()
            return Bad(clip, f"{entry.source} cannot be read: {why}")

    def close(self) -> None:
        self.connection.close()
        self._process.terminate()
        self._process.join()

    def _epitaph(self) -> str:
        self._process.join()
        code = self._process.exitcode or 0
        return f"signal {-code}" if code < 0 else f"status {code}"
