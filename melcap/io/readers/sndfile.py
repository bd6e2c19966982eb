"""Reading with libsndfile (soundfile): the formats that it reads exactly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from melcap.io.readers.errors import damaged
from melcap.io.readers.opening import AudioInput
from melcap.io.readers.source import Part
from melcap.io.resample import FloatArray

# Vorbis puts the centre second and the low frequencies last; everything else here follows wav.
_VORBIS_ORDER = {
    3: [0, 2, 1],
    5: [0, 2, 1, 3, 4],
    6: [0, 2, 1, 5, 3, 4],
    7: [0, 2, 1, 6, 5, 3, 4],
    8: [0, 2, 1, 7, 5, 6, 3, 4],
}
_SEEKABLE = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW")
"""Subtypes without prediction from sample to sample."""


class SndfileSource:
    """A part of a file, decoded by libsndfile.

    Raises RuntimeError or TypeError where that is not possible.
    """

    def __init__(self, file: AudioInput, part: Part) -> None:
        import soundfile

        self._name = file.name
        if (part.start, part.end, part.head) == (0, file.size, b""):
            os.lseek(file.file.fileno(), 0, os.SEEK_SET)
            opened = soundfile.SoundFile(file.file.fileno(), closefd=False)
        else:
            opened = soundfile.SoundFile(file.view(part.start, part.end, part.head))
        self._file: Any = opened
        # Else soundfile seeks after each read, which fails where the length is not known.
        opened.seekable = lambda: False
        self.sample_rate: int = opened.samplerate
        self.channels: int = opened.channels
        self.frames: int | None = opened.frames if opened.frames < 2**62 else None
        self.samples = self.frames if part.samples is None else part.samples
        self.limit = part.samples if part.exact else None
        self.spare = max(1, part.slack)
        self.at_least = (self.samples or 0) - part.slack
        self._skipped = 0
        vorbis = opened.subtype == "VORBIS"
        self._order = _VORBIS_ORDER.get(self.channels) if vorbis else None

    def skip(self, samples: int) -> int:
        # in formats that predict from what went before, only decoding is sure to be exact
        exact = self._file.format in ("WAV", "WAVEX", "RF64", "W64", "AIFF", "FLAC")
        if not exact or self._file.subtype not in _SEEKABLE or self.frames is None:
            return 0
        self._skipped = int(self._file.seek(min(samples, self.frames)))
        return self._skipped

    def blocks(self, size: int) -> Iterator[FloatArray]:
        done = self._skipped
        while True:
            try:
                frames = self._file.read(size, dtype="float32", always_2d=True)
            except RuntimeError as exc:
                raise damaged(self._name, done / self.sample_rate, exc) from exc
            if not len(frames):
                return
            done += len(frames)
            wave = frames.T if self._order is None else frames.T[self._order]
            yield np.ascontiguousarray(wave)

    def close(self) -> None:
        self._file.close()
