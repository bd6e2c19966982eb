"""Files that appear whole, or not at all, and files that are no files."""

from __future__ import annotations

import errno
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


def require_regular(path: str | os.PathLike[str]) -> None:
    """Refuse what exists under this name and is not a regular file.

    To open a pipe is to wait for its other end, and a device may never end.

    Raises:
        OSError: it names the path.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        reason = "it is a folder, a pipe or a device, not a regular file"
        raise OSError(errno.EINVAL, reason, os.fspath(path))
