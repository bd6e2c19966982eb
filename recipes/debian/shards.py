"""The set on disk: tar shards, a manifest of their clips, licences, and what was left out.

`write` makes these files in a folder:

    train-0.tar ...   clips of the train split, classes mixed
    valid.tar         clips of the valid split
    manifest.csv      a row for each clip: its shard, its class, its origin
    LICENCES.csv, .md a row for each package: version, minutes of each class, licences
    copyright/        the copyright file of each package
    dropped.csv       what was left out, and why
    set.json          the shards, and a key of all that they were made of; written last
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from melcap.errors import OutputExistsError
from melcap.io.files import replacing
from recipes.debian.clips import Clip
from recipes.debian.sources import Dropped
from recipes.debian.tables import Origin, Row, row_of, write_tables

_STATE, _NEW = "set.json", ".melcap-new"


def name_clips(clips: Iterable[Clip], suffix: str) -> list[tuple[str, Clip]]:
    """Return clips with their names in the shards, split/class/package-speaker_NNNN.suffix."""
    counts: Counter[str] = Counter()
    named = []
    for clip in sorted(clips, key=_order):
        audio = clip.audio
        stem = re.sub(r"[^A-Za-z0-9.+]+", "-", f"{audio.package}-{audio.speaker}").strip("-")
        place = f"{audio.split}/{audio.label}/{stem}"
        named.append((f"{place}_{counts[place]:04d}{suffix}", clip))
        counts[place] += 1
    return named


def is_complete(folder: Path, key: str) -> bool:
    """Return whether the folder holds the whole set with this key."""
    state = read_state(folder)
    return state.get("key") == key and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size
        for name, size in state["shards"].items()
    )


def refuse_others(folder: Path) -> None:
    """Refuse a folder with shards that this command did not make.

    Raises:
        OutputExistsError: It names them.
    """
    ours = set(read_state(folder).get("shards", {}))
    found = {path.name for path in folder.glob("*.tar")} - ours
    if found:
        raise OutputExistsError(
            f"{folder} holds {', '.join(sorted(found))}, which this command did not make: "
            "choose another folder"
        )


def read_state(folder: Path) -> dict[str, Any]:
    """Return the content of set.json, or an empty dictionary if it cannot be read."""
    try:
        state: dict[str, Any] = json.loads((folder / _STATE).read_text())
    except (OSError, ValueError):
        return {}
    return state


def write(
    folder: Path,
    named: Sequence[tuple[str, Clip]],
    files: Mapping[str, Path],
    origins: Mapping[str, Origin],
    dropped: Sequence[Dropped],
    key: str,
    shard_bytes: int,
    advance: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Write the set, and return the rows of its manifest.

    All files are complete before anything of an older set changes. The key in set.json is written
    last and shows that the set is whole. The same clips give the same bytes.

    Args:
        folder: The folder of the set.
        named: The clips with their names.
        files: The encoded clips by name.
        origins: The packages and folders by name, for the table of licences.
        dropped: What was left out.
        key: The key of the set.
        shard_bytes: The size of a train shard.
        advance: Called after each clip.
    """
    new = folder / _NEW
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    rows = []
    for shard, members in _shards(named, files, shard_bytes):
        with tarfile.open(new / shard, "w", format=tarfile.GNU_FORMAT) as tar:
            for name, clip in members:
                member = tarfile.TarInfo(name)
                member.size = files[name].stat().st_size
                with files[name].open("rb") as file:
                    tar.addfile(member, file)
                rows.append(row_of(shard, name, clip, files[name]))
                advance()
    rows.sort(key=lambda row: row["path"])
    write_tables(new, rows, dropped, origins)
    _move_in(folder, new, key)
    return rows


def _move_in(folder: Path, new: Path, key: str) -> None:
    """Replace the older set by the files in `new`."""
    shards = {path.name: path.stat().st_size for path in sorted(new.glob("*.tar"))}
    old = read_state(folder).get("shards", {})
    # Without a key the set counts as whole neither under the old key nor under the new one.
    _write_state(folder, "", {**old, **shards})
    shutil.rmtree(folder / "copyright", ignore_errors=True)
    for path in sorted(new.iterdir()):
        os.replace(path, folder / path.name)
    for name in set(old) - set(shards):
        (folder / name).unlink(missing_ok=True)
    new.rmdir()
    _write_state(folder, key, shards)


def _write_state(folder: Path, key: str, shards: dict[str, int]) -> None:
    with replacing(folder / _STATE) as partial:
        partial.write_text(json.dumps({"key": key, "shards": shards}, indent=2) + "\n")


def _order(clip: Clip) -> tuple[str, str, str, int, str]:
    audio = clip.audio
    first = clip.parts[0].spans[0][0]
    return audio.package, audio.label, audio.speaker, first if clip.rank else 0, audio.origin


def _shards(
    named: Sequence[tuple[str, Clip]], files: Mapping[str, Path], shard_bytes: int
) -> list[tuple[str, list[tuple[str, Clip]]]]:
    """Return the clips of each shard: one of valid, and shuffled ones of train of `shard_bytes`."""
    valid = [(name, clip) for name, clip in named if clip.audio.split == "valid"]
    train = [(name, clip) for name, clip in named if clip.audio.split != "valid"]
    # The files of clips are named by digests, so sorting by name shuffles the clips.
    train.sort(key=lambda item: files[item[0]].name)
    shards: list[tuple[str, list[tuple[str, Clip]]]] = [("valid.tar", valid)] if valid else []
    room = 0
    for name, clip in train:
        size = files[name].stat().st_size
        if room < size:
            shards.append((f"train-{len(shards) - bool(valid)}.tar", []))
            room = max(shard_bytes, size)
        shards[-1][1].append((name, clip))
        room -= size
    return shards
