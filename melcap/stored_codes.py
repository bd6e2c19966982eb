"""Codes as bytes and files: a `.melcap` file for one clip, a safetensors file for any.

`melcap.Codes` has these functions as its methods, and checks what they read.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as packed
from torch import Tensor

from melcap.errors import ContainerError, InputError
from melcap.io import container

_KIND, _VERSION = "melcap codes", "1"


class StoredCodes(NamedTuple):
    """The fields of `melcap.Codes`, as a file holds them.

    Attributes:
        tokens: integers [..., rows, columns].
        columns: columns of each clip.
        lengths: samples of each clip, at `sample_rate`.
        sample_rate: of the audio, in Hz.
        tokenizer_id: the tokenizer whose tokens these are.
        model: name and hash of the weights that made the tokens.
    """

    tokens: Tensor
    columns: tuple[int, ...]
    lengths: tuple[int, ...]
    sample_rate: int
    tokenizer_id: str
    model: str

    @property
    def axes(self) -> list[int]:
        """Return the sizes of the axes before rows and columns."""
        return list(self.tokens.shape[:-2])


def to_bytes(codes: StoredCodes, compact: bool) -> bytes:
    """Return a `.melcap` file where one can hold the codes, and else a safetensors file.

    Raises:
        InputError: where `compact` is asked for and the codes need a safetensors file.
        ContainerError: where `compact` is asked for and the row tables are not at hand.
    """
    reason = _reason_against_container(codes)
    if reason and compact:
        raise InputError(f"only a .melcap file is compact; it holds one clip, and {reason}")
    return _safetensors(codes) if reason else _container(codes, compact)


def from_bytes(data: bytes) -> StoredCodes:
    """Return the codes in the bytes of either kind of file.

    Raises:
        ContainerError: for other bytes, or damaged ones.
    """
    return _from_container(data) if data.startswith(container.MAGIC) else _from_safetensors(data)


def save(codes: StoredCodes, path: str | os.PathLike[str], compact: bool) -> None:
    """Write codes to a file in the format of its suffix; see `Codes.save`.

    Raises:
        InputError: for another suffix, or codes that a `.melcap` file cannot hold.
        ContainerError: where the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".melcap":
        if reason := _reason_against_container(codes):
            raise InputError(
                f"{os.fspath(path)}: a .melcap file holds one clip, and {reason}: save these as "
                ".safetensors, or clip by clip (codes[0].save(...))"
            )
        data = _container(codes, compact)
    elif compact:
        raise InputError(f"{os.fspath(path)}: only a .melcap file is compact")
    elif suffix == ".safetensors":
        data = _safetensors(codes)
    else:
        raise InputError(f"{os.fspath(path)}: codes are saved as .melcap or .safetensors")
    container.write_bytes(path, data)


def _reason_against_container(codes: StoredCodes) -> str:
    """Return the reason why a `.melcap` file cannot hold these codes, or nothing."""
    if len(codes.axes) > 1:
        return f"these codes have the axes {codes.axes}"
    if len(set(codes.lengths)) > 1 or len(set(codes.columns)) > 1:
        return "these clips differ in length"
    try:
        _header(codes)
    except ContainerError as error:
        return str(error)
    return ""


def _header(codes: StoredCodes) -> container.Header:
    low, high = (int(bound) for bound in torch.aminmax(codes.tokens))
    if low < 0:
        raise ContainerError(f"token {low} is below 0")
    return container.Header(
        model=codes.model,
        tokenizer_id=codes.tokenizer_id,
        sample_rate=codes.sample_rate,
        channels=codes.axes[0] if codes.axes else 1,
        samples=codes.lengths[0],
        rows=codes.tokens.shape[-2],
        columns=codes.columns[0],
        bits=max(1, high.bit_length()),
        channel_axis=bool(codes.axes),
    )


def _container(codes: StoredCodes, compact: bool) -> bytes:
    header = replace(_header(codes), compact=compact)
    grid = codes.tokens.cpu().numpy().reshape(header.channels, header.rows, -1)
    return container.pack(header, grid[..., : header.columns])


def _from_container(data: bytes) -> StoredCodes:
    header, grid = container.unpack(data)
    tokens = torch.from_numpy(grid)
    return StoredCodes(
        tokens if header.channel_axis else tokens[0],
        (header.columns,) * header.channels,
        (header.samples,) * header.channels,
        header.sample_rate,
        header.tokenizer_id,
        header.model,
    )


def _safetensors(codes: StoredCodes) -> bytes:
    tensors = {
        "tokens": codes.tokens.cpu().contiguous(),
        "columns": torch.tensor(codes.columns, dtype=torch.int64),
        "lengths": torch.tensor(codes.lengths, dtype=torch.int64),
    }
    described = {
        "kind": _KIND,
        "version": _VERSION,
        "sample_rate": str(codes.sample_rate),
        "tokenizer_id": codes.tokenizer_id,
        "model": codes.model,
        "crc32": _checksum(tensors),
    }
    return packed(tensors, described)


def _from_safetensors(data: bytes) -> StoredCodes:
    try:
        tensors = tensors_of(data)
        # The library has checked the header, but returns its metadata for files only.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        described = header["__metadata__"]
        if (described["kind"], described["version"]) != (_KIND, _VERSION):
            raise ContainerError(f"it holds {described['kind']}, version {described['version']}")
        if described["crc32"] != _checksum(tensors):
            raise ContainerError("the tokens are damaged (wrong checksum); get a fresh copy")
        return StoredCodes(
            tensors["tokens"],
            tuple(tensors["columns"].tolist()),
            tuple(tensors["lengths"].tolist()),
            int(described["sample_rate"]),
            described["tokenizer_id"],
            described["model"],
        )
    except (SafetensorError, KeyError, TypeError) as error:
        raise ContainerError(
            f"it is neither a .melcap file nor codes in a safetensors file ({error})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ContainerError(f"its codes do not fit together: {error}") from error


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of the tensors in the order of their names, as hexadecimal digits."""
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].numpy().tobytes(), checksum)
    return f"{checksum:08x}"
