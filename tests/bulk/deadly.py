"""A reading process that dies. It imports no more than one that does not."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from melcap.bulk.reading import pool
from melcap.bulk.reading.messages import Message, Window
from melcap.bulk.reading.tasks import Task
from melcap.bulk.reading.windows import Framing


def serve_badly(connection: Connection, framing: Framing, mono: bool) -> None:
    """Serve, and die at the third window of a clip named "deadly", or once for "deadly once"."""
    read = pool.read_task

    def dying(task: Task, framing: Framing, mono: bool) -> Iterator[Message]:
        names = {number: entry.id for number, entry in task}
        seen: Counter[int] = Counter()
        for message in read(task, framing, mono):
            if isinstance(message, Window):
                seen[message.clip] += 1
                if seen[message.clip] == 3 and "deadly" in (name := names[message.clip]):
                    flag = Path(os.environ["MELCAP_TEST_FLAG"]) / name
                    if "once" not in name or not flag.exists():
                        flag.touch()
                        os.kill(os.getpid(), signal.SIGKILL)
            yield message

    pool.read_task = dying
    pool.serve(connection, framing, mono)
