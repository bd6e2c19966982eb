"""What a reading process does: one clip after the other, decoded, resampled, cut into windows.

Nothing here imports torch: a reader starts fast and is small.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import NamedTemporaryFile

from melcap.audio import AudioReader
from melcap.bulk.sources import Entry, is_url, opened
from melcap.bulk.windows import Framing, WindowCutter
from melcap.errors import AudioFileError, MelcapError
from melcap.resample import FloatArray, Resampler

_COPIED_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class Window:
    """The `index`-th window of a channel: float32 [samples] with its context, for `columns`."""

    clip: int
    channel: int
    index: int
    columns: int
    samples: FloatArray


@dataclass(frozen=True)
class End:
    """A clip was read to its end: `samples` per channel at `sample_rate`, in so many windows."""

    clip: int
    sample_rate: int
    channels: int
    samples: int
    windows: int


@dataclass(frozen=True)
class Bad:
    """A clip that cannot be read, and why."""

    clip: int
    reason: str


Message = Window | End | Bad


def read(clip: int, entry: Entry, framing: Framing, mono: bool) -> Iterator[Message]:
    """A clip in windows, then its `End`; or, after any number of windows, that it is `Bad`."""
    try:
        with local_file(entry) as path:
            try:
                yield from _windows(clip, path, entry, framing, mono)
            except MelcapError as error:
                yield Bad(clip, str(error).replace(str(path), entry.source))
    except MelcapError as error:
        yield Bad(clip, str(error))
    except Exception as error:  # whatever it is: one clip must not end a run
        yield Bad(clip, f"{entry.source} cannot be read ({type(error).__name__}: {error})")


def _windows(
    clip: int, path: Path, entry: Entry, framing: Framing, mono: bool
) -> Iterator[Message]:
    with AudioReader(path) as reader:
        channels = 1 if mono else reader.channels
        resampler = Resampler(reader.sample_rate, framing.rate, channels)
        cutter = WindowCutter(framing, channels)
        samples = index = 0

        def cut(windows: Iterator[FloatArray]) -> Iterator[Window]:
            nonlocal index
            for window in windows:
                columns = (window.shape[1] - framing.left - framing.right) // framing.column
                for channel, wave in enumerate(window):
                    yield Window(clip, channel, index, columns, wave)
                index += 1

        first, until = entry.samples(reader.sample_rate)
        for block in reader.blocks(first=first, until=until):
            samples += block.shape[1]
            block = block.mean(axis=0, keepdims=True) if mono else block
            # Clipped on both sides of the filter, as `Codec.encode` does.
            resampled = resampler.push(block.clip(-1, 1)).clip(-1, 1)
            yield from cut(cutter.push(resampled))
        yield from cut(cutter.push(resampler.flush().clip(-1, 1)))
        yield from cut(cutter.flush())
        yield End(clip, reader.sample_rate, channels, samples, index)


@contextmanager
def local_file(entry: Entry) -> Iterator[Path]:
    """The entry as a file for the decoders: a copy, where it is in a tar or behind a URL."""
    if entry.size < 0 and not is_url(entry.path):
        path = Path(entry.path)
        if path.exists() and not path.is_file():  # to open a pipe is to wait for its other end
            raise AudioFileError(f"{path} is a folder, pipe or device, not a file of audio.")
        yield path
        return
    with opened(entry.path) as source, NamedTemporaryFile(prefix="melcap-") as copy:
        if entry.size < 0:
            shutil.copyfileobj(source, copy, _COPIED_AT_ONCE)
        else:
            source.seek(entry.offset)
            missing = entry.size
            while piece := source.read(min(missing, _COPIED_AT_ONCE)):
                copy.write(piece)
                missing -= len(piece)
            if missing:
                raise OSError(f"the tar ends {missing} bytes too early")
        copy.flush()
        yield Path(copy.name)


def serve(connection: Connection, framing: Framing, mono: bool) -> None:
    """Says that it is ready, and reads what it is asked to, until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    try:
        connection.send(None)
        # libsndfile's mp3 decoder talks to stderr, which belongs to the progress bar.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        while True:
            clip, entry = connection.recv()
            for message in read(clip, entry, framing, mono):
                connection.send(message)
    except (EOFError, OSError):  # the other end is gone
        pass
