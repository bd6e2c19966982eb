"""Read the labels of clips from a manifest: class, language, package and spoken text."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from melcap.errors import InputError
from melcap.evaluation.clips import Clip, find_clips
from melcap.evaluation.measures.metrics import SPEECH
from melcap.evaluation.probes.languages import code_of, group_of


@dataclass(frozen=True)
class Labelled:
    """A clip with its labels, each "" where it is not known.

    Attributes:
        clip: the clip.
        kind: its class.
        package: the package that it comes from. A package must not have clips on both sides.
        voice: a recording or speaker within the package.
        language: a language code or another label.
        text: what is said.
        listed: whether the text is single words of a list, and not sentences.
    """

    clip: Clip
    kind: str
    package: str
    voice: str
    language: str = ""
    text: str = ""
    listed: bool = False

    @property
    def group(self) -> str:
        """Return the language group of speech, or ""."""
        return group_of(self.language) if self.kind == SPEECH and self.language else ""

    @property
    def english(self) -> bool:
        """Return whether the clip is English speech."""
        return self.kind == SPEECH and code_of(self.language) == "en"


def label_clips(data: Iterable[Path], manifest: Path | None = None) -> tuple[list[Labelled], int]:
    """Label the clips of folders, tars or lists.

    A manifest is a CSV file with the columns `path` (the clip's name in its folder or tar, with or
    without the folder's own name) and `class`, and maybe `language`, `package`, `speaker`, `text`
    and `listed` (not empty: the text is single words). Without `package` a clip's speaker is its
    package, and without that its file's name without the number at its end. Without a manifest, a
    clip's class is the name of its folder, and nothing else is known.

    Args:
        data: the folders, tars or lists.
        manifest: the manifest.

    Returns:
        The clips that the manifest names, or all of them, and how many clips it does not name.

    Raises:
        InputError: for a file that is no such manifest, or that names none of the clips.
    """
    rows = _rows(manifest) if manifest else None
    clips = [clip for source in data for clip in find_clips(source)]
    if rows is None:
        return [Labelled(clip, clip.kind, clip.package, clip.package) for clip in clips], 0
    found = [(clip, _row(rows, clip)) for clip in clips]
    labelled = [_label(clip, row) for clip, row in found if row]
    if not labelled:
        raise InputError(
            f"{manifest} names no clip of {', '.join(str(source) for source in data)}: its column "
            f"path must hold names such as {clips[0].name}"
        )
    return labelled, len(clips) - len(labelled)


def transcribed_clips(data: Path) -> list[Labelled]:
    """Return English clips of a folder, with the text of NAME.txt for NAME.wav (.flac, ...).

    Raises:
        InputError: for a folder without audio, or a text that cannot be read.
    """
    clips = []
    for clip in find_clips(data):
        path = (data / clip.name).with_suffix(".txt")
        try:
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
        except (OSError, UnicodeError) as error:
            raise InputError(f"{path} cannot be read as text: {error}") from error
        clips.append(Labelled(clip, SPEECH, clip.package, clip.package, "en", text))
    return clips


def check_apart(train: Sequence[Labelled], valid: Sequence[Labelled]) -> None:
    """Check that no package has clips on both sides, where a classifier could recognise it.

    Raises:
        InputError: it names the packages.
    """
    both = sorted({item.package for item in train} & {item.package for item in valid})
    if both:
        shown = ", ".join(both[:3]) + (", ..." if len(both) > 3 else "")
        raise InputError(
            f"{len(both)} packages have clips in both TRAIN and VALID ({shown}): move each to one "
            "side, so that no clip is scored whose package was trained on"
        )


def _label(clip: Clip, row: Mapping[str, str]) -> Labelled:
    speaker = row.get("speaker", "")
    package = row.get("package") or speaker or clip.package
    return Labelled(
        clip,
        kind=row["class"],
        package=package,
        voice=f"{package}/{speaker}" if speaker else package,
        language=row.get("language", ""),
        text=row.get("text", ""),
        listed=bool(row.get("listed")),
    )


def _row(rows: Mapping[str, Mapping[str, str]], clip: Clip) -> Mapping[str, str] | None:
    return rows.get(clip.name) or rows.get(f"{clip.source.name}/{clip.name}")


def _rows(manifest: Path) -> dict[str, dict[str, str]]:
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = set(reader.fieldnames or ())
            rows = [{key: value or "" for key, value in row.items() if key} for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{manifest} cannot be read as CSV: {error}") from error
    if missing := {"path", "class"} - columns:
        raise InputError(f"{manifest} has no column {' and no '.join(sorted(missing))}")
    if "origin_path" in columns and "language" not in columns:
        raise InputError(
            f"{manifest} is the manifest of a training set and has no column language: write one "
            "that has it by `python -m recipes.debian.languages`, in a clone of melcap"
        )
    path, count = Counter(row["path"] for row in rows).most_common(1)[0] if rows else ("", 0)
    if count > 1:
        raise InputError(f"{manifest} names {path} {count} times; a clip has one line")
    return {row["path"]: row for row in rows}
