"""Codecs that somebody else ran: audio files of what they made of the clips stand for them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from melcap.errors import InputError
from melcap.evaluation.alignment import lags
from melcap.evaluation.clips import Clip, read_mono
from melcap.evaluation.peers.base import Audio, Coded, Peer
from melcap.io.suffixes import is_audio

MOST_DIFFERENCE = 0.5
"""The largest difference in length between a file and its clip, in seconds."""
MOST_OF_CLIP = 0.1
"""The largest difference as a share of the clip."""
ALWAYS_ALLOWED = 0.1
"""A difference in seconds that is allowed for the shortest clips too: codecs fill up frames."""
BEYOND = 1.0
"""Lengths are compared up to so many seconds beyond the part that is measured."""


@dataclass(frozen=True)
class DecodedCodec:
    """A codec of which decoded clips are there, in a file for each clip.

    Attributes:
        name: what the tables call it.
        folder: the folder with the files.
        kbps: its bit rate, as the user states it; None where it is not stated.
    """

    name: str
    folder: Path
    kbps: float | None = None

    def files(self, clips: Sequence[Clip], listed: Iterable[Clip]) -> dict[Clip, Path]:
        """Return the file for each clip.

        It is the file at the clip's path in the data, with any suffix of audio, or else the file
        with the clip's name without suffix, anywhere in the folder.

        Args:
            clips: the clips that are measured.
            listed: all clips of the data. A file that could belong to two of them is refused.

        Raises:
            InputError: for a folder that is not there or lacks clips, and where it is not clear
                which file belongs to a clip.
        """
        if not self.folder.is_dir():
            raise InputError(f"{self.folder} is no folder: the files of {self.name} must be in one")
        paths = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        names = [name for name in names if is_audio(name)]
        in_data = [clip.name for clip in listed]
        lists = [
            (key, _grouped(names, key), _grouped(in_data, key)) for key in (_whole, _path, _stem)
        ]
        found = {}
        for clip in clips:
            for key, files, rivals in lists:
                same = files.get(key(clip.name))
                if same:
                    found[clip] = self.folder / self._only(clip, same, rivals[key(clip.name)])
                    break
        missing = [clip.name for clip in clips if clip not in found]
        if missing:
            raise InputError(
                f"{self.folder} has no file for {len(missing)} of {len(clips)} clips, the first of "
                f"which is {missing[0]}: {self.name} needs all of them"
            )
        return found

    def _only(self, clip: Clip, files: Sequence[str], rivals: Sequence[str]) -> str:
        if len(files) > 1:
            raise InputError(
                f"{self.folder} has both {files[0]} and {files[1]} for the clip {clip.name}: keep "
                "one of them"
            )
        if len(rivals) > 1:
            raise InputError(
                f"{self.folder}: {files[0]} could be the clip {rivals[0]} or {rivals[1]}: give the "
                "files the same paths as the clips"
            )
        return files[0]


class DecodedFile(Peer):
    """A codec's file for one clip.

    Raises:
        OSError: for a file that cannot be read.
    """

    from_files = True

    def __init__(self, name: str, path: Path, clip: Clip, seconds: float) -> None:
        self.name = name
        self.identity = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        self._path, self._clip = path, clip
        self._seconds = seconds + BEYOND

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        """Read the file, and cut it or pad it with silence to the length of `wave`.

        Raises:
            AudioFileError: for a file that cannot be decoded.
            InputError: for a file whose length is not that of the clip.
        """
        decoded = read_mono(self._path, self._seconds, sample_rate)
        clip = self._clip.read(self._seconds, sample_rate)
        difference = (len(decoded) - len(clip)) / sample_rate
        most = min(MOST_DIFFERENCE, max(ALWAYS_ALLOWED, MOST_OF_CLIP * len(clip) / sample_rate))
        if abs(difference) > most:
            way = "longer" if difference > 0 else "shorter"
            raise InputError(
                f"{self._path} is at least {abs(difference):.2f} s {way} than the clip: no more "
                f"than {most:.2f} s is cut or padded"
            )
        fitted = Coded(None, 0, len(wave), sample_rate).fitted(decoded, sample_rate)
        facts = {"length_difference": difference, **lags(wave, fitted, sample_rate)}
        return Coded(fitted, 0, len(wave), sample_rate, facts=facts)

    def decode(self, coded: Coded) -> Audio:
        """Return what was read."""
        wave: Audio = coded.payload
        return wave


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> Mapping[str, list[str]]:
    groups = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return groups


def _whole(name: str) -> str:
    return name


def _path(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _stem(name: str) -> str:
    return PurePosixPath(name).stem
