"""The delay pattern, for models that write one token of every row at each step.

The tokens that such a model writes in one step cannot depend on each other. The delay pattern of
MusicGen (arXiv 2306.05284) moves row r to the right by its delay. Each step then holds tokens of
several columns, and the lower rows of a column are known before the higher ones are written:

    row 0   a0  b0  c0  --  --
    row 1   --  a1  b1  c1  --
    row 2   --  --  a2  b2  c2
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from melcap.errors import InputError
from melcap.inputs import Tokens, as_tokens, described


def apply_delay_pattern(grid: Tokens, fill: int, delays: Sequence[int] | None = None) -> Tensor:
    """Return a grid whose rows are delayed.

    Args:
        grid: integers [..., rows, columns], tokens or ids.
        fill: id for the places before and after a row, such as `Vocabulary.pad`.
        delays: steps of each row; None for 0, 1, ... rows - 1.

    Returns:
        int64 [..., rows, steps], where steps is columns + the largest delay.

    Raises:
        InputError: for another shape, or delays that do not fit.

    Example:
        >>> from melcap.lm import apply_delay_pattern
        >>> apply_delay_pattern([[1, 2, 3], [4, 5, 6]], fill=9).tolist()
        [[1, 2, 3, 9], [9, 4, 5, 6]]
    """
    tokens, shifts = _checked(grid, delays)
    columns = tokens.shape[-1]
    delayed = tokens.new_full((*tokens.shape[:-1], columns + max(shifts)), fill)
    for row, shift in enumerate(shifts):
        delayed[..., row, shift : shift + columns] = tokens[..., row, :]
    return delayed


def revert_delay_pattern(steps: Tokens, delays: Sequence[int] | None = None) -> Tensor:
    """Return the grid of whole columns: the inverse of `apply_delay_pattern`.

    Args:
        steps: integers [..., rows, steps]; the places before and after a row may hold anything.
        delays: the delays that were applied.

    Returns:
        int64 [..., rows, columns], where columns is steps - the largest delay.

    Raises:
        InputError: for another shape, delays that do not fit, or so few steps that no column is
            whole.

    Example:
        >>> from melcap.lm import revert_delay_pattern
        >>> revert_delay_pattern([[1, 2, 3, 9], [9, 4, 5, 6]]).tolist()
        [[1, 2, 3], [4, 5, 6]]
    """
    delayed, shifts = _checked(steps, delays)
    columns = delayed.shape[-1] - max(shifts)
    if columns < 1:
        raise InputError(
            f"{delayed.shape[-1]} steps hold no whole column: with a delay of {max(shifts)} the "
            f"first is whole after {max(shifts) + 1} steps"
        )
    rows = [delayed[..., row, shift : shift + columns] for row, shift in enumerate(shifts)]
    return torch.stack(rows, dim=-2)


def _checked(grid: Tokens, delays: Sequence[int] | None) -> tuple[Tensor, list[int]]:
    tokens = as_tokens(grid, "a grid").long()
    if tokens.ndim < 2 or not tokens.shape[-2]:
        raise InputError(f"a grid must be [..., rows, columns], not {described(tokens)}")
    rows = tokens.shape[-2]
    shifts = list(range(rows)) if delays is None else as_tokens(delays, "delays").tolist()
    if len(shifts) != rows or min(shifts) < 0:
        raise InputError(f"delays must be {rows} numbers from 0 up, one for each row, not {shifts}")
    return tokens, shifts
