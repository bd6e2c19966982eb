"""The licence of an audio file, from its package's copyright file, and whether it is free.

Copyright files are either machine-readable (DEP-5, the copyright format 1.0 of Debian) or free
text. DEP-5 names files as they lie in the source; a package installs them elsewhere, so patterns
are compared with the tail of an installed path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from recipes.debian.deb822 import paragraphs

UNKNOWN = "unknown"
ALL_OF = " + "
"""Joins licences where the copyright file does not say which applies to which file."""

# One licence, by its short name in DEP-5 or SPDX. Creative Commons is free by Debian's guidelines
# from version 3 on; -NC and -ND are never free, and no pattern here matches them.
_FREE = re.compile(
    r"""(a|l)?gpl(-?v?[123](\.[01])?)?(-or-later|-only)?\+?
      | gfdl(-niv)?(-1\.[0-9])?(-no-invariants)?(-or-later|-only)?\+?
      | cc-?0(-1\.0)?(-universal)? | cc-by(-sa)?-[34](\.0)?(-[a-z]{2})?\+? | public[- ]domain
      | expat | mit | isc | zlib | x11 | bsd([-_ ].*)? | [0-9]-clause-bsd | apache-?2(\.0)?
      | mpl-?[12](\.[01])?\+? | artistic(-?[12](\.0)?)? | ofl-?1\.[01] | sil-?1\.[01]
      | unlicense | wtfpl(-2)? | fal(-?1\.3)? | lal(-?1\.3)? | free-?art(-.*)?""",
    re.VERBOSE,
)
# The GPL's own text contains "noncommercial distribution".
_NOT_FREE = re.compile(
    r"\bnon-?commercial\b(?! distribution)|no-?deriv|no derivative|\bby(-sa)?-n[cd]\b|\bnon-free\b"
    r"|not for commercial|personal use only",
    re.IGNORECASE,
)
# Phrases that name a licence in free text, and its short name.
_PHRASES = (
    (r"creative commons (cc)?0|\bcc0\b|public domain dedication", "CC0-1.0"),
    (r"attribution[- ]share ?-?alike[^.]{0,40}4\.0|cc[- ]by[- ]sa[- ]4", "CC-BY-SA-4.0"),
    (r"attribution[- ]share ?-?alike[^.]{0,40}3\.0|cc[- ]by[- ]sa[- ]3", "CC-BY-SA-3.0"),
    (r"attribution[^.]{0,30}4\.0|cc[- ]by[- ]4", "CC-BY-4.0"),
    (r"attribution (unported )?3\.0|cc[- ]by[- ]3", "CC-BY-3.0"),
    (r"gnu lesser general public|gnu library general public|\blgpl", "LGPL"),
    (r"gnu free documentation licen[cs]e|\bgfdl", "GFDL"),
    (r"\bgpl-3\b|\bgplv3\b|(?<!lesser )general public licen[cs]e[^.]{0,60}version 3", "GPL-3"),
    (r"\bgpl-2\b|\bgplv2\b|(?<!lesser )general public licen[cs]e[^.]{0,60}version 2", "GPL-2"),
    (r"\bzlib\b", "zlib"),
    (r"\bbsd\b|redistribution and use in source and binary forms", "BSD"),
    (r"\bmit licen[cs]e|permission is hereby granted, free of charge", "MIT"),
    (r"in the public domain|\bpublic[- ]domain\b", "public-domain"),
    (r"artistic licen[cs]e", "Artistic"),
)
_ANY_GPL = r"general public licen[cs]e|\bgpl\b"


@dataclass(frozen=True)
class Copyright:
    """The copyright file of a package: licences by patterns of files, or one from free text."""

    stanzas: tuple[tuple[tuple[str, ...], str], ...]
    of_text: str

    @classmethod
    def parse(cls, text: str | None) -> Copyright:
        """Parse DEP-5 or free text; None stands for a package without a copyright file."""
        if text is None:
            return cls((), UNKNOWN)
        stanzas = []
        if re.search(r"^format(-specification)?:", text, re.MULTILINE | re.IGNORECASE):
            for fields in paragraphs(text):
                licence = fields.get("license", fields.get("licence", ""))
                patterns = tuple(re.split(r"[\s,]+", fields.get("files", "").strip()))
                if patterns != ("",) and licence.strip():
                    stanzas.append((patterns, _short_name(licence)))
        return cls(tuple(stanzas), _named_in(text) if not stanzas else UNKNOWN)

    def licence_of(self, origin: str) -> str:
        """Return the short name of the licence of the file installed as `origin`.

        The stanza whose pattern matches most of the path counts, and the later of two that match
        equally. Where none matches, all licences in the copyright file apply together.
        """
        best, fit = "", -1
        for patterns, licence in self.stanzas:
            score = max(_fit(pattern, origin) for pattern in patterns)
            if score >= max(fit, 0):
                best, fit = licence, score
        if best or not self.stanzas:
            return best or self.of_text
        ours = [name for patterns, name in self.stanzas if not _is_packaging(patterns)]
        return ALL_OF.join(dict.fromkeys(ours)) or UNKNOWN


def is_free(licence: str) -> bool:
    """Return whether a licence is known and free: a short name, or several joined.

    Of names joined by "or" or `|` one must be known and free; of names joined by "and", commas or
    `+`, all.
    """
    if _NOT_FREE.search(licence):
        return False
    if ALL_OF in licence:
        return all(is_free(part) for part in licence.split(ALL_OF))
    choices = re.split(r"\s+or\s+|\s*\|\s*", licence.strip(), flags=re.IGNORECASE)
    return any(_all_free(choice) for choice in choices)


def _all_free(names: str) -> bool:
    parts = re.split(r"\s+and\s+|\s*,\s*", names, flags=re.IGNORECASE)
    plain = (re.sub(r"\s+with\s.*exception.*", "", part.strip().lower()) for part in parts)
    return all(_FREE.fullmatch(name) is not None for name in plain)


def _short_name(field: str) -> str:
    """Return the first line of a License field, or the licence named in its text if it is empty."""
    first, _, text = field.partition("\n")
    return " ".join(first.split()) or _named_in(text)


def _named_in(text: str) -> str:
    """Return all licences that free text names, or `unknown`, or a restriction on use."""
    if found := _NOT_FREE.search(text):
        return f"non-free ({' '.join(found[0].split())})"
    plain = " ".join(text.lower().split())
    later = "+" if re.search(r"any later version|or later", plain) else ""
    names = [
        name + (later if name.startswith("GPL") else "")
        for phrase, name in _PHRASES
        if re.search(phrase, plain)
    ]
    if not any(name.startswith(("GPL", "LGPL")) for name in names) and re.search(_ANY_GPL, plain):
        names.append("GPL")
    return ALL_OF.join(names) or UNKNOWN


def _is_packaging(patterns: Sequence[str]) -> bool:
    return all(pattern.startswith("debian/") for pattern in patterns)


def _fit(pattern: str, origin: str) -> int:
    """Return the characters of a path that a pattern names; 0 for `*`, -1 if it does not match."""
    pattern = pattern.removeprefix("./")
    if not pattern or pattern.startswith("debian/"):
        return -1
    if pattern == "*":
        return 0
    # An archive in the source may be a folder once it is installed.
    pattern = re.sub(r"\.h2drumkit$", "/*", pattern)
    if "/" not in pattern and pattern.startswith("*."):
        return 1 if fnmatchcase(PurePosixPath(origin).name, pattern) else -1
    parts = origin.split("/")
    tails = ["/".join(parts[start:]) for start in range(len(parts))]
    best = -1
    # Up to two leading folders of the source may be missing.
    names = pattern.split("/")
    for dropped in range(min(3, len(names))):
        rest = "/".join(names[dropped:])
        if not rest.startswith("*") and any(_matches(tail, rest) for tail in tails):
            best = max(best, len(rest))
    return best


def _matches(tail: str, pattern: str) -> bool:
    # A zip archive is a file in the source and a folder in the paths here.
    return fnmatchcase(tail, pattern) or fnmatchcase(tail, f"{pattern}/*")
