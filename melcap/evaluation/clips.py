"""Find the clips of a folder, a tar or a list, and choose some of each class."""

from __future__ import annotations

import csv
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
from melcap.evaluation.measures.signals import Audio, resample
from melcap.io.suffixes import is_audio

RATE = 44100
"""The rate in Hz at which clips are measured, where no other is asked for."""


@dataclass(frozen=True)
class Clip:
    """An audio file.

    Attributes:
        source: the folder or tar that holds it, or the manifest (.csv) that lists it.
        name: its path in the source, with forward slashes.
        label: the class that a manifest gives it.
    """

    source: Path
    name: str
    label: str | None = None

    @property
    def kind(self) -> str:
        """Return the clip's class, such as speech, music or sound."""
        return self.label or PurePosixPath(self.name).parent.name or self.source.stem

    @property
    def package(self) -> str:
        """Return the recording or package of the clip: its name without the final number."""
        return re.sub(r"_?\d+$", "", PurePosixPath(self.name).stem)

    def read(self, seconds: float | None, sample_rate: int = RATE) -> Audio:
        """Read the clip as `read_mono` does.

        Args:
            seconds: read so much from the beginning; None reads all of it.
            sample_rate: the rate of the samples in Hz.

        Raises:
            AudioFileError: for a clip that cannot be read.
        """
        if self.source.is_dir():
            return read_mono(self.source / self.name, seconds, sample_rate)
        if _is_manifest(self.source):
            return read_mono(self.source.parent / self.name, seconds, sample_rate)
        # The decoders need a file, so a member of a tar is written to one.
        with tempfile.TemporaryDirectory() as folder, tarfile.open(self.source) as shard:
            path = Path(folder) / PurePosixPath(self.name).name
            member = shard.extractfile(self.name)
            path.write_bytes(member.read() if member else b"")
            return read_mono(path, seconds, sample_rate)


def find_clips(data: Path) -> list[Clip]:
    """Return every audio file under a folder, in a tar or in a manifest, sorted by name.

    Args:
        data: the folder, the tar, or the manifest: a CSV file with a column `path`, relative to the
            manifest's folder or absolute, and maybe a column `class`.

    Raises:
        InputError: where there is no audio file, or a listed file is missing.
    """
    if not data.exists():
        raise InputError(f"{data} does not exist: give a folder, a tar or a CSV of audio files")
    if _is_manifest(data):
        return _listed(data)
    if data.is_dir():
        names = [path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()]
    else:
        try:
            with tarfile.open(data) as shard:
                names = [member.name for member in shard if member.isfile()]
        except (OSError, tarfile.TarError) as error:
            # tarfile tries every compression, and reports each in a line of its own.
            reason = str(error).partition("\n")[0].rstrip(":")
            raise InputError(
                f"{data} is neither a folder nor a tar or .csv file: {reason}"
            ) from error
    clips = [Clip(data, name) for name in sorted(names) if is_audio(name)]
    if not clips:
        raise InputError(f"{data} holds no audio file: give one with files such as .wav or .flac")
    return clips


def choose_clips(clips: Iterable[Clip], per_class: int) -> list[Clip]:
    """Choose up to `per_class` clips of each class, from as many packages as possible.

    The choice depends on names alone, and a larger choice contains every smaller one.
    """
    packages: dict[str, dict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
    for clip in sorted(clips, key=lambda clip: hashlib.sha256(clip.name.encode()).digest()):
        packages[clip.kind][clip.package].append(clip)
    chosen = []
    for kind in sorted(packages):
        turns = zip_longest(*packages[kind].values())
        chosen += [clip for turn in turns for clip in turn if clip][:per_class]
    return chosen


def read_mono(path: Path, seconds: float | None, sample_rate: int) -> Audio:
    """Read an audio file as float32 [samples], with channels mixed, clamped to full scale.

    Args:
        path: a file of any rate and number of channels.
        seconds: read so much from the beginning; None reads all of it.
        sample_rate: the rate of the samples in Hz.

    Raises:
        AudioFileError: for a file that cannot be read.
    """
    pieces, wanted = [], math.inf
    with audio.AudioReader(path) as reader:
        if seconds is not None:
            wanted = math.ceil(seconds * reader.sample_rate)
        done = 0
        for block in reader.blocks():
            pieces.append(block.mean(0))
            done += block.shape[1]
            if done >= wanted:
                break
        mixed = np.concatenate(pieces)
        mixed = mixed[: int(min(done, wanted))]
        wave = resample(mixed, reader.sample_rate, sample_rate)
    return wave.clip(-1, 1).astype(np.float32)


def _is_manifest(data: Path) -> bool:
    return data.suffix.lower() == ".csv"


def _listed(manifest: Path) -> list[Clip]:
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if "path" not in (reader.fieldnames or ()):
                raise InputError(f"{manifest} has no column named path in its first line")
            rows = [(row["path"], row.get("class") or None) for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{manifest} cannot be read as CSV: {error}") from error
    clips = {path: Clip(manifest, Path(path).as_posix(), kind) for path, kind in rows if path}
    if not clips:
        raise InputError(f"{manifest} lists no clip")
    missing = [path for path in clips if not (manifest.parent / path).is_file()]
    if missing:
        raise InputError(
            f"{manifest} lists {missing[0]}, which is not there; {len(missing)} of {len(clips)} "
            "files are missing"
        )
    return sorted(clips.values(), key=lambda clip: clip.name)
