"""Audio files in and out, block by block: a long file needs no more memory than a short one.

Files are read with soundfile (libsndfile) and PyAV (FFmpeg). `melcap.io.audio` describes which
library reads which format, which faults of damaged files are noticed, and which are not.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from melcap import audio
    >>> tone = np.sin(np.arange(44100, dtype=np.float32) / 10)[None]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     clipped = audio.write(Path(folder) / "tone.flac", tone, 44100)
    ...     wave, rate = audio.read(Path(folder) / "tone.flac")
    >>> wave.shape, rate, clipped
    ((1, 44100), 44100, 0)
"""

from __future__ import annotations

from melcap.io.audio.reader import AudioReader, read
from melcap.io.audio.writer import AudioWriter, write
from melcap.io.resample import Resampler, resample, resampled_length
from melcap.io.suffixes import AUDIO_SUFFIXES

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioReader",
    "AudioWriter",
    "Resampler",
    "read",
    "resample",
    "resampled_length",
    "write",
]
