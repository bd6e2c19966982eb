"""The header of a `.melcap` file and its bytes; `melcap.io.container` has the table of them."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from melcap.errors import ContainerError, MelcapError
from melcap.io.container.bits import BITS
from melcap.limits import MAX_CHANNELS, MAX_RATE, MIN_RATE

MAGIC, VERSION = b"MELCAP", 2
PACKED, COMPACT = 0, 1
LEAST_BITS = 2  # a token of a compact file takes more, with any row tables
MAX_TOKENS = 2**28  # of all channels: 1 GiB as int32, twelve days of mono at 258.4 tokens/s
BOUNDS = {
    "sample_rate": (MIN_RATE, MAX_RATE),
    "channels": (1, MAX_CHANNELS),
    "samples": (1, 2**40),
    "rows": (1, 1024),
    "columns": (1, MAX_TOKENS),
    "bits": BITS,
}
_MODEL_NAME = re.compile("[ -~]{1,96}")
_TOKENIZER_ID = re.compile("[0-9a-f]{16}")
_FIXED = struct.Struct("<6sBB8sIHQHIBBB")
_CODED = struct.Struct("<II")
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class Header:
    """The header of a `.melcap` file, which describes its tokens.

    Attributes:
        model: The name of the weights that made the tokens.
        tokenizer_id: The tokenizer that gives the tokens their meaning.
        sample_rate: The sample rate of the original audio in Hz.
        channels: Its number of channels.
        samples: Its samples per channel.
        rows: The rows of the token grid of one channel.
        columns: The columns of that grid.
        bits: The bits per token.
        channel_axis: False for a single channel that came as [samples].
        compact: Whether the tokens are coded by the row tables of their tokenizer
            (`melcap.io.container.row_tables`) instead of packed.

    Raises:
        ContainerError: For a value outside its bounds.

    Example:
        >>> from melcap.io.container import Header
        >>> Header("lite", "0123456789abcdef", 44100, 2, 44100, 12, 22, 13).token_count
        528
    """

    model: str
    tokenizer_id: str
    sample_rate: int
    channels: int
    samples: int
    rows: int
    columns: int
    bits: int
    channel_axis: bool = True
    compact: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.model, str) and _MODEL_NAME.fullmatch(self.model)):
            raise ContainerError(f"model is {self.model!r}, not 1 to 96 printable ASCII characters")
        check_tokenizer_id(self.tokenizer_id, ContainerError)
        for field, (low, high) in BOUNDS.items():
            value = getattr(self, field)
            if type(value) is not int or not low <= value <= high:
                raise ContainerError(
                    f"{field} is {value!r}, and must be a whole number from {low} to {high}"
                )
        if self.token_count > MAX_TOKENS:
            raise ContainerError(
                f"{self.token_count} tokens are more than a file holds ({MAX_TOKENS})"
            )
        if self.channels > 1 and not self.channel_axis:
            raise ContainerError(f"{self.channels} channels need an axis of channels")

    @property
    def token_count(self) -> int:
        """The number of tokens of all channels."""
        return self.channels * self.rows * self.columns

    @property
    def packed_bytes(self) -> int:
        """The bytes of the tokens when they are packed, the most that they may take."""
        return (self.token_count * self.bits + 7) // 8


class Payload(NamedTuple):
    """The size of the token data in bytes, and the row tables that it needs.

    `tables` is the checksum of the row tables of a compact file, and 0 for packed tokens.
    """

    size: int
    tables: int = 0


def check_tokenizer_id(value: object, error: type[MelcapError]) -> None:
    """Raise `error` for a value that is no tokenizer id, which has 16 hexadecimal digits."""
    if not (isinstance(value, str) and _TOKENIZER_ID.fullmatch(value)):
        raise error(f"tokenizer_id is {value!r:.80}, not 16 hexadecimal digits")


def header_bytes(header: Header, payload: Payload) -> bytes:
    """Return the bytes of a header with its checksum."""
    fixed = _FIXED.pack(
        MAGIC,
        VERSION,
        len(header.model),
        bytes.fromhex(header.tokenizer_id),
        *(getattr(header, field) for field in BOUNDS),
        COMPACT if header.compact else PACKED,
        header.channel_axis,
    )
    coded = _CODED.pack(payload.tables, payload.size) if header.compact else b""
    return with_checksum(fixed + header.model.encode("ascii") + coded)


def take_header(file: BinaryIO, size: int) -> tuple[Header, Payload]:
    """Read the header of a file of `size` bytes.

    Raises:
        ContainerError: For bytes that are no header, a damaged header, and one that implies another
            size of the file.
    """
    fixed = file.read(_FIXED.size)
    if not fixed or not fixed.startswith(MAGIC[: len(fixed)]):
        raise ContainerError("it is empty or not a .melcap file at all")
    if len(fixed) > len(MAGIC) and fixed[len(MAGIC)] != VERSION:
        raise ContainerError(
            f"its format version is {fixed[len(MAGIC)]}, but this melcap reads {VERSION}; "
            "another version of melcap wrote it"
        )
    if len(fixed) < _FIXED.size:
        raise ContainerError("the file is truncated: it ends inside the header")
    _, _, name_size, tokenizer, *values, coding, axis = _FIXED.unpack(fixed)
    coded_size = _CODED.size if coding == COMPACT else 0
    rest = take(file, name_size + coded_size, "header", before=fixed)
    if coding not in (PACKED, COMPACT) or axis > 1:
        raise ContainerError(
            f"its tokens are coded in a way ({coding}, {axis}) that this melcap does not know; "
            "try a newer melcap"
        )
    header = Header(
        rest[:name_size].decode("latin-1"),
        tokenizer.hex(),
        **dict(zip(BOUNDS, values, strict=True)),
        channel_axis=bool(axis),
        compact=coding == COMPACT,
    )
    payload = Payload(header.packed_bytes)
    if header.compact:
        tables, coded = _CODED.unpack(rest[name_size:])
        payload = _checked(header, Payload(coded, tables))
    expected = file.tell() + payload.size + _CRC.size
    if size != expected:
        state = "truncated" if size < expected else "longer than it should be"
        raise ContainerError(f"the file is {state}: {size} bytes, not the {expected} of its header")
    return header, payload


def with_checksum(data: bytes) -> bytes:
    """Return the bytes with their CRC-32 after them, as `take` expects it."""
    return data + _CRC.pack(zlib.crc32(data))


def take(file: BinaryIO, size: int, what: str, before: bytes = b"") -> bytes:
    """Return the next `size` bytes of a file, after checking the CRC-32 that follows them.

    The checksum includes the bytes `before` them.

    Raises:
        ContainerError: Where they are damaged, or the file ends.
    """
    data, crc = file.read(size), file.read(_CRC.size)
    if len(crc) != _CRC.size:
        raise ContainerError(f"the file is truncated: it ends inside the {what}")
    if _CRC.pack(zlib.crc32(data, zlib.crc32(before))) != crc:
        raise ContainerError(f"the {what} is damaged (wrong checksum); get a fresh copy")
    return data


def _checked(header: Header, payload: Payload) -> Payload:
    """Return the payload of a compact file if its size is possible for the number of tokens.

    A token takes at least `LEAST_BITS`, and tokens are packed where coding makes them no smaller.
    """
    least, most = (header.token_count * LEAST_BITS + 7) // 8, header.packed_bytes - 1
    if not least <= payload.size <= most or payload.size % 4:
        raise ContainerError(
            f"{header.token_count} tokens cannot be coded in {payload.size} bytes: that takes "
            f"{least} to {most}, in multiples of 4"
        )
    return payload
