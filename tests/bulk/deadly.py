"""A reading process that dies; it imports no more than one that does not."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from melcap.bulk import reader
from melcap.bulk.messages import Message, Window
from melcap.bulk.tasks import Task
from melcap.bulk.windows import Framing


def serve_badly(connection: Connection, framing: Framing, mono: bool) -> None:
    """Serve, and die by the third window of a clip that is called deadly: always, or once."""
    read = reader.read_task

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

    reader.read_task = dying
    reader.serve(connection, framing, mono)
