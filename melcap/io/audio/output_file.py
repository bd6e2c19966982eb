"""The output of a writer: a file that appears only when it is complete, or a file object."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO

from melcap.io.audio.errors import audio_error
from melcap.io.files import irregular, temporary_for

_AT_ONCE = 1 << 20


class AudioOutput:
    """A temporary file whose bytes go to a path, or to a file object of the caller, at the end.

    Attributes:
        path: The file, or None for a file object.
        name: The name of the output in errors.
    """

    def __init__(self, target: str | os.PathLike[str] | IO[bytes]) -> None:
        self.path: Path | None = None
        self._object: IO[bytes] | None = None
        if isinstance(target, (str, os.PathLike)):
            self.path = Path(target)
            self.name = str(self.path)
        else:
            self._object = target
            named = getattr(target, "name", None)
            self.name = named if isinstance(named, str) else "<stream>"
        self._file: IO[bytes] | None = None
        self._temporary: Path | None = None

    def require_place(self) -> None:
        """Refuse a path where no file can be written.

        Raises:
            AudioFileError: For what is not a regular file, and for a path in a missing folder.
        """
        if self.path is None:
            return
        kind = irregular(self.path)
        if kind:  # a pipe or device must not be replaced
            raise audio_error(self.name, f"cannot be written: it is {kind}")
        if not self.path.parent.is_dir():
            raise audio_error(self.name, "cannot be written: its folder does not exist")

    def open(self) -> int:
        """Open the temporary file and return its file descriptor.

        It is in the folder of the path, or unnamed for a file object.

        Raises:
            OSError: Where that is not possible.
        """
        if self.path is None:
            self._file = tempfile.TemporaryFile(prefix="melcap-")  # noqa: SIM115 - discard closes it
        else:
            self._temporary = temporary_for(self.path, ".part")
            self._file = self._temporary.open("xb")
        return self._file.fileno()

    def commit(self) -> None:
        """Rename the temporary file to the path, or copy its bytes to the file object.

        Raises:
            OSError: Where that is not possible.
        """
        assert self._file is not None
        if self.path is not None and self._temporary is not None:
            self._file.close()
            os.replace(self._temporary, self.path)
        elif self._object is not None:
            self._file.seek(0)
            while piece := self._file.read(_AT_ONCE):
                _write_all(self._object, piece)
            self._object.flush()

    def discard(self) -> None:
        """Close the temporary file and delete it where it still has its temporary name."""
        if self._file is not None:
            self._file.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)


def _write_all(target: IO[bytes], data: bytes) -> None:
    while data:
        written = target.write(data)
        if not written:
            raise OSError("the file object takes no more bytes")
        data = data[written:]
