"""Pack what training needs on a machine without a network, in loads of limited size.

    python profiling/gpu_pack.py --data A.tar --data B.tar --out .gpu

Each load is a folder, OUT/0, OUT/1, ..., which travels together with the repository:

    0/site/          soundfile, soxr and flash-kmeans, unpacked for the other machine's Python
    0/commit         the commit that is measured: the repository travels without its history
    0/audio-0.tar    clips drawn at random from all shards, as many as fit
    1/audio-1.tar    more of them
    1/run/           checkpoints to go on from (--run)

Opus shards are a sixteenth of the size of decoded audio or less, so the decoder travels and not the
samples. `gpu_budget.py --carried OUT` finds all of it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from machine import commit
from paths import ROOT

from melcap.cli.exits import exit_on_errors
from melcap.errors import InputError
from melcap.training.checkpoint import INDEX

WHEELS = ("soundfile", "soxr", "cffi", "pycparser", "flash-kmeans")
PLATFORMS = tuple(
    f"manylinux{version}_x86_64" for version in ("_2_28", "_2_27", "_2_17", "2014", "_2_5", "1")
)
MARGIN = 1 << 20
"""Bytes of a load that stay free."""
_TAR_BLOCK = 512


def wheels(site: Path, python: str) -> None:
    """Unpack the wheels of `WHEELS` for that Python on Linux (x86-64) into a folder.

    Raises:
        InputError: pip finds none.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            folder,
        ]
        command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
        command += [f"--platform={name}" for name in PLATFORMS]
        done = subprocess.run([*command, *WHEELS], capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"no wheels for Python {python}: {done.stderr.strip()[-300:]}")
        for wheel in sorted(Path(folder).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)


def tracked_bytes() -> int:
    """Return the size of the files that travel in every call: tracked, or new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    files = [ROOT / name.decode() for name in listed.split(b"\0") if name]
    return sum(path.stat().st_size for path in files if path.is_file())


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def members(shards: list[Path]) -> Iterator[tuple[Path, tarfile.TarInfo]]:
    """Yield the clips of all shards in an order that is random and always the same.

    Raises:
        InputError: a file is not a tar.
    """
    found = []
    for shard in shards:
        try:
            with tarfile.open(shard) as archive:
                found += [(shard, member) for member in archive if member.isfile()]
        except (OSError, tarfile.TarError) as error:
            raise InputError(f"{shard}: not a tar shard ({error})") from error
    return iter(sorted(found, key=lambda pair: hashlib.sha256(pair[1].name.encode()).digest()))


def fill(target: Path, clips: Iterator[tuple[Path, tarfile.TarInfo]], room: int) -> int:
    """Write clips to a tar while they fit, and return the bytes of audio in it."""
    written = 0
    size = 2 * _TAR_BLOCK
    opened: dict[Path, tarfile.TarFile] = {}
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as out:
        for shard, member in clips:
            size += _TAR_BLOCK - (-member.size // _TAR_BLOCK) * _TAR_BLOCK
            if size + tarfile.RECORDSIZE > room:
                break
            if shard not in opened:
                opened[shard] = tarfile.open(shard)  # noqa: SIM115  closed below
            out.addfile(member, opened[shard].extractfile(member))
            written += member.size
    for archive in opened.values():
        archive.close()
    return written


def main(
    data: Annotated[list[Path], typer.Option(help="A tar shard of clips; repeatable.")],
    out: Annotated[Path, typer.Option(help="The folder of the loads; it is emptied.")] = Path(
        ".gpu"
    ),
    loads: Annotated[int, typer.Option(help="The number of loads.", min=1)] = 2,
    limit_mib: Annotated[
        float, typer.Option(help="Size of a load with the repository, in MiB.")
    ] = 64.0,
    run: Annotated[
        Path | None,
        typer.Option(help="The folder of checkpoints to go on from, such as runs/gpu/run."),
    ] = None,
    python: Annotated[str, typer.Option(help="The Python version of the other machine.")] = "3.12",
) -> None:
    """Pack the loads: the first carries the decoder of audio, the last the checkpoints."""
    with exit_on_errors():
        shutil.rmtree(out, ignore_errors=True)
        room = int(limit_mib * 2**20) - tracked_bytes() - MARGIN
        clips = members(sorted(data))
        for index in range(loads):
            load = out / str(index)
            load.mkdir(parents=True)
            if index == 0:
                (load / "commit").write_text(commit() + "\n")
                wheels(load / "site", python)
            if index == loads - 1 and run is not None:
                for found in run.glob(f"*/{INDEX}"):
                    shutil.copytree(found.parent, load / "run" / found.parent.name)
            left = room - folder_bytes(load)
            if left <= 0:
                raise InputError(f"load {index} is full before any audio: {-left} bytes too many")
            audio = fill(load / f"audio-{index}.tar", clips, left)
            total = (tracked_bytes() + folder_bytes(load)) / 2**20
            print(f"{load}: {audio / 1e6:.1f} MB of audio, {total:.1f} MiB with the repository")


if __name__ == "__main__":
    typer.run(main)
