"""The work of a reading process: clips are decoded, resampled and cut into windows.

Nothing here imports torch: a reader starts fast and is small.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from melcap.audio import AudioReader
from melcap.bulk.entry import Entry
from melcap.bulk.local import local_files
from melcap.bulk.messages import Bad, End, Message, Window
from melcap.bulk.tasks import SEEKABLE, Task
from melcap.bulk.windows import Framing, WindowCutter
from melcap.errors import MelcapError
from melcap.io.resample import FloatArray, Resampler

__all__ = ["Bad", "End", "Message", "Window", "read", "read_task", "serve", "skipping"]

_GAP_SECONDS = 30.0
"""A gap between stretches that is sought over, where the format allows it, and not decoded."""


def read(clip: int, entry: Entry, framing: Framing, mono: bool) -> Iterator[Message]:
    """Give a clip in windows, then its `End`; or, after any number of windows, that it is `Bad`."""
    return read_task([(clip, entry)], framing, mono)


def read_task(task: Task, framing: Framing, mono: bool) -> Iterator[Message]:
    """Give the windows of all clips of a task, and for each of them an `End` or that it is `Bad`.

    Stretches of one file come out of one pass over it, with the samples that each has by itself.
    """
    left = dict(task)
    try:
        for clips, path in local_files(task):
            for message in _in_file(clips, path, framing, mono):
                if not isinstance(message, Window):
                    del left[message.clip]
                yield message
    except Exception as error:  # whatever it is: these clips must not end a run
        for clip, entry in left.items():
            yield Bad(clip, _reason(error, entry))


def _reason(error: Exception, entry: Entry, path: Path | None = None) -> str:
    if isinstance(error, MelcapError):
        return str(error).replace(str(path), entry.source) if path else str(error)
    return f"{entry.source} cannot be read ({type(error).__name__}: {error})"


def _in_file(clips: Task, path: Path, framing: Framing, mono: bool) -> Iterator[Message]:
    """Read clips that are stretches of one file: together, and what fails in that one by one.

    By themselves, stretches that do not hold the damage are good. What ends two stretches that
    have nothing in common in the same words lies before both, and ends all that follow.
    """
    left = dict(clips)
    sent: Counter[int] = Counter()
    for run in _runs(clips) if len(clips) > 1 else ():
        try:
            for message in _together(run, path, framing, mono):
                if isinstance(message, End):
                    del left[message.clip]
                elif isinstance(message, Window):
                    sent[message.clip] += 1
                yield message
        except Exception:  # said below, by each clip that it concerns
            break
    said, until = "", 0.0
    hopeless = False
    for clip, entry in left.items():
        if hopeless:
            yield Bad(clip, said.replace(str(path), entry.source))
            continue
        try:
            alone = _together([(clip, entry)], path, framing, mono)
            yield from skipping(sent, alone)
        except Exception as error:
            yield Bad(clip, _reason(error, entry, path))
            hopeless = str(error) == said and entry.start >= until
            said = str(error)
            until = float("inf") if entry.seconds < 0 else entry.start + entry.seconds


def skipping(sent: Counter[int], messages: Iterable[Message]) -> Iterator[Message]:
    """Leave out the windows of each clip that were sent before: reading again gives the same."""
    seen: Counter[int] = Counter()
    for message in messages:
        if isinstance(message, Window):
            seen[message.clip] += 1
            if seen[message.clip] <= sent[message.clip]:
                continue
        yield message


def _runs(clips: Task) -> Iterator[Task]:
    """Cut a file's stretches where a long gap can be sought over."""
    run: Task = []
    end = 0.0
    for number, entry in clips:
        if run and entry.start - end > _GAP_SECONDS and entry.path.lower().endswith(SEEKABLE):
            yield run
            run = []
        run.append((number, entry))
        end = max(end, float("inf") if entry.seconds < 0 else entry.start + entry.seconds)
    yield run


def _together(clips: Task, path: Path, framing: Framing, mono: bool) -> Iterator[Message]:
    """Decode a file once, from the first stretch to the end of the last.

    Raises what the decoder raises; of clips without an `End` nobody knows then.
    """
    with AudioReader(path) as reader:
        waiting = deque(_Clip(*clip, reader, framing, mono) for clip in clips)
        ends = [clip.until for clip in waiting if clip.until is not None]
        until = max(ends) if len(ends) == len(clips) else None
        at = waiting[0].first
        active = [waiting.popleft().begin()]
        for block in reader.blocks(first=at, until=until):
            behind = at + block.shape[1]
            while waiting and waiting[0].first < behind:
                active.append(waiting.popleft().begin())
            for clip in active:
                yield from clip.push(block, at)
            over = [clip for clip in active if clip.until is not None and clip.until <= behind]
            active = [clip for clip in active if clip not in over]
            for clip in over:
                yield from clip.end()
            at = behind
        for clip in active:
            # One that ends behind its file was measured only if all of them have an end.
            if clip.until is None or until is not None:
                yield from clip.end()


class _Clip:
    """A clip on its way from the samples of a file to windows."""

    def __init__(
        self, number: int, entry: Entry, reader: AudioReader, framing: Framing, mono: bool
    ) -> None:
        self._number = number
        self._framing = framing
        self._mono = mono
        self._rate = reader.sample_rate
        self._channels = 1 if mono else reader.channels
        self._samples = self._index = 0
        self.first, self.until = entry.samples(self._rate)

    def begin(self) -> _Clip:
        self._resampler = Resampler(self._rate, self._framing.rate, self._channels)
        self._cutter = WindowCutter(self._framing, self._channels)
        return self

    def push(self, block: FloatArray, at: int) -> Iterator[Window]:
        """Take what is the clip's of a block that begins with sample `at` of the file."""
        piece = block[:, max(0, self.first - at) : None if self.until is None else self.until - at]
        self._samples += piece.shape[1]
        piece = piece.mean(axis=0, keepdims=True) if self._mono else piece
        # Clipped on both sides of the filter, as `Codec.encode` does.
        resampled = self._resampler.push(piece.clip(-1, 1)).clip(-1, 1)
        yield from self._windows(self._cutter.push(resampled))

    def end(self) -> Iterator[Message]:
        yield from self._windows(self._cutter.push(self._resampler.flush().clip(-1, 1)))
        yield from self._windows(self._cutter.flush())
        yield End(self._number, self._rate, self._channels, self._samples, self._index)

    def _windows(self, windows: Iterator[FloatArray]) -> Iterator[Window]:
        framing = self._framing
        for window in windows:
            columns = (window.shape[1] - framing.left - framing.right) // framing.column
            for channel, wave in enumerate(window):
                yield Window(self._number, channel, self._index, columns, wave)
            self._index += 1


def serve(connection: Connection, framing: Framing, mono: bool) -> None:
    """Say that it is ready, and read what it is asked to, until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    try:
        connection.send(None)
        # libsndfile's mp3 decoder talks to stderr, which belongs to the progress bar.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        while True:
            for message in read_task(connection.recv(), framing, mono):
                connection.send(message)
    except (EOFError, OSError):  # the other end is gone
        pass
