"""Flat sequences of tokens, as a language model writes them, to the grid that a codec decodes."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from melcap.errors import InputError
from melcap.inputs import Tokens, as_tokens, described

OnInvalid = Literal["error", "silence", "drop"]
"""A policy for ids outside the codebook; see `Codec.decode_tokens`."""


def grid_of(
    ids: Tokens, silence: Tensor, vocab_size: int, on_invalid: OnInvalid = "error"
) -> Tensor:
    """Return the tokens of the whole columns of a flat sequence, int64 [rows, columns].

    Args:
        ids: integers [n], time-major: column by column, each from the lowest row to the highest.
        silence: the column of silence, integers [rows]; it says how many rows there are.
        vocab_size: ids from 0 to `vocab_size` - 1 are tokens.
        on_invalid: "error", "silence" for silence's token of the same row in the place of an id
            that is none, or "drop" to leave the id out, so that those after it move up.

    Returns:
        The grid, on the device of `ids`. A column that is not whole at the end is left out.

    Raises:
        InputError: for what is not flat, another `on_invalid`, or, with "error", an id that is no
            token.
    """
    if on_invalid not in get_args(OnInvalid):
        raise InputError(
            f"on_invalid must be one of {', '.join(get_args(OnInvalid))}, not {on_invalid!r:.80}"
        )
    flat = as_tokens(ids, "ids").long()
    if flat.ndim != 1:
        raise InputError(
            f"ids must be one flat sequence, not {described(flat)}: decode a batch sequence by "
            "sequence, and a grid [rows, columns] by decode(codec.codes_of(grid))"
        )
    rows = len(silence)
    invalid = (flat < 0) | (flat >= vocab_size)
    if invalid.any():
        if on_invalid == "error":
            where = int(invalid.nonzero()[0, 0])
            raise InputError(
                f"id {int(flat[where])} at position {where} is no token: tokens are 0 to "
                f'{vocab_size - 1} (on_invalid="silence" or "drop" goes on without it)'
            )
        if on_invalid == "drop":
            flat = flat[~invalid]
        else:
            row = torch.arange(len(flat), device=flat.device) % rows
            flat = torch.where(invalid, silence.to(flat)[row], flat)
    columns = len(flat) // rows
    return flat[: columns * rows].view(columns, rows).t()
