"""The processes that decode: one for each lane, restarted where a decoder crashes.

A process sends the events of its lane through a pipe and waits while the pipe is full. So it has
one piece ready and needs no requests; no queue can grow. It ends when the other end of the pipe is
closed, or its parent is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from melcap.errors import MelcapError
from melcap.processes import SPAWN
from melcap.training.stream.lane import (
    Event,
    Jumps,
    LeftOut,
    Opened,
    Piece,
    Plan,
    Position,
    events,
)
from melcap.training.stream.shards import kill_commands

_SECONDS_TO_END = 5.0


class LaneReader:
    """The events of a lane, in order, from a process or thread of its own.

    A process that dies, as by a crash of a decoder, is started again where it was. If it dies there
    again, the clip that it was decoding is left out, or the rest of a shard that it was opening.

    Args:
        plan: the plan of the lane.
        at: the position to begin at.
        jumps: what is left out, because it was before.
        process: False for a thread of this process, which starts at once but survives no crash.

    Attributes:
        at: the position after the last event.
    """

    def __init__(
        self, plan: Plan, at: Position, jumps: Jumps | None = None, process: bool = True
    ) -> None:
        self.at = at
        self._plan = plan
        self._jumps = dict(jumps or {})
        self._kind: Any = SPAWN.Process if process else threading.Thread
        self._target = _serve_alone if process else serve
        self._opened = Opened(at, "")
        self._died_at: Position | None = None
        self._start()

    def _start(self) -> None:
        self._greeted = False
        self.connection, theirs = SPAWN.Pipe(duplex=False)
        arguments = (theirs, self._plan, self.at, self._jumps)
        self._worker = self._kind(
            target=self._target, args=arguments, name="melcap lane", daemon=True
        )
        self._worker.start()
        if self._kind is not threading.Thread:
            theirs.close()  # so that the connection ends with the process

    def receive(self) -> Piece | LeftOut | None:
        """Return the next event, or None where what came is not for the caller.

        Raises:
            MelcapError: for what ended the lane, and for a process that does not start.
        """
        try:
            event = cast("Event | MelcapError | None", self.connection.recv())
        except (EOFError, OSError):
            return self._restarted()
        if isinstance(event, MelcapError):
            raise event
        if event is None:
            self._greeted = True
            return None
        self.at = event.after
        if isinstance(event, Opened):
            self._opened = event
            return None
        return event

    def _restarted(self) -> LeftOut | None:
        self.close()
        how = _exit_of(self._worker)
        if not self._greeted:
            raise MelcapError(
                f"the processes that decode shards do not start ({how}); a script that starts them "
                'must be guarded by: if __name__ == "__main__":'
            )
        again, self._died_at = self._died_at == self.at, self.at
        left_out = None
        if again:
            name, after = self._opened.name, Position(self.at.item, self.at.clip + 1, 0)
            if self._opened.after != self.at or not name:
                after = Position(self.at.item + 1, 0, 0)
                name = f"{self._plan.shard(self.at.item)} from clip {self.at.clip} on"
            reason = f"{name} is left out: two processes that read it died ({how})"
            left_out = LeftOut(self.at, after, reason)
            self.at = after
        self._start()
        return left_out

    def close(self) -> None:
        """End the process."""
        self.connection.close()
        if self._kind is threading.Thread:
            self._worker.join(_SECONDS_TO_END)
            return
        self._worker.terminate()
        self._worker.join(_SECONDS_TO_END)
        if self._worker.is_alive():
            self._worker.kill()
            self._worker.join()


def ready(lanes: Sequence[LaneReader], seconds: float) -> list[LaneReader]:
    """Return the lanes that have an event, after at most some seconds."""
    found = set(wait([lane.connection for lane in lanes], seconds))
    return [lane for lane in lanes if lane.connection in found]


def serve(connection: Connection, plan: Plan, at: Position, jumps: Jumps) -> None:
    """Send the events of a lane, or the error that ends it, until the connection is closed."""
    with suppress(BrokenPipeError):
        try:
            connection.send(None)
            for event in events(plan, at, jumps):
                connection.send(event)
        except BrokenPipeError:
            raise
        except MelcapError as error:
            connection.send(error)
        except Exception as error:
            connection.send(MelcapError(f"reading shards failed: {error!r}"))
    connection.close()


def _serve_alone(connection: Connection, plan: Plan, at: Position, jumps: Jumps) -> None:
    """Serve in a process of its own, which ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # commands that are running are killed
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # libsndfile's mp3 decoder writes to stderr.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    serve(connection, plan, at, jumps)


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        kill_commands()
        os._exit(1)


def _exit_of(process: Any) -> str:
    code = process.exitcode or 0
    return f"signal {-code}" if code < 0 else f"status {code}"
