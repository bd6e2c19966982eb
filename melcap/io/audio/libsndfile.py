"""Recordings decoded by libsndfile (soundfile), which reads the formats given to it exactly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from melcap.io.audio.errors import damaged
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.recording import Recording
from melcap.io.resample import FloatArray

# Vorbis has the centre channel second and the low-frequency channel last. The other formats have
# the order of wav.
_VORBIS_ORDER = {
    3: [0, 2, 1],
    5: [0, 2, 1, 3, 4],
    6: [0, 2, 1, 5, 3, 4],
    7: [0, 2, 1, 6, 5, 3, 4],
    8: [0, 2, 1, 7, 5, 6, 3, 4],
}
_SEEKABLE = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW")
"""Subtypes that can be sought exactly, because no sample is predicted from earlier ones."""


class LibsndfileSource:
    """A recording decoded by libsndfile; see `melcap.io.audio.source.Source`.

    Raises:
        RuntimeError: Where libsndfile cannot read it.
        TypeError: Where soundfile takes it for headerless samples, because of its name.
    """

    def __init__(self, file: AudioInput, recording: Recording) -> None:
        import soundfile

        self._name = file.name
        if (recording.start, recording.end, recording.head) == (0, file.size, b""):
            os.lseek(file.file.fileno(), 0, os.SEEK_SET)
            opened = soundfile.SoundFile(file.file.fileno(), closefd=False)
        else:
            opened = soundfile.SoundFile(file.view(recording.start, recording.end, recording.head))
        self._file: Any = opened
        # Otherwise soundfile seeks after each read, which fails where the length is not known.
        opened.seekable = lambda: False
        self.sample_rate: int = opened.samplerate
        self.channels: int = opened.channels
        self.frames: int | None = opened.frames if opened.frames < 2**62 else None
        self.samples = self.frames if recording.samples is None else recording.samples
        self.limit = recording.samples if recording.exact else None
        self.spare = max(1, recording.slack)
        self.at_least = (self.samples or 0) - recording.slack
        self._skipped = 0
        vorbis = opened.subtype == "VORBIS"
        self._order = _VORBIS_ORDER.get(self.channels) if vorbis else None

    def skip(self, samples: int) -> int:
        """Seek forward in formats where that is exact, and return the samples skipped, else 0."""
        # Where samples are predicted from earlier ones, only decoding is sure to be exact.
        exact = self._file.format in ("WAV", "WAVEX", "RF64", "W64", "AIFF", "FLAC")
        if not exact or self._file.subtype not in _SEEKABLE or self.frames is None:
            return 0
        self._skipped = int(self._file.seek(min(samples, self.frames)))
        return self._skipped

    def blocks(self, size: int) -> Iterator[FloatArray]:
        """Yield float32 [channels, size], the last one shorter.

        Raises:
            AudioFileError: Where libsndfile fails.
        """
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
        """Close libsndfile's handle; the file itself stays open."""
        self._file.close()
