"""Atomic writes, the kinds of files that are not regular, and a limit on copies of streams."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_COPIED = 1 << 32
"""The most bytes that are copied from stdin or from a file object."""
TEMPORARY = re.compile(r"\.melcap-[0-9a-f]{12}\.[a-z]+")
"""The names that `temporary_for` gives to files until they are complete."""
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def temporary_for(target: Path, suffix: str) -> Path:
    """Return a name beside `target` for its content until that is complete."""
    return target.with_name(f".melcap-{secrets.token_hex(6)}{suffix}")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary name beside `target`, and rename it at the end.

    The file is renamed if the block ends without an exception. In any case nothing is left under
    the temporary name.

    Args:
        target: The file. The temporary name has the same suffix.

    Yields:
        The temporary name, which the block writes to.

    Raises:
        OSError: Where the file cannot be renamed.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from melcap.io.files import replacing
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / "note.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     [path.name for path in Path(folder).iterdir()]
        ['note.txt']
    """
    temporary = temporary_for(target, target.suffix)
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        with suppress(OSError):  # gone already when all went well
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        OSError: Where it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def irregular_mode(mode: int) -> str:
    """Return what a file of this mode is, such as "a pipe", or "" for a regular file."""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "a special file")


def irregular(path: str | os.PathLike[str]) -> str:
    """Return what a path is, such as "a pipe", or "" for a regular file and for a missing one."""
    try:
        return irregular_mode(os.stat(path).st_mode)
    except (OSError, ValueError):
        return ""  # opening it gives the reason


def require_regular(path: str | os.PathLike[str]) -> None:
    """Refuse a path that exists and is not a regular file.

    Opening a pipe waits for its other end, and a device may never end.

    Raises:
        OSError: It names the path.
    """
    kind = irregular(path)
    if kind:
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", os.fspath(path))
