"""The audio files in a .deb, also those in zip archives inside it, and its copyright files."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO

from recipes.debian.apt import FetchError

RAW_SUFFIXES = {".g722": 16_000, ".sln16": 16_000}
"""Suffixes of headerless formats of one channel, with their rates in Hz."""
PACKAGED_SUFFIXES = (
    ".wav",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".mp3",
    ".aif",
    ".aiff",
    ".au",
    ".m4a",
    *RAW_SUFFIXES,
)
"""Suffixes of the audio in packages. These are fewer than melcap reads: another one would change
the set that the list of packages makes."""
_ZIP_SUFFIXES = (".zip", ".pk3", ".pk4", ".wz", ".love", ".s2z", ".jar", ".sb", ".sb2")
"""Suffixes of zip files, most of them data archives of games."""
_FILES, _COPYRIGHT = "files", "copyright"


def unpack(deb: Path, target: Path) -> Path:
    """Unpack a package's file to the folder `target`, unless it is there, and return the folder.

    The audio goes to TARGET/files under its path in the package, in which a zip archive is a
    folder. The text of the copyright files goes to TARGET/copyright.

    Raises:
        FetchError: For a damaged package, and where dpkg-deb is missing.
    """
    if target.exists():
        return target
    partial = target.with_name(f"partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / _FILES).mkdir(parents=True)
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise FetchError("dpkg-deb is not on this system: install the package dpkg") from error
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.isreg() else None
                    if content is not None:
                        _take(PurePosixPath(member.name), content, partial)
            process.stdout.read()  # the padding; otherwise dpkg-deb reports a broken pipe
        except tarfile.TarError:
            process.stdout.close()
        if said := process.stderr.read().decode(errors="replace").strip() or process.wait():
            shutil.rmtree(partial)
            raise FetchError(f"{deb} is damaged ({said}): delete it and run the same command again")
    return partial.rename(target)


def audio_files(folder: Path, suffixes: Collection[str] = PACKAGED_SUFFIXES) -> list[str]:
    """Return the audio files in `folder`, as sorted paths relative to it."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    return sorted(path.relative_to(folder).as_posix() for path in found if path.is_file())


def unpacked_files(folder: Path) -> Path:
    """Return where `unpack` puts the audio."""
    return folder / _FILES


def copyright_text(folder: Path) -> str | None:
    """Return the text of the copyright files that `unpack` found, or None."""
    path = folder / _COPYRIGHT
    return path.read_text(encoding="utf-8") if path.exists() else None


def _take(name: PurePosixPath, content: IO[bytes], folder: Path) -> None:
    suffix = name.suffix.lower()
    if name.match("usr/share/doc/*/copyright*"):
        data = content.read()
        text = (gzip.decompress(data) if suffix == ".gz" else data).decode("utf-8", "replace")
        with (folder / _COPYRIGHT).open("a", encoding="utf-8") as file:
            file.write(text.rstrip() + "\n\n")
    elif suffix in PACKAGED_SUFFIXES:
        _save(name, content, folder / _FILES)
    elif suffix in _ZIP_SUFFIXES:
        with TemporaryFile(dir=folder) as whole:  # a zip is read from its end
            shutil.copyfileobj(content, whole, 1 << 20)
            _take_zip(name, whole, folder / _FILES)


def _take_zip(name: PurePosixPath, file: IO[bytes], folder: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                inner = PurePosixPath(entry.filename)
                if inner.suffix.lower() in PACKAGED_SUFFIXES and not entry.is_dir():
                    with archive.open(entry) as content:
                        _save(name / inner, content, folder)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return  # another format under that suffix, or an archive with a password


def _save(name: PurePosixPath, content: IO[bytes], folder: Path) -> None:
    if name.is_absolute() or ".." in name.parts:
        return  # such a name leads out of the folder; no package of the archive has one
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        shutil.copyfileobj(content, out, 1 << 20)
