"""Lines of a manifest that is text, each of bounded length."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from melcap.bulk.files.streams import Stream
from melcap.bulk.manifests.rows import MAX_LINE, Problem


class Lines:
    """The lines of a file as text; bytes that are not UTF-8 become lone surrogates.

    Only the beginning of a line that is too long is given. `was_cut` then returns True, once.
    """

    def __init__(self, file: Stream) -> None:
        self._file = file
        self._cut = False

    def was_cut(self) -> bool:
        """Return whether a line was too long since the last call."""
        cut, self._cut = self._cut, False
        return cut

    def __iter__(self) -> Iterator[str]:
        before = b""
        while line := self._file.readline(MAX_LINE + 1):
            if not before:
                if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise ValueError("it is UTF-16; save it as UTF-8")
                line = line.removeprefix(codecs.BOM_UTF8)
            before = line
            if len(line) > MAX_LINE:
                self._cut = True
                while len(rest := self._file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                    pass
                line = line[:80] + b"\n"
            yield line.decode("utf-8", "surrogateescape")


def too_long() -> Problem:
    """Return the fault of a row whose line was cut."""
    return Problem(f"it is longer than {MAX_LINE} bytes")
