"""A row of a token set: the tokens of one clip, and what they are the tokens of."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.errors import ContainerError
from melcap.io import container


@dataclass(frozen=True, eq=False)
class TokenRow:
    """`id` names the clip in its set, `source` is where it came from.

    `tokens` is uint16 [channels * columns * rows]: channel after channel, and in each of them
    column by column (time), from the lowest row (band) to the highest, as in a `.melcap` file.
    `kept` has the values that `--keep` took from a manifest, as text, by the names of its columns.
    """

    id: str
    source: str
    header: container.Header
    tokens: npt.NDArray[np.uint16]
    kept: dict[str, str | None] = field(default_factory=dict)

    @property
    def checksum(self) -> int:
        """CRC-32 of the tokens as little-endian bytes."""
        return zlib.crc32(self.tokens.astype("<u2").tobytes())

    @property
    def seconds(self) -> float:
        return self.header.samples / self.header.sample_rate

    @property
    def grid(self) -> npt.NDArray[np.uint16]:
        """uint16 [channels, rows, columns].

        Raises `ContainerError` where there are not as many tokens as the header says.
        """
        header = self.header
        if self.tokens.size != header.token_count:
            raise ContainerError(
                f"{self.id}: {self.tokens.size} tokens are not the {header.token_count} of "
                f"{header.channels} channels of {header.columns} columns of {header.rows} rows"
            )
        grid = self.tokens.reshape(header.channels, header.columns, header.rows)
        return np.ascontiguousarray(grid.transpose(0, 2, 1))


HEADER_FIELDS = (
    "model",
    "tokenizer_id",
    "sample_rate",
    "channels",
    "samples",
    "rows",
    "columns",
    "bits",
)
COLUMNS = ("id", "source", *HEADER_FIELDS, "checksum", "tokens")
"""The columns of a token set of its own, that no kept one can be called like."""


def record_of(row: TokenRow) -> dict[str, Any]:
    """Return all of a row but its tokens, as plain values by column."""
    fields = {name: getattr(row.header, name) for name in HEADER_FIELDS}
    return {
        "id": row.id,
        "source": row.source,
        **fields,
        "checksum": row.checksum,
        **row.kept,
    }


def row_of(record: dict[str, Any], tokens: Any, where: str) -> TokenRow:
    """Return the row that a record and its tokens say they are, checked.

    Raises `ContainerError` for what is none, or damaged.
    """
    try:
        header = container.Header(*(record[field] for field in HEADER_FIELDS))
        kept = {name: record[name] for name in record if name not in COLUMNS}
        row = TokenRow(str(record["id"]), str(record["source"]), header, np.asarray(tokens), kept)
        checksum = record["checksum"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ContainerError(f"{where} is not a token set of melcap: {error!r}") from error
    except ContainerError as error:
        raise ContainerError(f"{where}, {record.get('id')}: {error}") from error
    if row.tokens.dtype != np.uint16 or row.checksum != checksum:
        raise ContainerError(f"{where}, {row.id}: the tokens are damaged (wrong checksum)")
    if row.tokens.size and row.tokens.max() >> header.bits:
        raise ContainerError(f"{where}, {row.id}: a token does not fit {header.bits} bits")
    return row
