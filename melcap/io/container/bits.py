"""Tokens packed to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.errors import ContainerError, InputError

BITS = (1, 16)
"""The smallest and the largest number of bits per token."""
_BLOCK = 2**16  # tokens packed at once; a multiple of 8, so that blocks meet between bytes


def pack_bits(tokens: npt.NDArray[np.integer[Any]], bits: int) -> bytes:
    """Pack tokens to bytes, most significant bit first, with zero bits at the end.

    Args:
        tokens: 1-D array of any integer dtype.
        bits: The bits per token, 1 to 16.

    Raises:
        InputError: For another shape or dtype, a token outside 0 to 2**bits - 1, and `bits` outside
            1 to 16.

    Example:
        >>> import numpy as np
        >>> from melcap.io.container.bits import pack_bits
        >>> pack_bits(np.array([1, 2, 3]), 4).hex()
        '1230'
    """
    _check_bits(bits)
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
    """Return the tokens, int32 [count], that `pack_bits` packed into `data`.

    Raises:
        InputError: For `bits` outside 1 to 16.
        ContainerError: For data that `pack_bits` does not make of `count` tokens: of another
            length, or with bits at the end that are not zero.
    """
    _check_bits(bits)
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


def _check_bits(bits: int) -> None:
    low, high = BITS
    if type(bits) is not int or not low <= bits <= high:
        raise InputError(f"bits is {bits!r}, and must be a whole number from {low} to {high}")
