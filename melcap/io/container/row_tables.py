"""Row tables: the frequency of each codebook entry in each row of the grid, as whole numbers.

The tables of a tokenizer are a separate file beside the weights. Compact `.melcap` files are coded
with them (`melcap.io.container.range_coder`) and contain their checksum.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as packed

from melcap.errors import ContainerError, InputError
from melcap.io.container.header import BOUNDS, LEAST_BITS, check_tokenizer_id
from melcap.io.files import replacing, require_regular

TOTAL_BITS = 16 + LEAST_BITS
"""The frequencies of a row add up to two to this power. Each of them is less than 2**16, so that
every token takes more than `LEAST_BITS`."""
SWITCH = "MELCAP_ROW_TABLES"
"""The environment variable with a folder of row tables that are not part of the package."""
SUFFIX = ".row-tables.safetensors"
_SIZES = [2**bits for bits in range(3, 17)]


@dataclass(frozen=True, eq=False)
class RowTables:
    """The row tables of a tokenizer.

    Attributes:
        tokenizer_id: The tokenizer.
        frequencies: uint16 [rows, codebook size], each at least 1; each row adds up to 2**18.

    Raises:
        InputError: For frequencies of another dtype, shape or sum, and for zeros.
    """

    tokenizer_id: str
    frequencies: npt.NDArray[np.uint16]

    def __post_init__(self) -> None:
        check_tokenizer_id(self.tokenizer_id, InputError)
        found, (fewest, most) = self.frequencies, BOUNDS["rows"]
        if found.dtype != np.uint16 or found.ndim != 2:
            raise InputError(f"frequencies must be 2-D uint16, not {found.ndim}-D {found.dtype}")
        rows, size = found.shape
        if not fewest <= rows <= most or size not in _SIZES:
            raise InputError(
                f"frequencies must have {fewest} to {most} rows of a power of two from 8 to 65536 "
                f"entries, not {rows} rows of {size}"
            )
        if not found.all() or (found.sum(1, dtype=np.int64) != 1 << TOTAL_BITS).any():
            raise InputError(
                f"the frequencies of each row must be positive and add up to {1 << TOTAL_BITS}"
            )

    @cached_property
    def checksum(self) -> int:
        """The CRC-32 of the frequencies as little-endian bytes, row by row."""
        return zlib.crc32(self.frequencies.astype("<u2").tobytes())

    @cached_property
    def starts(self) -> list[list[int]]:
        """For each row, the sum of the frequencies before each entry, and the sum of all."""
        return [[0, *np.cumsum(row, dtype=np.int64).tolist()] for row in self.frequencies]

    def save(self, folder: Path) -> Path:
        """Write the tables to a folder, in the file of their tokenizer, and return its path.

        The folder is created if it does not exist.

        Raises:
            OSError: Where the file cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / (self.tokenizer_id + SUFFIX)
        data = packed({"frequencies": self.frequencies}, {"tokenizer_id": self.tokenizer_id})
        with replacing(target) as temporary:
            temporary.write_bytes(data)
        return target


def find(tokenizer_id: str, checksum: int | None = None) -> RowTables:
    """Return the row tables of a tokenizer.

    They are searched for in the folder that the environment variable MELCAP_ROW_TABLES names, then
    in the package.

    Args:
        tokenizer_id: The tokenizer.
        checksum: The checksum that the tables must have; None for any.

    Raises:
        ContainerError: Where there are no such tables, and where a file of them is damaged.

    Example:
        >>> import melcap
        >>> from melcap.io.container import row_tables
        >>> row_tables.find(melcap.load().tokenizer_id).frequencies.shape
        (12, 8192)
    """
    others = []
    for folder in _folders():
        path = folder / (tokenizer_id + SUFFIX)
        if path.exists():
            tables = _load(path)
            if checksum in (None, tables.checksum):
                return tables
            others.append(str(path))
    wanted = f"the row tables of tokenizer {tokenizer_id}"
    if checksum is not None:
        wanted += f" with checksum {checksum:08x}"
    found = f", but others in {' and '.join(others)}" if others else ""
    raise ContainerError(
        f"{wanted} are not here{found}: install the release of melcap that has them, or let the "
        f"environment variable {SWITCH} name a folder with their file, {tokenizer_id}{SUFFIX}"
    )


def _folders() -> list[Path]:
    given = os.environ.get(SWITCH)
    own = Path(str(resources.files("melcap") / "weights"))
    return [Path(given), own] if given else [own]


@lru_cache(maxsize=8)
def _load(path: Path) -> RowTables:
    try:
        require_regular(path)
        with safe_open(path, framework="np") as file:
            owner = (file.metadata() or {}).get("tokenizer_id")
            tables = RowTables(str(owner), file.get_tensor("frequencies"))
    except OSError as error:
        raise ContainerError(f"{path}: cannot read the row tables: {error.strerror}") from error
    except (SafetensorError, InputError) as error:
        raise ContainerError(f"{path}: not a file of row tables: {error}") from error
    if owner != path.name.removesuffix(SUFFIX):
        raise ContainerError(f"{path}: these are the row tables of tokenizer {owner}")
    return tables
