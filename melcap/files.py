"""Files that appear whole, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary name beside `target`, with its suffix; renamed to it if the block ends well.

    Whatever happens, nothing is left under the temporary name. OSErrors are the caller's.
    """
    temporary = target.with_name(f".melcap-{secrets.token_hex(6)}{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        with suppress(OSError):  # gone already when all went well
            temporary.unlink()
