"""Packages of the Debian archive, looked up, downloaded and verified by apt, as any user."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from melcap.errors import InputError, MelcapError
from recipes.debian.deb822 import paragraphs

MIRROR = "http://deb.debian.org/debian"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Ubuntu's universe is as free as Debian's main; main has no prefix.
_FREE_COMPONENTS = ("", "universe")
_OFFLINE = ("could not connect", "could not resolve", "failure resolving", "unable to connect")


class FetchError(MelcapError):
    """A package that cannot be fetched, or a training set that cannot be made."""


@dataclass(frozen=True)
class Package:
    """A package as the archive lists it.

    Attributes:
        name: The name of the package.
        version: Its version.
        source: The name of its source package.
        section: Its section, such as games or universe/games.
        size: The bytes of its file.
        unpacked: The bytes that it takes unpacked.
        sha256: The SHA-256 of its file, hexadecimal.
    """

    name: str
    version: str
    source: str
    section: str
    size: int
    unpacked: int
    sha256: str

    @property
    def folder_name(self) -> str:
        """A name for what was made from this version of the package's file."""
        return f"{self.name}-{self.sha256[:12]}"


class Apt:
    """The program apt with the sources of the system, or with those of one suite (`of_suite`)."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        self._options = [*options]
        if os.geteuid() == 0:  # otherwise apt warns that its own user cannot write to our folders
            self._options += ["-o", "APT::Sandbox::User=root"]

    @classmethod
    def of_suite(cls, folder: Path, suite: str, mirror: str = MIRROR) -> Apt:
        """Return apt with only `main` of a suite; its lists stay in `folder` as first fetched.

        Raises:
            FetchError: Where the suite cannot be fetched.
        """
        folder = folder.absolute()  # apt takes relative paths from the root
        state, cache, status = folder / "state", folder / "cache", folder / "status"
        for made in (state / "lists" / "partial", cache / "archives" / "partial"):
            made.mkdir(parents=True, exist_ok=True)
        status.touch()
        signed = f" [signed-by={_KEYRING}]" if _KEYRING.exists() else ""
        wanted = f"deb{signed} {mirror} {suite} main\n"
        sources = folder / "sources.list"
        settings = {
            "Dir::State": state,
            "Dir::State::status": status,
            "Dir::Cache": cache,
            "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "/dev/null",
            "Acquire::Languages": "none",
        }
        apt = cls([part for name, value in settings.items() for part in ("-o", f"{name}={value}")])
        fetched = sources.exists() and sources.read_text() == wanted
        if not fetched:
            sources.write_text(wanted)
            try:
                apt._run("apt-get", "-qq", "-o", "APT::Update::Error-Mode=any", "update")
            except BaseException:
                sources.unlink()
                raise
        return apt

    def look_up(self, names: Sequence[str]) -> list[Package]:
        """Return the version of each package that apt would install, in the order of the names.

        Raises:
            InputError: For names that apt does not know, and for packages outside `main`.
        """
        shown = self._run("apt-cache", "show", "--no-all-versions", *names, may_fail=True)
        records = {record["package"]: record for record in paragraphs(shown) if "sha256" in record}
        if unknown := [name for name in names if name not in records]:
            raise InputError(
                f"apt knows no package {', '.join(unknown)}: check the names, run `apt-get update` "
                "(as root), or name a suite that has them, such as --suite bookworm"
            )
        found = [_package(records[name]) for name in names]
        sections = {package.name: package.section.rpartition("/")[0] for package in found}
        if others := [name for name in names if sections[name] not in _FREE_COMPONENTS]:
            listed = ", ".join(f"{name} ({sections[name]})" for name in others)
            raise InputError(f"{listed}: only packages in main are free; leave these out")
        return found

    def download(
        self, package: Package, folder: Path, progress: Callable[[int], None] = lambda size: None
    ) -> Path:
        """Download a package to `folder` unless it is there, verify its hash, and return its path.

        The bytes of an interrupted download are used again.

        Args:
            package: The package.
            folder: Where its file goes.
            progress: Called repeatedly with the bytes downloaded so far.

        Raises:
            FetchError: For a package that cannot be fetched, and for a file that is not the one
                that the archive lists.
        """
        target = folder / f"{package.folder_name}.deb"
        if target.exists() and _sha256(target) == package.sha256:
            return target
        partial = folder / "partial" / package.folder_name
        partial.mkdir(parents=True, exist_ok=True)
        wanted = f"{package.name}={package.version}"
        self._run(
            "apt-get",
            "-qq",
            "download",
            wanted,
            cwd=partial,
            idle=lambda: progress(sum(file.stat().st_size for file in partial.glob("*"))),
        )
        files = list(partial.glob("*.deb"))
        if len(files) != 1 or _sha256(files[0]) != package.sha256:
            for file in files:
                file.unlink()
            raise FetchError(
                f"{wanted}: the downloaded file is not the one that the archive lists (its sha256 "
                "differs), so it was deleted; run the same command again"
            )
        os.replace(files[0], target)
        partial.rmdir()
        return target

    def _run(
        self,
        program: str,
        *arguments: str,
        cwd: Path | None = None,
        may_fail: bool = False,
        idle: Callable[[], None] | None = None,
    ) -> str:
        command = [program, *self._options, *arguments]
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except FileNotFoundError as error:
            raise FetchError(
                f"{program} is not on this system: packages can only be fetched on Debian and "
                "Ubuntu; elsewhere use your own audio with --folder"
            ) from error
        with process:
            try:
                while idle is not None and process.poll() is None:
                    idle()
                    time.sleep(0.1)
                out, err = process.communicate()
            except BaseException:
                process.terminate()
                raise
        if process.returncode and not may_fail:
            raise FetchError(_sentence(arguments[-1], err))
        return out


def _package(record: dict[str, str]) -> Package:
    return Package(
        name=record["package"],
        version=record["version"],
        source=record.get("source", record["package"]).split()[0],
        section=record.get("section", ""),
        size=int(record["size"]),
        unpacked=1024 * int(record.get("installed-size", "0")),
        sha256=record["sha256"].lower(),
    )


def _sentence(what: str, err: str) -> str:
    """Return the errors that apt printed as one sentence about a package or `update`."""
    said = [line[3:].strip() for line in err.splitlines() if line.startswith("E: ")]
    reason = said[0] if said else err.strip()[-300:] or "no message"
    lower = err.lower()
    if any(words in lower for words in _OFFLINE):
        return f"{what}: the archive cannot be reached, is there a network? apt's message: {reason}"
    if "no space left" in lower or "enough free space" in lower:
        return f"{what}: the disk is full; free some space and run the same command again"
    # The digits 404 alone are not enough: apt also prints hashes and sizes of files.
    if "404  not found" in lower or "was not found" in lower:
        return (
            f"{what}: no longer in the archive; run `apt-get update` (as root), or with --suite "
            f"delete the cache's folder apt. apt's message: {reason}"
        )
    if "hash sum mismatch" in lower or "unexpected size" in lower:
        return f"{what}: the download is not what the archive lists, so it was refused: {reason}"
    return f"{what}: apt failed: {reason}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
