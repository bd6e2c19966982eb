"""The grid of tokens of a flat sequence, such as a language model generates."""

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
        ids: integers [n], column by column, each from the lowest row to the highest.
        silence: the silence column, integers [rows]; its length is the number of rows.
        vocab_size: ids from 0 to `vocab_size` - 1 are tokens.
        on_invalid: what to do with other ids. "error" raises. "silence" replaces them with the
            token of the same row of the silence column. "drop" removes them, so that the ids after
            them move up.

    Returns:
        The grid, on the device of `ids`. An incomplete column at the end is left out.

    Raises:
        InputError: for ids that are not a flat sequence, another `on_invalid`, or, with "error", an
            id that is not a token.

    Example:
        >>> import torch
        >>> from melcap.flat_tokens import grid_of
        >>> grid_of([1, 2, -1, 4, 5], torch.tensor([0, 9]), 10, "silence").tolist()
        [[1, 0], [2, 4]]
    """
    if on_invalid not in get_args(OnInvalid):
        raise InputError(
            f"on_invalid must be one of {', '.join(get_args(OnInvalid))}, not {on_invalid!r:.80}"
        )
    flat = as_tokens(ids, "ids").long()
    if flat.ndim != 1:
        raise InputError(
            f"ids must be one flat sequence, not {described(flat)}: decode a batch sequence by "
            "sequence, and a grid [rows, columns] with decode(codec.codes_of(grid))"
        )
    rows = len(silence)
    invalid = (flat < 0) | (flat >= vocab_size)
    if invalid.any():
        if on_invalid == "error":
            where = int(invalid.nonzero()[0, 0])
            raise InputError(
                f"id {int(flat[where])} at position {where} is not a token: tokens are 0 to "
                f'{vocab_size - 1} (on_invalid="silence" or "drop" accepts such ids)'
            )
        if on_invalid == "drop":
            flat = flat[~invalid]
        else:
            row = torch.arange(len(flat), device=flat.device) % rows
            flat = torch.where(invalid, silence.to(flat)[row], flat)
    columns = len(flat) // rows
    return flat[: columns * rows].view(columns, rows).t()
