"""Atomic writes, and the refusal of pipes, devices and folders in the place of files."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
    temporary = target.with_name(f".melcap-{secrets.token_hex(6)}{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        with suppress(OSError):  # gone already when all went well
            temporary.unlink()


def require_regular(path: str | os.PathLike[str]) -> None:
    """Refuse a path that exists and is not a regular file.

    Opening a pipe waits for its other end, and a device may never end.

    Raises:
        OSError: It names the path.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        reason = "it is a folder, a pipe or a device, not a regular file"
        raise OSError(errno.EINVAL, reason, os.fspath(path))
