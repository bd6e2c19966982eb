"""The `.melcap` file: tokens packed to the bit, with a header that says what they are.

    offset  bytes  field (little-endian)
    0       6, 1   magic b"MELCAP", format version 1
    7       1      n, bytes in the model name
    8       8      weights hash
    16      4, 2   sample rate of the original (Hz), channels
    22      8      samples per channel, at that rate
    30      2, 4   rows, columns
    36      1      b, bits per token
    37      n      model name, printable ASCII
    37+n    4      CRC-32 of everything above
    41+n    p      tokens of b bits, most significant bit first, no gaps: channel after channel,
                   column by column, each column's rows in order; zero bits fill the last byte
    41+n+p  4      CRC-32 of the p bytes; the file ends here

A reader trusts none of it: every field has bounds, and the size that the header implies must be the
size of the file before anything is allocated. How many samples a column stands for is the model's
business and not checked here.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from melcap.errors import ContainerError, InputError, MelcapError
from melcap.files import replacing, require_regular
from melcap.limits import MAX_CHANNELS, MAX_RATE, MIN_RATE

MAGIC, VERSION = b"MELCAP", 1
MAX_TOKENS = 2**28  # of all channels: 1 GiB as int32, twelve days of mono at 258.4 tokens/s
BOUNDS = {
    "sample_rate": (MIN_RATE, MAX_RATE),
    "channels": (1, MAX_CHANNELS),
    "samples": (1, 2**40),
    "rows": (1, 1024),
    "columns": (1, MAX_TOKENS),
    "bits": (1, 16),
}
_MODEL_NAME = re.compile("[ -~]{1,64}")
_FIXED = struct.Struct("<6sBB8sIHQHIB")
_CRC = struct.Struct("<I")
_BLOCK = 2**16  # tokens packed at once; a multiple of 8, so that blocks meet between bytes


@dataclass(frozen=True)
class Header:
    """What a `.melcap` file says of its tokens; ContainerError for a value outside its bounds.

    `model` is the model's name, `weights` the first 8 bytes of the SHA-256 of its weights.
    `sample_rate` (Hz), `channels` and `samples` (per channel) are those of the original audio;
    `rows` and `columns` the token grid of one channel, `bits` the size of a token.
    """

    model: str
    weights: bytes
    sample_rate: int
    channels: int
    samples: int
    rows: int
    columns: int
    bits: int

    def __post_init__(self) -> None:
        if not (isinstance(self.model, str) and _MODEL_NAME.fullmatch(self.model)):
            raise ContainerError(f"model is {self.model!r}, not 1 to 64 printable ASCII characters")
        if not isinstance(self.weights, bytes) or len(self.weights) != 8:
            raise ContainerError(f"weights is {self.weights!r}, not the 8 bytes of a hash")
        for field in BOUNDS:
            _check_bounds(field, getattr(self, field), ContainerError)
        if self.token_count > MAX_TOKENS:
            raise ContainerError(
                f"{self.token_count} tokens are more than a file holds ({MAX_TOKENS})"
            )

    @property
    def token_count(self) -> int:
        """Number of tokens, all channels."""
        return self.channels * self.rows * self.columns

    @property
    def payload_bytes(self) -> int:
        """Bytes that the packed tokens take."""
        return (self.token_count * self.bits + 7) // 8


def pack_bits(tokens: npt.NDArray[np.integer[Any]], bits: int) -> bytes:
    """Pack tokens (1-D, any integer dtype), most significant bit first, zero bits at the end.

    InputError for another shape or dtype, a token outside 0 to 2**bits - 1, or `bits` outside 1
    to 16.
    """
    _check_bounds("bits", bits, InputError)
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise InputError(f"tokens must be a 1-D integer array, not {tokens.ndim}-D {tokens.dtype}")
    for token in (int(tokens.min()), int(tokens.max())) if tokens.size else ():
        if not 0 <= token < 2**bits:
            raise InputError(f"token {token} does not fit {bits} bits (0 to {2**bits - 1})")
    packed = bytearray()
    for start in range(0, tokens.size, _BLOCK):
        words = tokens[start : start + _BLOCK].astype(">u2")
        rows = np.unpackbits(words.view(np.uint8).reshape(-1, 2), axis=1)
        packed += np.packbits(rows[:, 16 - bits :]).tobytes()
    return bytes(packed)


def unpack_bits(data: bytes, bits: int, count: int) -> npt.NDArray[np.int32]:
    """The `count` tokens, int32 [count], that `pack_bits` packed into `data`.

    InputError for `bits` outside 1 to 16; ContainerError where `data` is not what `pack_bits` makes
    of so many tokens: another length, or other bits than zeros at the end.
    """
    _check_bounds("bits", bits, InputError)
    if count < 0 or len(data) != (count * bits + 7) // 8:
        raise ContainerError(f"{len(data)} bytes cannot be {count} tokens of {bits} bits")
    if data and data[-1] & ((1 << -count * bits % 8) - 1):
        raise ContainerError("the unused bits after the last token are not zero")
    tokens = np.empty(count, np.int32)
    for start in range(0, count, _BLOCK):
        block = tokens[start : start + _BLOCK]
        rows = np.zeros((block.size, 16), np.uint8)
        packed = np.frombuffer(data, np.uint8, (block.size * bits + 7) // 8, start * bits // 8)
        rows[:, 16 - bits :] = np.unpackbits(packed, count=block.size * bits).reshape(-1, bits)
        block[:] = np.packbits(rows, axis=1).view(">u2")[:, 0]
    return tokens


def write(
    path: str | os.PathLike[str], header: Header, tokens: npt.NDArray[np.integer[Any]]
) -> int:
    """Write tokens [channels, rows, columns] (any integer dtype); returns the size of the file.

    The file appears whole, in the place of one of that name, or not at all. InputError for tokens
    of another shape than the header's or that `pack_bits` refuses; ContainerError where the file
    cannot be written.
    """
    shape = (header.channels, header.rows, header.columns)
    if tokens.shape != shape:
        raise InputError(f"the header asks for tokens of shape {shape}, not {tokens.shape}")
    payload = pack_bits(tokens.transpose(0, 2, 1).reshape(-1), header.bits)
    name, *fields = astuple(header)
    head = _FIXED.pack(MAGIC, VERSION, len(name), *fields) + name.encode("ascii")
    with _explained(path, "written"):
        with replacing(Path(path)) as temporary, open(temporary, "xb") as file:
            for data in (head, payload):
                file.write(data)
                file.write(_CRC.pack(zlib.crc32(data)))
    return len(head) + len(payload) + 2 * _CRC.size


def read(path: str | os.PathLike[str]) -> tuple[Header, npt.NDArray[np.int32]]:
    """The header and the tokens, int32 [channels, rows, columns], of a `.melcap` file.

    ContainerError for a file that cannot be read, is no `.melcap` file, or was altered by so much
    as a byte. Memory is in proportion to the size of the file, whatever its header says.
    """
    with _explained(path, "read"), open(path, "rb") as file:
        header = _take_header(file)
        payload = _take(file, header.payload_bytes, "token data")
        tokens = unpack_bits(payload, header.bits, header.token_count)
    grid = tokens.reshape(header.channels, header.columns, header.rows)
    return header, np.ascontiguousarray(grid.transpose(0, 2, 1))


def read_header(path: str | os.PathLike[str]) -> Header:
    """The header alone, checked as `read` does, without a look at the tokens but for their size."""
    with _explained(path, "read"), open(path, "rb") as file:
        return _take_header(file)


def _check_bounds(field: str, value: object, error: type[MelcapError]) -> None:
    low, high = BOUNDS[field]
    if type(value) is not int or not low <= value <= high:
        raise error(f"{field} is {value!r}, and must be a whole number from {low} to {high}")


def _take(file: BinaryIO, size: int, what: str, before: bytes = b"") -> bytes:
    """The next `size` bytes; their CRC, which the bytes `before` them count for, must follow."""
    data, crc = file.read(size), file.read(_CRC.size)
    if len(crc) != _CRC.size:
        raise ContainerError(f"the file is truncated: it ends inside the {what}")
    if _CRC.pack(zlib.crc32(data, zlib.crc32(before))) != crc:
        raise ContainerError(f"the {what} is damaged (wrong checksum); get a fresh copy")
    return data


def _take_header(file: BinaryIO) -> Header:
    fixed = file.read(_FIXED.size)
    if not fixed or not fixed.startswith(MAGIC[: len(fixed)]):
        raise ContainerError("it is empty or not a .melcap file at all")
    if len(fixed) < _FIXED.size:
        raise ContainerError("the file is truncated: it ends inside the header")
    _, version, name_size, weights, *fields = _FIXED.unpack(fixed)
    if version != VERSION:
        raise ContainerError(
            f"its format version is {version} and this melcap reads {VERSION}; try a newer melcap"
        )
    name = _take(file, name_size, "header", before=fixed).decode("latin-1")
    header = Header(name, weights, *fields)
    size = os.fstat(file.fileno()).st_size
    expected = file.tell() + header.payload_bytes + _CRC.size
    if size != expected:
        state = "truncated" if size < expected else "longer than it should be"
        raise ContainerError(f"the file is {state}: {size} bytes, not the {expected} of its header")
    return header


@contextmanager
def _explained(path: str | os.PathLike[str], verb: str) -> Iterator[None]:
    """Turn what goes wrong with the file into a ContainerError that names it."""
    try:
        require_regular(path)  # for writing as well: to replace a pipe is worse than to wait for it
        yield
    except (ContainerError, OSError, ValueError) as error:  # ValueError: an impossible file name
        reason = getattr(error, "strerror", None) or error
        raise ContainerError(f"'{os.fspath(path)}' cannot be {verb}: {reason}") from error
