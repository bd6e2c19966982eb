"""Lists of audio files from unpacked packages and folders, with licence, class and split."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from melcap.errors import InputError
from melcap.io.suffixes import AUDIO_SUFFIXES
from recipes.debian.apt import Package
from recipes.debian.licences import UNKNOWN, Copyright, is_free
from recipes.debian.rules import CLASSES, Rules, kind_of
from recipes.debian.unpack import RAW_SUFFIXES, audio_files, copyright_text, unpacked_files

_OWN_SUFFIXES = (*AUDIO_SUFFIXES, *RAW_SUFFIXES)
OWN = "own"
"""The licence of a folder's audio if none is given."""


@dataclass(frozen=True)
class Audio:
    """An audio file before it is decoded.

    Attributes:
        path: The file.
        origin: Its path in its package or folder.
        package: The package or folder.
        version: The version of the package, "" for a folder.
        licence: Its licence.
        label: Its class.
        speaker: Its speaker, or "".
        split: train or valid.
        minutes: The minutes that are wanted of its package, class and speaker.
    """

    path: Path
    origin: str
    package: str
    version: str
    licence: str
    label: str
    speaker: str
    split: str
    minutes: float


@dataclass(frozen=True)
class Dropped:
    """Audio that is left out, and the reason; `seconds` is None if it was not decoded."""

    package: str
    origin: str
    seconds: float | None
    reason: str


@dataclass(frozen=True)
class Splitter:
    """A rule for the split of groups of clips: those in `valid` and a share of others are in valid.

    Only the name of a group decides, so it stays in its split when other groups are added.
    """

    share: float
    valid: Collection[str] = ()

    def split_of(self, group: str, pinned: str = "") -> str:
        """Return `valid` or `train`; `pinned` is the split that a list gives."""
        if group in self.valid:
            return "valid"
        if pinned:
            return pinned
        number = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")
        return "valid" if number < self.share * 2**64 else "train"


def of_package(
    package: Package, folder: Path, rules: Rules, splitter: Splitter
) -> tuple[list[Audio], list[Dropped]]:
    """Return the audio of a package that `unpack` put into `folder`, and what is left out.

    The split of a package without a row in the list depends on its source package, so that the
    music of a game and its voices stay together.
    """
    rows = rules.get(package.name, ())
    pinned = rows[0].split if rows else ""
    group = package.name if package.name in splitter.valid else package.source
    split = splitter.split_of(group, pinned)
    stated = next((row.licence for row in rows if row.licence), "")
    copyright = Copyright.parse(copyright_text(folder))
    kept, dropped = [], []
    for origin in audio_files(unpacked_files(folder)):
        kind = kind_of(package.name, origin, rules)
        licence = stated or copyright.licence_of(origin)
        reason = ""
        if kind is None:
            reason = "not wanted by the list"
        elif licence == UNKNOWN:
            reason = "licence unknown"
        elif not is_free(licence):
            reason = f"licence not known to be free: {licence}"
        if kind is None or reason:
            dropped.append(Dropped(package.name, origin, None, reason))
            continue
        kept.append(
            Audio(
                path=unpacked_files(folder) / origin,
                origin=origin,
                package=package.name,
                version=package.version,
                licence=licence,
                label=kind.label,
                speaker=kind.speaker,
                split=split,
                minutes=kind.minutes,
            )
        )
    return kept, dropped


def of_folder(folder: Path, licence: str, splitter: Splitter) -> list[Audio]:
    """Return the audio of a folder: CLASS/SPEAKER/.../file, or CLASS/file without a speaker.

    A speaker is in one split in all classes and folders. A file without a speaker is a group of its
    own. All that melcap reads is taken.

    Raises:
        InputError: For a missing folder, one without class folders, and one without audio.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give one that holds {' or '.join(CLASSES)}")
    name = folder.resolve().name
    found = []
    for origin in audio_files(folder, _OWN_SUFFIXES):
        label, *inner = PurePosixPath(origin).parts
        if label not in CLASSES or not inner:
            continue
        speaker = inner[0] if len(inner) > 1 else ""
        split = splitter.split_of(speaker or f"{name}/{origin}")
        found.append(
            Audio(
                path=folder / origin,
                origin=origin,
                package=name,
                version="",
                licence=licence,
                label=label,
                speaker=speaker,
                split=split,
                minutes=float("inf"),
            )
        )
    if not found:
        raise InputError(
            f"{folder} has no audio under {', '.join(f'{label}/' for label in CLASSES)}: put files "
            "into folders with these names, and those of one speaker or band into a folder there"
        )
    return found


def outside_classes(folder: Path) -> Sequence[str]:
    """Return the audio files of a folder that are left out because they are in no class folder."""
    return [
        origin
        for origin in audio_files(folder, _OWN_SUFFIXES)
        if "/" not in origin or origin.partition("/")[0] not in CLASSES
    ]
