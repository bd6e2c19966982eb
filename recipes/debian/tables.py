"""The tables beside the shards: manifest, licences of each package, and audio that was left out."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melcap.markdown import table
from recipes.debian.clips import Clip
from recipes.debian.encode import made
from recipes.debian.rules import CLASSES
from recipes.debian.sources import Dropped

COLUMNS = (
    "shard",
    "split",
    "class",
    "path",
    "seconds",
    "bandwidth_hz",
    "speaker",
    "package",
    "version",
    "licence",
    "origin_path",
    "source_rate",
)
"""The columns of the manifest."""

_MANIFEST = "manifest.csv"
_LICENCE_COLUMNS = ("package", "version", "deb_mb", "splits", *CLASSES, "licences")

Row = dict[str, Any]
"""A row of a table, by column."""


@dataclass(frozen=True)
class Origin:
    """A package or folder that clips come from.

    Attributes:
        size: The bytes of the .deb, 0 for a folder.
        copyright: The text of the copyright files, or None.
    """

    size: int
    copyright: str | None


def read_rows(folder: Path) -> list[Row]:
    """Return the rows of the manifest in a folder."""
    with (folder / _MANIFEST).open(newline="", encoding="utf-8") as file:
        return [{**row, "seconds": float(row["seconds"])} for row in csv.DictReader(file)]


def write_tables(
    folder: Path, rows: Sequence[Row], dropped: Sequence[Dropped], origins: Mapping[str, Origin]
) -> None:
    """Write manifest.csv, dropped.csv, LICENCES.csv, LICENCES.md and copyright/ into a folder."""
    _write_csv(folder / _MANIFEST, COLUMNS, rows)
    left = sorted(dropped, key=lambda drop: (drop.package, drop.origin, drop.reason))
    _write_csv(
        folder / "dropped.csv",
        ("package", "origin_path", "seconds", "reason"),
        (
            {
                "package": drop.package,
                "origin_path": drop.origin,
                "seconds": "" if drop.seconds is None else round(drop.seconds, 3),
                "reason": drop.reason,
            }
            for drop in left
        ),
    )
    licences = _licences(rows, origins)
    _write_csv(folder / "LICENCES.csv", _LICENCE_COLUMNS, licences)
    (folder / "LICENCES.md").write_text(_markdown(licences), encoding="utf-8")
    (folder / "copyright").mkdir()
    for row in licences:
        if text := origins[row["package"]].copyright:
            (folder / "copyright" / row["package"]).write_text(text, encoding="utf-8")


def row_of(shard: str, name: str, clip: Clip, file: Path) -> Row:
    """Return the row of a clip in the manifest; its encoded `file` is called `name` in `shard`."""
    audio, result = clip.audio, made(file)
    rates = Counter(part.facts.rate for part in clip.parts)
    return {
        "shard": shard,
        "split": audio.split,
        "class": audio.label,
        "path": name,
        "seconds": round(result.seconds, 3),
        "bandwidth_hz": result.bandwidth,
        "speaker": audio.speaker,
        "package": audio.package,
        "version": audio.version,
        "licence": audio.licence,
        "origin_path": ";".join(part.audio.origin for part in clip.parts),
        "source_rate": rates.most_common(1)[0][0],
    }


def _licences(rows: Sequence[Row], origins: Mapping[str, Origin]) -> list[Row]:
    """Return the rows of LICENCES.csv."""
    packages: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        packages[row["package"]].append(row)
    found = []
    for package, clips in sorted(packages.items()):
        minutes = {
            label: round(sum(row["seconds"] for row in clips if row["class"] == label) / 60, 1)
            for label in CLASSES
        }
        found.append(
            {
                "package": package,
                "version": clips[0]["version"],
                "deb_mb": round(origins[package].size / 1e6, 1),
                "splits": "+".join(sorted({row["split"] for row in clips})),
                **minutes,
                "licences": "; ".join(sorted({row["licence"] for row in clips})),
            }
        )
    return found


def _markdown(licences: Sequence[Row]) -> str:
    """Return the text of LICENCES.md."""
    cells = [[row[name] for name in _LICENCE_COLUMNS] for row in licences]
    return (
        "# Licences of this audio\n\n"
        "Each recording keeps the licence of its author; `manifest.csv` has that of each clip, and "
        "the folder `copyright` the copyright file of each package, with authors and terms.\n\n"
    ) + table(_LICENCE_COLUMNS, cells)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
