"""Debian's control format, which apt's records and copyright files share."""

from __future__ import annotations

import re
from collections.abc import Iterator


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Yield the fields of each paragraph, with names in lower case and values of all their lines.

    If a field occurs twice, the first counts. Lines that belong to no field are skipped, so any
    text can be given.
    """
    for block in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        fields: dict[str, str] = {}
        name = ""
        for line in block.split("\n"):
            if line[:1] in ("#", ""):
                continue
            if line[0] in " \t":
                if name:
                    fields[name] += "\n" + line.strip()
                continue
            head, colon, value = line.partition(":")
            name = head.lower() if colon and head.lower() not in fields else ""
            if name:
                fields[name] = value.strip()
        if fields:
            yield fields
