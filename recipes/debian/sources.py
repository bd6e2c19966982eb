"""Lists of audio files, out of unpacked packages and out of folders, with all that is known."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from melcap.errors import InputError
from recipes.debian.apt import Package
from recipes.debian.licences import UNKNOWN, Copyright, is_free
from recipes.debian.rules import CLASSES, Rules, kind_of
from recipes.debian.unpack import audio_files, copyright_text, unpacked_files

OWN = "own"
"""The licence of a folder's audio where none is given."""


@dataclass(frozen=True)
class Audio:
    """An audio file, before it is decoded.

    `path` is where it lies and `origin` where it lay in its package or folder. `minutes` is how
    much is wanted of the group of its package, class and speaker.
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
    """Audio that is left out, and why; `seconds` is None where it was not decoded."""

    package: str
    origin: str
    seconds: float | None
    reason: str


@dataclass(frozen=True)
class Splitter:
    """Which split a group of clips is in: those named in `valid`, and a share of all others.

    A group is decided by its own name alone, so it stays where it is when others come and go.
    """

    share: float
    valid: Collection[str] = ()

    def split_of(self, group: str, pinned: str = "") -> str:
        """`valid` or `train`; `pinned` is what a list says of it."""
        if group in self.valid:
            return "valid"
        if pinned:
            return pinned
        number = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")
        return "valid" if number < self.share * 2**64 else "train"


def of_package(
    package: Package, folder: Path, rules: Rules, splitter: Splitter
) -> tuple[list[Audio], list[Dropped]]:
    """The audio of a package that `unpack` put into `folder`.

    Packages without a row in the list are split by their source package, so that the music of a
    game and its voices stay together.
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
                unpacked_files(folder) / origin, origin, package.name, package.version, licence,
                kind.label, kind.speaker, split, kind.minutes,
            )
        )  # fmt: skip
    return kept, dropped


def of_folder(folder: Path, licence: str, splitter: Splitter) -> list[Audio]:
    """The audio of a folder: CLASS/SPEAKER/.../file, or CLASS/file where nobody is named.

    A speaker is in one split, in every class and folder; a file without one is split by itself.
    Raises InputError for a missing folder, one without class folders, and one without audio.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give one that holds {' or '.join(CLASSES)}")
    name = folder.resolve().name
    found = []
    for origin in audio_files(folder):
        label, *inner = PurePosixPath(origin).parts
        if label not in CLASSES or not inner:
            continue
        speaker = inner[0] if len(inner) > 1 else ""
        split = splitter.split_of(speaker or f"{name}/{origin}")
        path = folder / origin
        found.append(Audio(path, origin, name, "", licence, label, speaker, split, float("inf")))
    if not found:
        raise InputError(
            f"{folder} has no audio under {', '.join(f'{label}/' for label in CLASSES)}: put files "
            "into folders of these names, those of one speaker or band into a folder of their own"
        )
    return found


def outside_classes(folder: Path) -> Sequence[str]:
    """The audio files of a folder that lie in no class, and so are left out."""
    return [
        origin
        for origin in audio_files(folder)
        if "/" not in origin or origin.partition("/")[0] not in CLASSES
    ]
