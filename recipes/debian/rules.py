"""The class, speaker and wanted minutes of a file, by a list of packages and general patterns.

The list is a CSV with the columns package, split, class, minutes, licence, files:

- `files`: a regular expression that is searched for in a file's path. A group `(?P<speaker>...)`
  gives the speaker. An empty expression matches the files that have the row's class by the general
  patterns below. The first row that matches counts, and a file that matches none is left out.
- `class`: speech, music or sound, or drop to leave files out.
- `minutes`: how much is taken from each speaker, or from the package and class if there is none.
- `split`: train or valid. If empty, the name of the source package decides.
- `licence`: for packages whose copyright file states it in words that rules cannot read.

For a package without a row, the general patterns decide alone.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from melcap.errors import InputError

CLASSES = ("speech", "music", "sound")
"""The classes of audio."""
SPLITS = ("train", "valid")
"""The splits of a set."""
DROP = "drop"
"""The class of a row whose files are left out."""
MINUTES = 10.0
"""The minutes that are taken from a package's class without a row in the list."""

_COLUMNS = ["package", "split", "class", "minutes", "licence", "files"]
_VOICE = re.compile(
    r"(^|/)(voices?|speech|speak|spoken|narrat\w*|dialog\w*|announcer\w*|vocals|human|taunts?"
    r"|sayings|commander|unit_?voices?)(/|_|$)",
    re.IGNORECASE,
)
_MUSIC = re.compile(
    r"(^|/)(music|musics|muzik|bgm|ost|soundtrack|songs?|themes?|tunes?|music loops|instruments)"
    r"(/|$)|music[^/]*\.(ogg|mp3|wav|flac|opus)$|/bgm[^/]*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Rule:
    """A row of the list; `files` is None where the general patterns decide."""

    package: str
    split: str
    label: str
    minutes: float
    licence: str
    files: re.Pattern[str] | None


@dataclass(frozen=True)
class Kind:
    """The class of a file, its speaker or "", and the minutes wanted of this speaker or class."""

    label: str
    speaker: str
    minutes: float


Rules = Mapping[str, Sequence[Rule]]
"""The rows of the list by package."""


def default_rules() -> Rules:
    """Return the list of the packages that melcap's own weights were trained on."""
    path = Path(__file__).with_name("packages.csv")
    return parse(path.read_text(encoding="utf-8"), path.name)


def choose_packages(wanted: str | None) -> tuple[list[str], Rules]:
    """Return the packages that are wanted, and the rules for them.

    Args:
        wanted: None for the default list; names separated by commas; or a file, either a list of
            the form above or one name on each line. For names in the default list its rules apply.

    Raises:
        InputError: For a list that cannot be read; it names the line.
    """
    rules = default_rules()
    if wanted is None:
        return list(rules), rules
    path = Path(wanted)
    if "," in wanted or not path.is_file():
        if "/" in wanted or path.suffix in (".csv", ".txt"):
            raise InputError(f"{wanted}: no such file; give a list of packages, or their names")
        names = wanted.split(",")
    else:
        text = path.read_text(encoding="utf-8")
        if text.startswith("package,"):
            own = parse(text, wanted)
            return list(own), own
        names = [line.partition("#")[0] for line in text.splitlines()]
    found = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not found:
        raise InputError(f"{wanted}: names no package")
    if odd := [name for name in found if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name)]:
        raise InputError(f"{', '.join(odd)}: not a package name")
    return found, rules


def parse(text: str, source: str) -> Rules:
    """Parse a list.

    Raises:
        InputError: For an error in the list; it names `source` and the line.
    """
    reader = csv.DictReader(StringIO(text))
    if reader.fieldnames != _COLUMNS:
        raise InputError(f"{source}: its first line must be {','.join(_COLUMNS)}")
    rules: dict[str, list[Rule]] = {}
    for row in reader:
        where = f"{source}, line {reader.line_num}"
        if None in row or None in row.values():
            raise InputError(f"{where}: must have {len(_COLUMNS)} columns")
        rule = _rule(row, where)
        rows = rules.setdefault(rule.package, [])
        if rows and rows[0].split != rule.split:
            raise InputError(f"{where}: {rule.package} is in two splits; a package is in one")
        rows.append(rule)
    if not rules:
        raise InputError(f"{source}: names no package")
    return rules


def kind_of(package: str, origin: str, rules: Rules) -> Kind | None:
    """Return the kind of the file `origin` of a package, or None if it is to be left out."""
    if package not in rules:
        label = general_class(origin)
        speaker = origin.rpartition("/")[0].rpartition("/")[2] if label == "speech" else ""
        return Kind(label, speaker, MINUTES)
    for rule in rules[package]:
        found = rule.files.search(origin) if rule.files else None
        if found is None and (rule.files or general_class(origin) != rule.label):
            continue
        if rule.label == DROP:
            return None
        named = found.groupdict().get("speaker") if found else None
        return Kind(rule.label, named or "", rule.minutes)
    return None


def general_class(origin: str) -> str:
    """Return the class that a path suggests: sound, unless its names mention voices or music."""
    if _VOICE.search(origin):
        return "speech"
    return "music" if _MUSIC.search(origin) else "sound"


def _rule(row: Mapping[str, str], where: str) -> Rule:
    label, split = row["class"], row["split"]
    if label not in (*CLASSES, DROP):
        raise InputError(f"{where}: the class is {', '.join(CLASSES)} or {DROP}, not {label!r}")
    if split not in (*SPLITS, ""):
        raise InputError(f"{where}: the split is {' or '.join(SPLITS)}, or empty, not {split!r}")
    try:
        minutes = float(row["minutes"] or MINUTES)
        pattern = re.compile(row["files"]) if row["files"] else None
    except (ValueError, re.error) as error:
        raise InputError(f"{where}: {error}") from error
    if not 0 < minutes < float("inf"):
        raise InputError(f"{where}: minutes must be above 0")
    return Rule(row["package"], split, label, minutes, row["licence"], pattern)
