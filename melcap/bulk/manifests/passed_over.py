"""The kinds of files that a search passes over, and their counts in words."""

from __future__ import annotations

import os
from collections.abc import Mapping

from melcap.bulk.files.names import text


def kind_of(name: str) -> str:
    """Return the kind under which a file that is passed over is counted.

    Example:
        >>> kind_of("a/notes.TXT"), kind_of("README"), kind_of(".cache")
        ('.txt', 'without a suffix', 'hidden files')
    """
    base = os.path.basename(name)
    if base.startswith("."):
        return "hidden files"
    suffix = os.path.splitext(base)[1].lower()
    return text(suffix) if 1 < len(suffix) <= 16 else "without a suffix"


def in_words(passed: Mapping[str, int]) -> str:
    """Return counts by kind in words, the most frequent first.

    Example:
        >>> in_words({".json": 3, ".txt": 12})
        '12 .txt, 3 .json'
    """
    most = sorted(passed.items(), key=lambda each: -each[1])
    return ", ".join(f"{count} {kind}" for kind, count in most)
