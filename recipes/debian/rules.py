"""What kind of audio a file is, who speaks, and how much of it is wanted: a list, and patterns.

The list is a CSV with the columns package, split, class, minutes, licence, files:

- `files`: a regular expression that is looked for in a file's path; a group `(?P<speaker>...)`
  names who speaks. Left empty, the row is for those files that the general patterns below say are
  of its class. A file takes the first row that fits, and is left out where none does.
- `class`: speech, music or sound; or drop, for what is to be left out.
- `minutes`: how much is taken from each speaker, or without one from the package and class.
- `split`: train or valid; left empty, the name of the source package decides.
- `licence`: of packages whose copyright file says it in words that cannot be read by rules.

A package without a row is judged by the general patterns alone.
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
SPLITS = ("train", "valid")
DROP = "drop"
MINUTES = 10.0
"""How much is taken from a package's class where no list says."""

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
    """One row of a list; `files` is None where the general patterns decide."""

    package: str
    split: str
    label: str
    minutes: float
    licence: str
    files: re.Pattern[str] | None


@dataclass(frozen=True)
class Kind:
    """What a file is: its class, its speaker ("" for none), and how much of such is wanted."""

    label: str
    speaker: str
    minutes: float


Rules = Mapping[str, Sequence[Rule]]
"""The rows of each package."""


def default_rules() -> Rules:
    """The list of the packages that melcap's own weights were trained on."""
    path = Path(__file__).with_name("packages.csv")
    return parse(path.read_text(encoding="utf-8"), path.name)


def choose_packages(wanted: str | None) -> tuple[list[str], Rules]:
    """The packages named, and the rules for them.

    `wanted` is None for the default list, names separated by commas, or a file: a list of the form
    above, or one name a line. Names that the default list has follow its rules. Raises InputError
    for a list that cannot be read, with the line.
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
        raise InputError(f"{', '.join(odd)}: not a package's name")
    return found, rules


def parse(text: str, source: str) -> Rules:
    """Reads a list; InputError, with `source` and the line, for what it may not hold."""
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
    """What the file `origin` of a package is; None where it is to be left out."""
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
    """The class that the names in a path suggest: effects, unless they speak of voices or music."""
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
