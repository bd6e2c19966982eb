"""Which clips of a folder or a tar shard are measured: some of each class, from many packages."""

from __future__ import annotations

import hashlib
import math
import re
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath

import numpy as np

from melcap import audio
from melcap.errors import InputError
from melcap.evaluation import metrics, peers

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a")


@dataclass(frozen=True)
class Clip:
    """An audio file in a folder or a tar: `name` is its path in there, with forward slashes."""

    source: Path
    name: str

    @property
    def kind(self) -> str:
        """The clip's class, such as speech, music or sound."""
        return PurePosixPath(self.name).parent.name or self.source.stem

    @property
    def package(self) -> str:
        """Where the clip comes from: its name without the number at the end."""
        return re.sub(r"_?\d+$", "", PurePosixPath(self.name).stem)

    def read(self, seconds: float) -> peers.Audio:
        """The first `seconds`, channels mixed, clamped to full scale: float32 [n] at 44.1 kHz.

        Raises `AudioFileError` for a clip that cannot be read.
        """
        if self.source.is_dir():
            return _read(self.source / self.name, seconds)
        # A tar member goes through a file, as the decoders want one.
        with tempfile.TemporaryDirectory() as folder, tarfile.open(self.source) as shard:
            path = Path(folder) / PurePosixPath(self.name).name
            member = shard.extractfile(self.name)
            path.write_bytes(member.read() if member else b"")
            return _read(path, seconds)


def find_clips(data: Path) -> list[Clip]:
    """Every audio file in a tar or under a folder; raises `InputError` where there is none."""
    if data.is_dir():
        names = [path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()]
    else:
        try:
            with tarfile.open(data) as shard:
                names = [member.name for member in shard if member.isfile()]
        except (OSError, tarfile.TarError) as error:
            raise InputError(f"{data} is neither a folder nor a tar file: {error}") from error
    clips = [Clip(data, name) for name in sorted(names) if name.lower().endswith(SUFFIXES)]
    if not clips:
        raise InputError(f"{data} holds no audio file ({', '.join(SUFFIXES)})")
    return clips


def choose_clips(clips: Iterable[Clip], per_class: int) -> list[Clip]:
    """Up to `per_class` clips of each class, from as many packages as there are.

    The choice depends on names alone, and a larger one contains every smaller one.
    """
    packages: dict[str, dict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
    for clip in sorted(clips, key=lambda clip: hashlib.sha256(clip.name.encode()).digest()):
        packages[clip.kind][clip.package].append(clip)
    chosen = []
    for kind in sorted(packages):
        turns = zip_longest(*packages[kind].values())
        chosen += [clip for turn in turns for clip in turn if clip][:per_class]
    return chosen


def _read(path: Path, seconds: float) -> peers.Audio:
    with audio.AudioReader(path) as reader:
        rate = reader.sample_rate
        channels = next(reader.blocks(math.ceil(seconds * rate)))
    wave = metrics.resample(channels.mean(0), rate, metrics.MEL.sample_rate)
    return wave.clip(-1, 1).astype(np.float32)
