"""Shards of token sets: Parquet files, WebDataset tars, or a `.melcap` file for each clip."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from melcap.bulk.token_sets import parquet, webdataset
from melcap.bulk.token_sets.rows import TokenRow
from melcap.errors import InputError, MelcapError
from melcap.io import container
from melcap.io.files import irregular, replacing

FORMATS = ("parquet", "webdataset", "melcap")


def write_shard(folder: Path, number: int, format: str, rows: Iterable[TokenRow]) -> list[Path]:
    """Write a shard, and give its files their names only when they are complete.

    The same rows give the same bytes.

    Args:
        folder: the folder of the token set.
        number: the number of the shard.
        format: one of `FORMATS`.
        rows: the rows of the shard; without any, no file is written.

    Returns:
        The files of the shard.

    Raises:
        MelcapError: if the shard cannot be written.
    """
    try:
        if format == "melcap":
            return [_write_melcap(folder, row) for row in rows]
        suffix = {"parquet": ".parquet", "webdataset": ".tar"}[format]
        target = folder / f"tokens-{number:06d}{suffix}"
        iterator = iter(rows)
        first = next(iterator, None)
        if first is None:
            # The shard may exist, if it was altered and none of its clips can be read now.
            target.unlink(missing_ok=True)
            return []
        with replacing(target) as temporary:
            if format == "parquet":
                parquet.write(temporary, chain([first], iterator))
            else:
                webdataset.write(temporary, chain([first], iterator), number)
            _flush(temporary)
        return [target]
    except OSError as error:
        reason = error.strerror or error
        raise MelcapError(
            f"{folder}: shard {number} cannot be written: {reason}. Nothing that was done is lost; "
            "fix the problem and start again"
        ) from error


def token_files(path: Path) -> list[Path]:
    """Return the files of a token set in order: those of a folder, or the file that is named.

    Raises:
        InputError: if there are none.
    """
    if path.is_dir():
        files = sorted(
            each
            for each in path.rglob("*")
            if each.suffix in _READERS and each.is_file() and not each.name.startswith(".")
        )
        if not files:
            raise InputError(f"{path} holds no tokens ({', '.join(_READERS)})")
        return files
    if not path.exists():
        raise InputError(f"{path} does not exist")
    kind = irregular(path)
    if kind:
        raise InputError(f"{path} is {kind}, not a regular file")
    if path.suffix not in _READERS:
        raise InputError(f"{path} is none of {', '.join(_READERS)}")
    return [path]


def read_rows(file: Path, folder: Path) -> Iterator[TokenRow]:
    """Yield the rows of one of the `token_files` of a token set.

    Args:
        file: the file.
        folder: the folder of the token set. The names of `.melcap` files below it are their ids.

    Raises:
        ContainerError: if the file holds no tokens, or damaged ones.
    """
    yield from _READERS[file.suffix](file, folder)


def _write_melcap(folder: Path, row: TokenRow) -> Path:
    target = folder / f"{row.id}.melcap"
    target.parent.mkdir(parents=True, exist_ok=True)
    container.write(target, row.header, row.grid)
    return target


def _read_melcap(path: Path, folder: Path) -> Iterator[TokenRow]:
    header, grid = container.read(path)
    tokens = grid.transpose(0, 2, 1).reshape(-1).astype(np.uint16)
    id = path.relative_to(folder).with_suffix("").as_posix()
    yield TokenRow(id, str(path), header, tokens)


def _flush(path: Path) -> None:
    """Write a file to the disk itself, before it gets its name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


_READERS: dict[str, Callable[[Path, Path], Iterator[TokenRow]]] = {
    ".parquet": lambda path, _: parquet.read(path),
    ".tar": lambda path, _: webdataset.read(path),
    ".melcap": _read_melcap,
}
