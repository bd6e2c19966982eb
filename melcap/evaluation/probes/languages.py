"""Groups of languages."""

from __future__ import annotations

import re

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
"""The language codes of each group: ISO 639-1, or 639-3 for a language without such a code."""


def group_of(language: str) -> str:
    """Return the group of a language code such as en, en_GB or pt-BR.

    A label that is no code of `GROUPS` is a group of its own.

    Example:
        >>> group_of("pt-BR"), group_of("Klingon")
        ('Romance', 'Klingon')
    """
    code = code_of(language)
    return next((group for group, codes in GROUPS.items() if code in codes), language)


def code_of(language: str) -> str:
    """Return a language code in lower case, without country and script.

    Example:
        >>> code_of("en_GB")
        'en'
    """
    return re.split(r"[-_@]", language)[0].lower()
