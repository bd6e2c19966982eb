"""The results of `gpu_budget.py` as few files of limited size, complete at every moment.

Some machines hand back only a few files. `update` keeps a folder like this:

    results.tar                   all small files: phases, logs, tables, checkpoint indexes
    run/stage2/*.safetensors      the tensors of checkpoints, as many as the limits allow

    python profiling/parcel.py PARCEL OUT     puts a parcel that came back in place again
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from melcap.cli.exits import exit_on_errors
from melcap.errors import InputError
from melcap.io.files import replacing
from melcap.training.checkpoint import INDEX, Checkpoint

FILES = 8
FILE_BYTES = 16 << 20
ALL_BYTES = 64 << 20
SMALL_BYTES = 1 << 20
"""Files below this size travel in results.tar, except temporary ones."""
RESULTS = "results.tar"
_ROOM_FOR_RESULTS = 4 << 20
_LEFT_OUT = ("audio", "tensorboard")
"""Folders of a training run that do not travel: they are large, or can be made again."""
PARTS = ("weights", "averages", "discriminators", "optimisers", "discriminator_optimisers")
"""Parts of a checkpoint, those first that are hardest to learn again."""


def update(out: Path, parcel: Path) -> list[str]:
    """Bring the parcel up to date with `out`, and return the files of checkpoints that do not fit.

    A checkpoint that is being replaced while it is read is left for the next call.
    """
    parcel.mkdir(parents=True, exist_ok=True)
    wanted: list[Path] = []
    left, size = [], 0
    for file in _tensors(out):
        try:
            bytes_ = (out / file).stat().st_size
            fits = len(wanted) < FILES - 1 and size + bytes_ <= ALL_BYTES - _ROOM_FOR_RESULTS
            if bytes_ > FILE_BYTES or not fits:
                left.append(str(file))
                continue
            target = parcel / file
            if not target.exists():  # names carry the hash of the contents
                target.parent.mkdir(parents=True, exist_ok=True)
                with replacing(target) as temporary:
                    shutil.copyfile(out / file, temporary)
        except FileNotFoundError:
            return left
        wanted.append(file)
        size += bytes_
    with replacing(parcel / RESULTS) as temporary, tarfile.open(temporary, "w") as archive:
        for path in _small(out):
            try:
                archive.add(path, path.relative_to(out).as_posix())
            except FileNotFoundError:
                continue
    for old in parcel.rglob("*.safetensors"):
        if old.relative_to(parcel) not in wanted:
            old.unlink()
    return left


def unpack(parcel: Path, out: Path) -> None:
    """Put a parcel in place: `out` is then as it was when the parcel was last brought up to date.

    Raises:
        InputError: the folder holds no parcel.
    """
    try:
        with tarfile.open(parcel / RESULTS) as archive:
            archive.extractall(out, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{parcel}: holds no parcel of gpu_budget.py ({error})") from error
    for file in parcel.rglob("*.safetensors"):
        target = out / file.relative_to(parcel)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _tensors(out: Path) -> Iterator[Path]:
    """Yield the large files of all checkpoints, relative to `out`, the latest stage first."""
    found = []
    for index in out.glob(f"run/*/{INDEX}"):
        try:
            found.append((index.stat().st_mtime, Checkpoint(index.parent)))
        except (FileNotFoundError, InputError):
            continue
    for _, checkpoint in sorted(found, key=lambda pair: -pair[0]):
        for part in PARTS:
            for file in checkpoint.index["files"].get(part, []):
                path = checkpoint.path / file["name"]
                if path.exists() and path.stat().st_size >= SMALL_BYTES:
                    yield path.relative_to(out)


def _small(out: Path) -> Iterator[Path]:
    for path in sorted(out.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(out).parts)
        if hidden or any(part in _LEFT_OUT for part in path.relative_to(out).parts):
            continue
        if path.is_file() and (path.name == INDEX or path.stat().st_size < SMALL_BYTES):
            yield path


def main(
    parcel: Annotated[Path, typer.Argument(help="The folder that came back.")],
    out: Annotated[Path, typer.Argument(help="The folder to unpack it to.")],
) -> None:
    """Unpack a parcel."""
    with exit_on_errors():
        unpack(parcel, out)
        print(f"unpacked to {out}")


if __name__ == "__main__":
    typer.run(main)
