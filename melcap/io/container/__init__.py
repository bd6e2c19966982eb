"""The `.melcap` file: a header, and tokens that are packed to the bit or coded compactly.

    offset    bytes  field (little-endian)
    0         6, 1   magic b"MELCAP", format version 2
    7         1      n, bytes in the model's name
    8         8      tokenizer id (see `melcap.model.tokenizer_id`)
    16        4, 2   sample rate of the original (Hz), channels
    22        8      samples per channel, at that rate
    30        2, 4   rows, columns
    36        1, 1   b, bits per token; coding of the tokens: 0 packed, 1 compact
    38        1      1 where the tokens have an axis of channels, 0 for one channel without it
    39        n      name of the model that made the tokens, printable ASCII
    39+n      4, 4   compact files alone (e = 8, else 0): CRC-32 of the row tables; p
    39+n+e    4      CRC-32 of everything above
    43+n+e    p      packed: tokens of b bits, most significant bit first, no gaps: channel after
                     channel, column by column, each column's rows in order; zero bits fill the
                     last byte
                     compact: words of the range coder, row after row, in each of them channel
                     after channel; in fewer bytes than packed tokens take
    43+n+e+p  4      CRC-32 of the p bytes; the file ends here

A reader trusts none of it. Every field has bounds, and the size that the header implies must be the
size of the file before anything is allocated. The number of samples in a column depends on the
model and is not checked here. The tokenizer's id decides who can decode the tokens; the model's
name is there for people.

    file          `read`, `write`, `read_header`, `verify`: files, read whole and written atomically
    packing       `pack`, `unpack`: a header and tokens as bytes
    header        `Header`, its bounds and its bytes
    bits          packed tokens
    range_coder   compact tokens, coded by the row tables of their tokenizer
    row_tables    the row tables, and where they are found
"""

from __future__ import annotations

from melcap.io.container.file import read, read_bytes, read_header, verify, write, write_bytes
from melcap.io.container.header import (
    BOUNDS,
    MAGIC,
    MAX_TOKENS,
    VERSION,
    Header,
    check_tokenizer_id,
)
from melcap.io.container.packing import pack, unpack

__all__ = [
    "BOUNDS",
    "MAGIC",
    "MAX_TOKENS",
    "VERSION",
    "Header",
    "check_tokenizer_id",
    "pack",
    "read",
    "read_bytes",
    "read_header",
    "unpack",
    "verify",
    "write",
    "write_bytes",
]
