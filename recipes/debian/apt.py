"""Packages of the Debian archive, through apt and as any user: looked up, downloaded, verified."""

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
    """A package that cannot be had, or training data that cannot be made of it."""


@dataclass(frozen=True)
class Package:
    """What apt knows about a package: `size` and `unpacked` are bytes, `sha256` is the file's."""

    name: str
    version: str
    source: str
    section: str
    size: int
    unpacked: int
    sha256: str

    @property
    def folder_name(self) -> str:
        """A name for what was made of this very file."""
        return f"{self.name}-{self.sha256[:12]}"


class Apt:
    """apt with its sources as the system has them, or with those of one suite (`of_suite`)."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        self._options = [*options]
        if os.geteuid() == 0:  # else apt warns that its own user cannot write to our folders
            self._options += ["-o", "APT::Sandbox::User=root"]

    @classmethod
    def of_suite(cls, folder: Path, suite: str, mirror: str = MIRROR) -> Apt:
        """apt with the suite's `main` alone; its lists live in `folder`, and stay as first fetched.

        Raises FetchError where the suite cannot be had.
        """
        folder = folder.absolute()  # apt takes others to begin at the root
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
        """The candidate of each package, in the order of the names.

        Raises InputError for names that apt does not know, and for packages outside `main`.
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
            raise InputError(f"{listed}: not in main, so not free; leave it out")
        return found

    def download(
        self, package: Package, folder: Path, progress: Callable[[int], None] = lambda size: None
    ) -> Path:
        """The package's file in `folder`, downloaded unless it is there; its hash is verified.

        What came before an interruption is used again. `progress` is told the bytes so far, again
        and again. Raises FetchError where it cannot be had or is not what the archive lists.
        """
        target = folder / f"{package.folder_name}.deb"
        if target.exists() and _sha256(target) == package.sha256:
            return target
        partial = folder / "partial" / package.folder_name
        partial.mkdir(parents=True, exist_ok=True)
        wanted = f"{package.name}={package.version}"
        self._run(
            "apt-get", "-qq", "download", wanted, cwd=partial,
            idle=lambda: progress(sum(file.stat().st_size for file in partial.glob("*"))),
        )  # fmt: skip
        files = list(partial.glob("*.deb"))
        if len(files) != 1 or _sha256(files[0]) != package.sha256:
            for file in files:
                file.unlink()
            raise FetchError(
                f"{wanted}: the downloaded file is not the one that the archive lists (its sha256 "
                "differs), so it was thrown away; run the same command again"
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
                command, cwd=cwd, env=environment, text=True, errors="replace",
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise FetchError(
                f"{program} is not on this system: packages can be fetched on Debian and Ubuntu "
                "alone; elsewhere bring your own audio with --folder"
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
    """What apt said on stderr, as one sentence about a package or `update`."""
    said = [line[3:].strip() for line in err.splitlines() if line.startswith("E: ")]
    reason = said[0] if said else err.strip()[-300:] or "it said nothing"
    lower = err.lower()
    if any(words in lower for words in _OFFLINE):
        return f"{what}: the archive cannot be reached, is there a network? apt says: {reason}"
    if "no space left" in lower or "enough free space" in lower:
        return f"{what}: the disk is full; free some space and run the same command again"
    # Digits alone would not do: apt also prints sums and sizes of files.
    if "404  not found" in lower or "was not found" in lower:
        return (
            f"{what}: no longer in the archive; run `apt-get update` (as root), or with --suite "
            f"delete the cache's folder apt. apt says: {reason}"
        )
    if "hash sum mismatch" in lower or "unexpected size" in lower:
        return f"{what}: what came is not what the archive lists, so it was refused: {reason}"
    return f"{what}: apt failed: {reason}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
