"""`Codes`: what encoding gives and decoding takes."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from melcap.errors import InputError
from melcap.inputs import as_tokens, described
from melcap.io.container import check_tokenizer_id
from melcap.limits import checked_rate

UNKNOWN = "unknown"
"""The model of tokens that came without the name of one."""


@dataclass(frozen=True, eq=False)
class Codes:
    """The tokens of one clip or of many.

    Attributes:
        tokens: int32 [..., rows, columns], with the axes of the audio before samples; row 0 is the
            lowest band, columns follow time. Beyond a clip's own columns stands the column of
            silence. Arrays and lists of any integers become tensors.
        columns: columns of each clip, in the order of the tokens' first axes.
        lengths: samples of each clip, at `sample_rate`, in the same order.
        sample_rate: of the audio that was encoded, and that decoding gives back.
        tokenizer_id: what the tokens mean; any weights of this tokenizer decode them.
        model: name and hash of the weights that made the tokens, for people.

    Raises:
        InputError: where the parts do not fit together.

    Example:
        >>> import torch, melcap
        >>> codes = melcap.load().encode(torch.zeros(2, 1, 44100), 44100)
        >>> codes.shape, codes.tokens.shape, codes[1].tokens.shape
        ((2, 1), torch.Size([2, 1, 12, 22]), torch.Size([1, 12, 22]))
    """

    tokens: Tensor
    columns: tuple[int, ...]
    lengths: tuple[int, ...]
    sample_rate: int
    tokenizer_id: str
    model: str = UNKNOWN

    def __post_init__(self) -> None:
        for field, value in (
            ("tokens", as_tokens(self.tokens)),
            ("columns", _whole(self.columns, "columns")),
            ("lengths", _whole(self.lengths, "lengths")),
            ("sample_rate", checked_rate(self.sample_rate)),
        ):
            object.__setattr__(self, field, value)
        check_tokenizer_id(self.tokenizer_id, InputError)
        if self.tokens.ndim < 2:
            raise InputError(
                f"tokens must be integers [..., rows, columns], not {described(self.tokens)}"
            )
        clips, columns = math.prod(self.shape), self.tokens.shape[-1]
        if not clips:
            raise InputError("tokens must hold at least one clip")
        if not len(self.columns) == len(self.lengths) == clips:
            raise InputError(
                f"{clips} clips of tokens need as many columns and lengths, "
                f"not {len(self.columns)} and {len(self.lengths)}"
            )
        if any(not 1 <= count <= columns for count in self.columns):
            raise InputError(f"columns must be in 1..{columns}, not {list(self.columns)}")
        if any(length < 1 for length in self.lengths):
            raise InputError(f"lengths must be positive, not {list(self.lengths)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes of the clips: () for one clip, (batch,), or (batch, channels)."""
        return tuple(self.tokens.shape[:-2])

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("these are the tokens of one clip, which has no len()")
        return self.shape[0]

    def __getitem__(self, index: int) -> Codes:
        """The tokens of one index of the first axis, cut to the columns of their clips."""
        index = range(len(self))[index]
        clips = math.prod(self.shape[1:])
        own = slice(index * clips, (index + 1) * clips)
        columns = self.columns[own]
        return replace(
            self,
            tokens=self.tokens[index, ..., : max(columns)],
            columns=columns,
            lengths=self.lengths[own],
        )

    def to(self, device: torch.device | str) -> Codes:
        """Return the same codes with their tokens on this device."""
        return replace(self, tokens=self.tokens.to(device))

    def cpu(self) -> Codes:
        """Return the same codes with their tokens on the CPU."""
        return self.to("cpu")

    def numpy(self) -> npt.NDArray[np.integer[Any]]:
        """Return the tokens as an array [..., rows, columns], of the same dtype."""
        array: npt.NDArray[np.integer[Any]] = self.tokens.cpu().numpy()
        return array

    def flatten(self) -> list[Tensor]:
        """Return each clip as the sequence a language model reads: int32 [columns * rows].

        Column by column (time), and within a column from the lowest row to the highest.
        """
        grids = self.tokens.reshape(-1, *self.tokens.shape[-2:])
        return [
            clip[:, :count].t().reshape(-1) for clip, count in zip(grids, self.columns, strict=True)
        ]

    @classmethod
    def from_flat(
        cls,
        flat: Sequence[Any],
        rows: int,
        lengths: Sequence[int],
        sample_rate: int,
        tokenizer_id: str,
        model: str = UNKNOWN,
    ) -> Codes:
        """Undo `flatten`: one sequence of integers [columns * rows] for each clip.

        Sequences are lists, arrays or tensors of any integers. Clips may differ in length; shorter
        ones are filled up with their last column, which decoding ignores. For what a language model
        wrote, without a length, see `Codec.decode_tokens`.

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
        return cls(torch.stack(filled), columns, tuple(lengths), sample_rate, tokenizer_id, model)

    def to_bytes(self, *, compact: bool = False) -> bytes:
        """Return the codes as the bytes of a file, for `from_bytes` to read.

        The tokens of one clip, [rows, columns] or [channels, rows, columns] of equal lengths, make
        a `.melcap` file, where they fit into one; all others make a safetensors file.

        Args:
            compact: code the tokens of a `.melcap` file by the row tables of their tokenizer, which
                makes it about a tenth smaller.

        Raises:
            InputError: for `compact`, where the codes make a safetensors file.
            ContainerError: for `compact`, where the row tables are not at hand.
        """
        from melcap.stored_codes import to_bytes

        return to_bytes(self, compact)

    @classmethod
    def from_bytes(cls, data: bytes) -> Codes:
        """Return the codes that `to_bytes` or `save` wrote, or that `melcap encode` did.

        Raises:
            ContainerError: for other bytes, or damaged ones.
        """
        from melcap.stored_codes import from_bytes

        return from_bytes(data)

    def save(self, path: str | os.PathLike[str], *, compact: bool = False) -> None:
        """Write the codes to a file: `.melcap` for one clip, `.safetensors` for any.

        The file appears whole, in the place of one of that name, or not at all.

        Args:
            path: the file.
            compact: make a smaller `.melcap` file; see `to_bytes`.

        Raises:
            InputError: for another suffix, or codes that a `.melcap` file cannot hold.
            ContainerError: where the file cannot be written.

        Example:
            >>> import torch, melcap
            >>> codes = melcap.load().encode(torch.zeros(44100), 44100)
            >>> codes.save("silence.melcap")  # doctest: +SKIP
            >>> melcap.Codes.load("silence.melcap").lengths  # doctest: +SKIP
            (44100,)
        """
        from melcap.stored_codes import save

        save(self, path, compact)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Codes:
        """Read a file that `save` or `melcap encode` wrote.

        Raises:
            ContainerError: for a file that cannot be read, is neither, or is damaged.
        """
        from melcap.stored_codes import load

        return load(path)


def _whole(values: Iterable[Any], name: str) -> tuple[int, ...]:
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError as error:
        raise InputError(f"{name} must be whole numbers, not {values!r:.80}") from error
