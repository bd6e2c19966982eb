"""Decoders for the parts of a file: one by one, or several recordings in a row as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from melcap.io.readers.errors import audio_error
from melcap.io.readers.ffmpeg import FfmpegSource
from melcap.io.readers.opening import AudioInput
from melcap.io.readers.sndfile import SndfileSource
from melcap.io.readers.source import Part, Source, checked_blocks, reblocked
from melcap.io.resample import FloatArray


def open_part(file: AudioInput, part: Part) -> Source:
    """Return libsndfile's decoder where it reads the whole part, else FFmpeg's."""
    if part.sndfile:
        try:
            source = SndfileSource(file, part)
        except (RuntimeError, TypeError):  # TypeError: soundfile takes .raw for headerless sound
            return FfmpegSource(file, part)
        declared = (part.samples or 0) - part.slack
        if source.frames is None or declared <= source.frames:
            return source
        source.close()
    return FfmpegSource(file, part)


class Joined:
    """Several recordings in one file, read one behind the other."""

    def __init__(self, file: AudioInput, parts: Sequence[Part]) -> None:
        self._file = file
        self._parts = parts
        self._open = open_part(file, parts[0])
        self.sample_rate = self._open.sample_rate
        self.channels = self._open.channels
        lengths = [self._open.samples, *(part.samples for part in parts[1:])]
        known = [length for length in lengths if length is not None]
        self.samples = sum(known) if len(known) == len(parts) else None
        self.at_least = 0.0  # each part is checked by itself
        self.limit: int | None = None
        self.spare = 0

    def skip(self, samples: int) -> int:
        return 0

    def blocks(self, size: int) -> Iterator[FloatArray]:
        return reblocked(self._pieces(size), self.channels, size)

    def _pieces(self, size: int) -> Iterator[FloatArray]:
        done = 0
        for number, part in enumerate(self._parts):
            if number:
                self._open.close()
                self._open = open_part(self._file, part)
            self._require_same(done)
            for block in checked_blocks(self._open, self._file.name, size):
                done += block.shape[1]
                yield block

    def _require_same(self, done: int) -> None:
        before, here = _described(self), _described(self._open)
        if here != before:
            raise audio_error(
                self._file.name,
                f"is several recordings in one file, and they differ: {before} up to "
                f"{done / self.sample_rate:.2f} s, then {here}; split it",
            )

    def close(self) -> None:
        self._open.close()


def _described(source: Source) -> str:
    plural = "s" if source.channels > 1 else ""
    return f"{source.sample_rate} Hz with {source.channels} channel{plural}"
