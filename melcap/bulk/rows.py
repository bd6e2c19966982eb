"""A row of a token set: the tokens of one clip, and what they are the tokens of."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melcap import container
from melcap.errors import ContainerError


@dataclass(frozen=True, eq=False)
class TokenRow:
    """`id` names the clip in its set, `source` is where it came from.

    `tokens` is uint16 [channels * columns * rows]: channel after channel, and in each of them
    column by column (time), from the lowest row (band) to the highest, as in a `.melcap` file.
    """

    id: str
    source: str
    header: container.Header
    tokens: npt.NDArray[np.uint16]

    @property
    def checksum(self) -> int:
        """CRC-32 of the tokens as little-endian bytes."""
        return zlib.crc32(self.tokens.astype("<u2").tobytes())

    @property
    def model(self) -> str:
        return f"{self.header.model}-{self.header.weights.hex()}"

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


def split_model(model: str) -> tuple[str, bytes]:
    """The name and the hash of `NAME-HASH`, as a codec and a token set call a model."""
    name, _, digest = model.rpartition("-")
    try:
        return name, bytes.fromhex(digest)
    except ValueError:
        raise ContainerError(f"{model!r} is not the name and hash of a model") from None
