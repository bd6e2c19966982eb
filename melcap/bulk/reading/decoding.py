"""Decode, resample and cut the clips of a task into windows."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from melcap.audio import AudioReader
from melcap.bulk.manifests.entries import Entry
from melcap.bulk.reading.local_files import local_files
from melcap.bulk.reading.messages import Bad, End, Message, Window
from melcap.bulk.reading.tasks import SEEKABLE, Task
from melcap.bulk.reading.windows import Framing, WindowCutter
from melcap.errors import MelcapError
from melcap.io.resample import FloatArray, Resampler

_GAP_SECONDS = 30.0
"""A longer gap between stretches is skipped by a seek if the format allows it, not decoded."""


def read_task(task: Task, framing: Framing, mono: bool) -> Iterator[Message]:
    """Yield the windows of all clips of a task, and an `End` or `Bad` for each clip.

    Stretches of one file come from one pass over it, each with the samples that it would have if it
    were read alone. A clip may turn out to be `Bad` after any number of its windows.

    Args:
        task: the clips.
        framing: the codec's rate, columns and context.
        mono: whether to mix the channels of each clip.
    """
    left = dict(task)
    try:
        for clips, path in local_files(task):
            for message in _in_file(clips, path, framing, mono):
                if not isinstance(message, Window):
                    del left[message.clip]
                yield message
    except Exception as error:  # of any kind, because a clip must not end a run
        for clip, entry in left.items():
            yield Bad(clip, _reason(error, entry))


def _reason(error: Exception, entry: Entry, path: Path | None = None) -> str:
    if isinstance(error, MelcapError):
        return str(error).replace(str(path), entry.source) if path else str(error)
    return f"{entry.source} cannot be read ({type(error).__name__}: {error})"


def _in_file(clips: Task, path: Path, framing: Framing, mono: bool) -> Iterator[Message]:
    """Read clips that are stretches of one file: together first, then alone after a failure.

    A stretch that does not contain the damage is good when it is read alone. If two stretches that
    do not overlap fail with the same message, the damage lies before both, and all that follow fail
    with it.
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
        except Exception:  # reported below, for each clip that it concerns
            break
    last_error, until = "", 0.0
    hopeless = False
    for clip, entry in left.items():
        if hopeless:
            yield Bad(clip, last_error.replace(str(path), entry.source))
            continue
        try:
            alone = _together([(clip, entry)], path, framing, mono)
            yield from _skipping(sent, alone)
        except Exception as error:
            yield Bad(clip, _reason(error, entry, path))
            hopeless = str(error) == last_error and entry.start >= until
            last_error = str(error)
            until = float("inf") if entry.seconds < 0 else entry.start + entry.seconds


def _skipping(sent: Counter[int], messages: Iterable[Message]) -> Iterator[Message]:
    """Leave out the windows of each clip that were sent before; a second reading repeats them."""
    seen: Counter[int] = Counter()
    for message in messages:
        if isinstance(message, Window):
            seen[message.clip] += 1
            if seen[message.clip] <= sent[message.clip]:
                continue
        yield message


def _runs(clips: Task) -> Iterator[Task]:
    """Cut the stretches of a file at long gaps that can be skipped by a seek."""
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

    It raises whatever the decoder raises; clips that have no `End` by then are still undecided.
    """
    with AudioReader(path) as reader:
        waiting = deque(_OpenClip(*clip, reader, framing, mono) for clip in clips)
        ends = [clip.until for clip in waiting if clip.until is not None]
        until = max(ends) if len(ends) == len(clips) else None
        at = waiting[0].first
        active = [waiting.popleft().begin()]
        for block in reader.blocks(first=at, until=until):
            after = at + block.shape[1]
            while waiting and waiting[0].first < after:
                active.append(waiting.popleft().begin())
            for clip in active:
                yield from clip.push(block, at)
            over = [clip for clip in active if clip.until is not None and clip.until <= after]
            active = [clip for clip in active if clip not in over]
            for clip in over:
                yield from clip.end()
            at = after
        for clip in active:
            # If all clips have an end, the reader has checked the length of the file. Otherwise a
            # clip that ends after the end of the file has not been checked, and is not ended here.
            if clip.until is None or until is not None:
                yield from clip.end()


class _OpenClip:
    """A clip that is being turned from the samples of a file into windows."""

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

    def begin(self) -> _OpenClip:
        self._resampler = Resampler(self._rate, self._framing.rate, self._channels)
        self._cutter = WindowCutter(self._framing, self._channels)
        return self

    def push(self, block: FloatArray, at: int) -> Iterator[Window]:
        """Take the clip's part of a block that begins with sample `at` of the file."""
        piece = block[:, max(0, self.first - at) : None if self.until is None else self.until - at]
        self._samples += piece.shape[1]
        piece = piece.mean(axis=0, keepdims=True) if self._mono else piece
        # Clipped before and after the filter, as `Codec.encode` does.
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
