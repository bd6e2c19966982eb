"""Languages, their groups, and the words of clips that were made from Debian packages.

A package says what language it speaks by its name or its folders, and some name a file by the word
that it holds. Nothing is guessed from the sound: where path and package are silent, a clip has no
language (the game voices of 0ad and openarena, say, and all but four of hedgewars').
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

GROUPS = {
    "Germanic": ("af", "da", "de", "en", "is", "nb", "nds", "nl", "nn", "no", "sv"),
    "Romance": ("ca", "es", "fr", "gl", "it", "oc", "pt", "ro", "wa"),
    "Slavic": ("be", "bg", "cs", "hr", "mk", "pl", "ru", "sk", "sl", "sr", "uk"),
    "Baltic": ("lt", "lv"),
    "Uralic": ("et", "fi", "hu"),
    "Semitic": ("ar", "he", "mt"),
    "Dravidian": ("kn", "ml", "ta", "te"),
    "Hellenic": ("el",),
    "Sinitic": ("zh",),
    "Bantu": ("tn", "xh", "zu"),
}
"""Language codes (ISO 639-1, or 639-3 where it has none) of each group."""

RULES = (
    (r"^asterisk-core-sounds-(?P<code>[a-z]{2})-", None),
    (r"^festvox-(?P<code>[a-z]{2})/", None),
    (r"^fillets-ng-data-[a-z]{2}/.*/(?P<code>[a-z]{2})/[^/]+$", None),
    (r"^klettres-data/.*/klettres/(?P<code>[a-z]{2,3})(_[A-Z]{2})?/", None),
    (r"^ktuberling-data/.*/sounds/(?P<code>[a-z]{2,3})(@\w+)?/", None),
    (r"^qabcs-data/.*/abcs/(?P<code>[a-z]{2})/", None),
    (r"^hedgewars-data/.*/voices/Default_(?P<code>[a-z]{2})/", None),
    (r"^tuxpaint-stamps-default/.*_desc_(?P<code>[a-z]{2,3})(_[A-Z]{2})?\.\w+$", None),
    (r"^tuxpaint-stamps-default/.*_desc\.\w+$", "en"),
    (r"^gcin-voice/", "zh"),
)
"""What PACKAGE/PATH says of the language: the code in it, or the one beside the pattern."""

SPELLED = (
    r"^qabcs-data/.*/abcs/en/sounds/(?:words|alpha)/(?P<word>[^/]+)\.\w+$",
    r"^klettres-data/.*/klettres/en(?:_GB)?/(?:alpha|syllab)/(?P<word>[^/]+)\.\w+$",
)
"""English files that are named by the word, or the letter, that is spoken in them."""

PROMPTS = r"^asterisk-core-sounds-en-\w+/.*/sounds/en_US_f_Allison/(?P<name>.+)\.\w+$"
"""Files whose text stands in the package's core-sounds-en.txt, under this name."""


def group_of(language: str) -> str:
    """The group of a language code such as en, en_GB or pt-BR; another label is its own group."""
    code = re.split(r"[-_@]", language)[0].lower()
    return next((group for group, codes in GROUPS.items() if code in codes), language)


def language_of(package: str, paths: Sequence[str]) -> str:
    """The language that all files of a clip are in, by `RULES`; "" where they do not all say so."""
    found = {_code(f"{package}/{path}") for path in paths}
    return found.pop() if len(found) == 1 else ""


def words_spelled(package: str, paths: Sequence[str]) -> str:
    """The words of a clip, from the names of its files (`SPELLED`); "" where one says nothing."""
    found = [_first(SPELLED, f"{package}/{path}") for path in paths]
    if not all(found):
        return ""
    return " ".join(match["word"].replace("_", " ").lower() for match in found if match)


def words_prompted(package: str, paths: Sequence[str], prompts: Mapping[str, str]) -> str:
    """The words of a clip that is joined of prompts; "" where the text of one is not known."""
    found = [_first((PROMPTS,), f"{package}/{path}") for path in paths]
    texts = [prompts.get(match["name"], "") if match else "" for match in found]
    return " ".join(texts) if all(texts) else ""


def origins(row: Mapping[str, str]) -> list[str]:
    """The files that a clip of the project's manifest is joined of, in their order."""
    paths = row.get("origin_path", "").split(";")
    return [str(PurePosixPath(path)) for path in paths if path]


def _code(path: str) -> str:
    for pattern, code in RULES:
        if match := re.search(pattern, path):
            return code or match["code"]
    return ""


def _first(patterns: Sequence[str], path: str) -> re.Match[str] | None:
    return next(filter(None, (re.search(pattern, path) for pattern in patterns)), None)
