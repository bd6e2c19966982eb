"""Processes that have melcap and torch from the start, which take seconds to import.

They are forked from a server that imported them once, one server for each process of pytest.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "melcap.bulk.tokenize",
        "melcap.cli.commands",
        "melcap.pretrained",
        "melcap.transcode",
        "tests.bulk.helpers",
        "tests.forks",
    ]
)


def start_melcap(
    *words: object,
    folder: Path,
    stdout: object = os.devnull,
    stderr: object = os.devnull,
) -> ForkServerProcess:
    """Start the command `melcap` in a session of its own.

    Args:
        words: the arguments of the command.
        folder: the working folder.
        stdout: the path of what takes the output: a file, a named pipe or a terminal.
        stderr: the same for errors.
    """
    arguments = ([*map(str, words)], folder, str(stdout), str(stderr))
    process = FORKS.Process(target=_melcap, args=arguments)
    process.start()
    return process


def _melcap(words: list[str], folder: Path, stdout: str, stderr: str) -> None:
    from melcap.cli.commands import main
    from melcap.ops import precision

    os.setsid()
    os.chdir(folder)
    os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT | os.O_NOCTTY), 1)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_NOCTTY), 2)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
    # The server ignores SIGINT, and so does a shell's job in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    precision._thread_pool_is_lost = False  # the server imports torch, but computes nothing
    sys.argv = ["melcap", *words]
    main()


def memory_mib(process: int | None) -> int:
    """Return the memory of a process without files, which only Linux tells; 0 if it ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return next(
        (int(line.split()[1]) >> 10 for line in status.splitlines() if "RssAnon" in line), 0
    )
