"""What is said in a manifest about each clip: its class, language, origin and words."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from melcap.errors import InputError
from melcap.evaluation.clips import Clip, find_clips
from melcap.evaluation.probes.languages import (
    group_of,
    language_of,
    origins,
    words_prompted,
    words_spelled,
)

SPEECH = "speech"


@dataclass(frozen=True)
class Labelled:
    """A clip and what is known of it; "" for what is not.

    `package` is what must not stand on both sides, `voice` the part of it that is one recording or
    speaker, `text` what is said, `listed` that these are single words out of a list.
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
        return group_of(self.language) if self.kind == SPEECH and self.language else ""

    @property
    def english(self) -> bool:
        return self.kind == SPEECH and self.language.lower().replace("_", "-").split("-")[0] == "en"


def label_clips(
    data: Iterable[Path], manifest: Path | None = None, prompts: Path | None = None
) -> tuple[list[Labelled], int]:
    """The clips of folders, tars or lists, with their labels, and how many the manifest lacks.

    A manifest is a CSV file with the columns `path` (the clip's name in its folder or tar, with or
    without the folder's own name) and `class`, and maybe `language`, `package`, `speaker`, `text`.
    Without `package` a clip's speaker is its package, and without that its file's name less the
    number at its end. Where there is `origin_path` instead of `language`, as in melcap's own
    manifest, language and text come from the names of Debian packages and their files; `prompts` is
    a file of lines "NAME: text" for those that name a prompt. Without a manifest the folder that a
    clip lies in is its class, and nothing else is known.

    Raises `InputError` for a file that is no such manifest, or clips of which it names none.
    """
    rows = _rows(manifest) if manifest else None
    texts = _prompts(prompts) if prompts else {}
    clips = [clip for source in data for clip in find_clips(source)]
    if rows is None:
        return [Labelled(clip, clip.kind, clip.package, clip.package) for clip in clips], 0
    found = [(clip, _row(rows, clip)) for clip in clips]
    labelled = [_label(clip, row, texts) for clip, row in found if row]
    if not labelled:
        raise InputError(
            f"{manifest} names no clip of {', '.join(str(source) for source in data)}: its column "
            f"path must hold names such as {clips[0].name}"
        )
    return labelled, len(clips) - len(labelled)


def transcribed_clips(data: Path) -> list[Labelled]:
    """English clips of a folder; the text of NAME.wav (.flac, ...) stands in NAME.txt beside it.

    Raises `InputError` for a folder without audio, or a text that cannot be read.
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
    """Raises `InputError` where a package has clips on both sides: a probe would know it."""
    both = sorted({item.package for item in train} & {item.package for item in valid})
    if both:
        shown = ", ".join(both[:3]) + (", ..." if len(both) > 3 else "")
        raise InputError(
            f"{len(both)} packages have clips in both TRAIN and VALID ({shown}): move each to one "
            "side, so that nothing scored was learnt from"
        )


def _label(clip: Clip, row: Mapping[str, str], texts: Mapping[str, str]) -> Labelled:
    speaker = row.get("speaker", "")
    package = row.get("package") or speaker or clip.package
    language, text, listed = row.get("language", ""), row.get("text", ""), False
    if "origin_path" in row and "language" not in row:
        paths = origins(row)
        language = language_of(package, paths)
        spelled = words_spelled(package, paths)
        text, listed = spelled or words_prompted(package, paths, texts), bool(spelled)
    voice = f"{package}/{speaker}" if speaker else package
    return Labelled(clip, row["class"], package, voice, language, text, listed)


def _row(rows: Mapping[str, Mapping[str, str]], clip: Clip) -> Mapping[str, str] | None:
    return rows.get(clip.name) or rows.get(f"{clip.source.name}/{clip.name}")


def _rows(manifest: Path) -> dict[str, dict[str, str]]:
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = {"path", "class"} - set(reader.fieldnames or ())
            rows = [{key: value or "" for key, value in row.items() if key} for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{manifest} cannot be read as CSV: {error}") from error
    if missing:
        raise InputError(f"{manifest} has no column {' and no '.join(sorted(missing))}")
    path, count = Counter(row["path"] for row in rows).most_common(1)[0] if rows else ("", 0)
    if count > 1:
        raise InputError(f"{manifest} names {path} {count} times; a clip has one line")
    return {row["path"]: row for row in rows}


def _prompts(path: Path) -> dict[str, str]:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeError) as error:
        raise InputError(f"{path} cannot be read as text: {error}") from error
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith(";"))
    return {name.strip(): said.strip() for name, colon, said in lines if colon}
