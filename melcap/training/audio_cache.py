"""Decoded training audio: one memory-mapped int16 file, and a list of its clips.

A cache folder looks like this:

    index.json           the key of the sources, and per clip: name, class, start, length
    audio-<key>.int16    every clip, mono at 44.1 kHz, one after the other
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from melcap.errors import InputError

SAMPLE_RATE = 44_100
FULL_SCALE = 32_767
FORMAT = 1


@dataclass(frozen=True)
class Clip:
    """One clip of the cache; `start` and `length` count samples at 44.1 kHz."""

    name: str
    label: str
    start: int
    length: int


class AudioCache:
    """A cache folder made by `melcap.training.decoding.build_cache`, opened for reading.

    Attributes:
        key: the hash of the sources.
        clips: the clips in order.
        classes: the names of the classes, sorted.
        samples: every clip's audio, a memory-mapped int16 [n] array at 44.1 kHz.
        hours: the hours of audio in all.

    Raises:
        InputError: when the folder holds no complete cache.
    """

    def __init__(self, folder: Path) -> None:
        try:
            index = json.loads((folder / "index.json").read_text())
        except (OSError, ValueError) as error:
            raise InputError(
                f"{folder} holds no audio cache ({error}): make one with melcap train-decode"
            ) from error
        if index.get("format") != FORMAT:
            raise InputError(f"{folder} was made by another version: make it again")
        self.key: str = index["key"]
        self.clips: tuple[Clip, ...] = tuple(Clip(**clip) for clip in index["clips"])
        self.classes: tuple[str, ...] = tuple(sorted({clip.label for clip in self.clips}))
        audio = folder / index["audio"]
        total = sum(clip.length for clip in self.clips)
        if not audio.is_file() or audio.stat().st_size != 2 * total:
            raise InputError(f"{audio} is missing or cut short: make the cache again")
        self.samples: npt.NDArray[np.int16] = np.memmap(audio, dtype="<i2", mode="r")
        self.hours: float = total / SAMPLE_RATE / 3600

    def wave(self, clip: Clip) -> npt.NDArray[np.float32]:
        """Return a whole clip as float32 [length] in [-1, 1]."""
        part = self.samples[clip.start : clip.start + clip.length]
        return part.astype(np.float32) / np.float32(FULL_SCALE)
