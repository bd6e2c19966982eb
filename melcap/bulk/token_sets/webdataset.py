"""Token sets as WebDataset tars: KEY.json and KEY.tokens.npy for each clip."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from melcap.bulk.files.streams import READ_ERRORS, Stream, check_tar_end, unpacked
from melcap.bulk.token_sets.rows import TokenRow, record_of, row_of
from melcap.errors import ContainerError

_LONGEST_RECORD = 1 << 24
_LONGEST_HEADER = 1 << 10
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<u2', 'fortran_order': False, "
    rb"'shape': \((\d{1,12}),\), \} *\n",
    re.DOTALL,
)
"""The header that `np.save` writes before a row's tokens. NumPy would evaluate its text."""


def write(path: Path, rows: Iterable[TokenRow], number: int) -> None:
    """Write rows as a tar, whose keys begin with the number of the shard."""
    with tarfile.open(path, "w") as shard:
        for at, row in enumerate(rows):
            tokens = io.BytesIO()
            np.save(tokens, row.tokens)
            record = json.dumps(record_of(row)).encode()
            for suffix, data in (("json", record), ("tokens.npy", tokens.getvalue())):
                member = tarfile.TarInfo(f"{number:06d}{at:06d}.{suffix}")
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))


def read(path: Path) -> Iterator[TokenRow]:
    """Read the rows of a tar.

    Raises:
        ContainerError: if it holds no tokens, or damaged ones.
    """
    try:
        with unpacked(str(path)) as file, tarfile.open(fileobj=cast(Any, file), mode="r:") as shard:
            record: dict[str, Any] = {}
            for member in shard:
                name = f"{path}/{member.name}"
                if member.name.endswith(".json"):
                    if member.size > _LONGEST_RECORD:
                        raise ContainerError(f"{name} is longer than {_LONGEST_RECORD} bytes")
                    record = json.loads(_data(file, member))
                elif member.name.endswith(".tokens.npy"):
                    yield row_of(record, _tokens(_data(file, member), name), name)
            check_tar_end(file, shard.offset)
    except (*READ_ERRORS, RecursionError, tarfile.TarError) as error:
        raise ContainerError(f"{path} cannot be read as a tar of tokens: {error}") from error


def _data(file: Stream, member: tarfile.TarInfo) -> bytes:
    data = io.BytesIO()
    file.seek(member.offset_data)
    file.copy(member.size, data)
    return data.getvalue()


def _tokens(data: bytes, name: str) -> npt.NDArray[np.uint16]:
    """Return the array of an .npy file, which must be as long as its header says."""
    header = _NPY.match(data[:_LONGEST_HEADER])
    if not header or int(header[1]) * 2 != len(data) - header.end():
        raise ContainerError(f"{name} is not an array of uint16 of the length in its header")
    return np.frombuffer(data, "<u2", offset=header.end()).astype(np.uint16)
