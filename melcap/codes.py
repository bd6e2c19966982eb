"""`Codes`: what encoding gives and decoding takes."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from melcap.errors import InputError
from melcap.limits import checked_rate
from melcap.waves import as_tokens, described


@dataclass(frozen=True, eq=False)
class Codes:
    """The tokens of a batch of clips.

    Attributes:
        tokens: int32 [batch, rows, columns]; row 0 is the lowest band, columns follow time. Beyond
            a clip's own columns stands the column of silence. Arrays and lists of any integers
            become tensors.
        columns: columns of each clip.
        lengths: samples of each clip, at `sample_rate`.
        sample_rate: of the audio that was encoded, and that decoding gives back.
        model: name and hash of the weights that made the tokens.

    Raises:
        InputError: where the parts do not fit together.
    """

    tokens: Tensor
    columns: tuple[int, ...]
    lengths: tuple[int, ...]
    sample_rate: int
    model: str

    def __post_init__(self) -> None:
        for field, value in (
            ("tokens", as_tokens(self.tokens)),
            ("columns", _whole(self.columns, "columns")),
            ("lengths", _whole(self.lengths, "lengths")),
            ("sample_rate", checked_rate(self.sample_rate)),
        ):
            object.__setattr__(self, field, value)
        if self.tokens.ndim != 3:
            raise InputError(
                f"tokens must be integers [batch, rows, columns], not {described(self.tokens)}"
            )
        batch, _, columns = self.tokens.shape
        if not batch:
            raise InputError("tokens must hold at least one clip")
        if not len(self.columns) == len(self.lengths) == batch:
            raise InputError(
                f"{batch} clips of tokens need as many columns and lengths, "
                f"not {len(self.columns)} and {len(self.lengths)}"
            )
        if any(not 1 <= count <= columns for count in self.columns):
            raise InputError(f"columns must be in 1..{columns}, not {list(self.columns)}")
        if any(length < 1 for length in self.lengths):
            raise InputError(f"lengths must be positive, not {list(self.lengths)}")

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> Codes:
        """One clip, cut to its own columns."""
        index = range(len(self))[index]
        return Codes(
            self.tokens[index : index + 1, :, : self.columns[index]],
            (self.columns[index],),
            (self.lengths[index],),
            self.sample_rate,
            self.model,
        )

    def to(self, device: torch.device | str) -> Codes:
        return Codes(
            self.tokens.to(device), self.columns, self.lengths, self.sample_rate, self.model
        )

    def flatten(self) -> list[Tensor]:
        """Each clip as the sequence a language model reads: int32 [columns * rows], time-major.

        Column by column, and within a column from the lowest row to the highest.
        """
        return [
            clip[:, :count].t().reshape(-1)
            for clip, count in zip(self.tokens, self.columns, strict=True)
        ]

    @classmethod
    def from_flat(
        cls,
        flat: Sequence[Any],
        rows: int,
        lengths: Sequence[int],
        sample_rate: int,
        model: str,
    ) -> Codes:
        """Undo `flatten`: one sequence of integers [columns * rows] for each clip.

        Sequences are lists, arrays or tensors of any integers. Clips may differ in length; shorter
        ones are filled up with their last column, which decoding ignores.

        Raises:
            InputError: where a sequence is no whole number of columns, or holds no integers.
        """
        if rows < 1 or not len(flat):
            raise InputError(f"at least one sequence and rows are needed, not {len(flat)}, {rows}")
        grids = []
        for index, values in enumerate(flat):
            sequence = as_tokens(values, f"sequence {index}")
            if sequence.ndim != 1 or not len(sequence) or len(sequence) % rows:
                raise InputError(
                    f"sequence {index} must hold whole columns of {rows} tokens, not "
                    f"{list(sequence.shape)}"
                )
            grids.append(sequence.reshape(-1, rows).t())
        longest = max(grid.shape[1] for grid in grids)
        filled = [
            torch.cat((grid, grid[:, -1:].expand(-1, longest - grid.shape[1])), dim=1)
            for grid in grids
        ]
        columns = tuple(grid.shape[1] for grid in grids)
        return cls(torch.stack(filled), columns, tuple(lengths), sample_rate, model)


def _whole(values: Iterable[Any], name: str) -> tuple[int, ...]:
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError as error:
        raise InputError(f"{name} must be whole numbers, not {values!r:.80}") from error
