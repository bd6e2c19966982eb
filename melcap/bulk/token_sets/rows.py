"""Rows of token sets: the tokens of one clip, with its name, source and header."""

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
    """The tokens of one clip.

    Attributes:
        id: the name of the clip in its set.
        source: the place of its audio.
        header: the facts about the clip and its tokens.
        tokens: uint16 [channels * columns * rows]. They are stored channel after channel, and in
            each channel column by column (time), from the lowest row (band) to the highest, as in a
            `.melcap` file.
        kept: the values that `--keep` took from a manifest, as text, by the names of its columns.
    """

    id: str
    source: str
    header: container.Header
    tokens: npt.NDArray[np.uint16]
    kept: dict[str, str | None] = field(default_factory=dict)

    @property
    def checksum(self) -> int:
        """The CRC-32 of the tokens as little-endian bytes."""
        return zlib.crc32(self.tokens.astype("<u2").tobytes())

    @property
    def seconds(self) -> float:
        """The length of the clip in seconds."""
        return self.header.samples / self.header.sample_rate

    @property
    def grid(self) -> npt.NDArray[np.uint16]:
        """The tokens as uint16 [channels, rows, columns].

        Raises:
            ContainerError: if the number of tokens is not that of the header.
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
"""The columns that every token set has. No kept column can have the name of one of them."""


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
    """Return the row of a record and its tokens, after checking them.

    Args:
        record: the values by column.
        tokens: the tokens, which must be uint16.
        where: the file, for messages.

    Raises:
        ContainerError: if they are not a row of a token set, or are damaged.
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
