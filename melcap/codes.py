"""`Codes`, the tokens that `Codec.encode` returns and `Codec.decode` takes."""

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

from melcap import stored_codes
from melcap.errors import ContainerError, InputError
from melcap.inputs import as_tokens, described
from melcap.io.container import check_tokenizer_id, read_bytes
from melcap.limits import checked_rate
from melcap.stored_codes import StoredCodes

UNKNOWN = "unknown"
"""The model of tokens whose weights are not recorded."""


@dataclass(frozen=True, eq=False)
class Codes:
    """The tokens of one clip or of many.

    Attributes:
        tokens: int32 [..., rows, columns]. The leading axes are those of the audio before samples.
            Row 0 is the lowest band, and columns follow time. The silence column fills what comes
            after a clip's own columns. Arrays and lists of any integers become tensors.
        columns: columns of each clip, in the order of the leading axes.
        lengths: samples of each clip, at `sample_rate`, in the same order.
        sample_rate: of the audio that was encoded and that decoding returns, in Hz.
        tokenizer_id: the tokenizer of the tokens; all weights of this tokenizer decode them.
        model: name and hash of the weights that made the tokens, for information.

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
        """Return the axes of the clips: () for one clip, (batch,), or (batch, channels)."""
        return tuple(self.tokens.shape[:-2])

    def __len__(self) -> int:
        """Return the size of the first axis of the clips."""
        if not self.shape:
            raise TypeError("these are the tokens of one clip, which has no len()")
        return self.shape[0]

    def __getitem__(self, index: int) -> Codes:
        """Return the codes at an index of the first axis, without the silence after its clips."""
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
        """Return each clip as a flat sequence, int32 [columns * rows], for a language model.

        The order is column by column (time), and within a column from the lowest row to the
        highest.

        Example:
            >>> import melcap
            >>> codes = melcap.load().codes_of([[token] * 3 for token in range(12)])
            >>> codes.flatten()[0][:14].tolist()
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1]
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
        """Return the codes of flat sequences, the inverse of `flatten`.

        For tokens that a language model generated, which have no length in samples, see
        `Codec.decode_tokens`.

        Args:
            flat: one sequence of integers [columns * rows] for each clip: lists, arrays or tensors.
                Clips may differ in length. The last column of a shorter clip is repeated, and
                decoding ignores the repetitions.
            rows: tokens of one column.
            lengths: samples of each clip, at `sample_rate`.
            sample_rate: of the audio, in Hz.
            tokenizer_id: the tokenizer of the tokens.
            model: name and hash of the weights that made the tokens.

        Raises:
            InputError: for a sequence that is not a whole number of columns, or is not of integers.

        Example:
            >>> import melcap
            >>> codec = melcap.load()
            >>> flat = [list(range(24)), list(range(12))]
            >>> codes = melcap.Codes.from_flat(flat, 12, [4000, 2000], 44100, codec.tokenizer_id)
            >>> codes.tokens.shape, codes.columns
            (torch.Size([2, 12, 2]), (2, 1))
        """
        if rows < 1 or not len(flat):
            raise InputError(
                "rows must be at least 1, and at least one sequence is needed, "
                f"not {rows} and {len(flat)}"
            )
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

        The tokens of one clip, [rows, columns] or [channels, rows, columns] of equal lengths,
        become a `.melcap` file if they fit into one. All others become a safetensors file.

        Args:
            compact: code the tokens of a `.melcap` file with the row tables of their tokenizer,
                which makes it about a tenth smaller.

        Raises:
            InputError: where `compact` is asked for and the codes need a safetensors file.
            ContainerError: where `compact` is asked for and the row tables are not at hand.

        Example:
            >>> import torch, melcap
            >>> codes = melcap.load().encode(torch.zeros(44100), 44100)
            >>> data = codes.to_bytes()
            >>> torch.equal(melcap.Codes.from_bytes(data).tokens, codes.tokens)
            True
        """
        return stored_codes.to_bytes(self._stored(), compact)

    @classmethod
    def from_bytes(cls, data: bytes) -> Codes:
        """Return the codes in bytes that `to_bytes`, `save` or `melcap encode` wrote.

        Raises:
            ContainerError: for other bytes, or damaged ones.
        """
        stored = stored_codes.from_bytes(data)
        try:
            return cls(*stored)
        except InputError as error:
            raise ContainerError(f"its codes do not fit together: {error}") from error

    def save(self, path: str | os.PathLike[str], *, compact: bool = False) -> None:
        """Write the codes to a file: `.melcap` for one clip, `.safetensors` for any.

        The file is written under a temporary name and then renamed, so it is never seen half
        written. It replaces a file of the same name.

        Args:
            path: the file; its suffix chooses the format.
            compact: make a smaller `.melcap` file; see `to_bytes`.

        Raises:
            InputError: for another suffix, or codes that a `.melcap` file cannot hold.
            ContainerError: where the file cannot be written.

        Example:
            >>> import tempfile, torch, melcap
            >>> codes = melcap.load().encode(torch.zeros(44100), 44100)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     codes.save(f"{folder}/silence.melcap")
            ...     melcap.Codes.load(f"{folder}/silence.melcap").lengths
            (44100,)
        """
        stored_codes.save(self._stored(), path, compact)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Codes:
        """Read a file that `save` or `melcap encode` wrote.

        Raises:
            ContainerError: for a file that cannot be read, is of another kind, or is damaged.
        """
        data = read_bytes(path)
        try:
            return cls.from_bytes(data)
        except ContainerError as error:
            raise ContainerError(f"{os.fspath(path)!r} cannot be read: {error}") from error

    def _stored(self) -> StoredCodes:
        return StoredCodes(
            self.tokens,
            self.columns,
            self.lengths,
            self.sample_rate,
            self.tokenizer_id,
            self.model,
        )


def _whole(values: Iterable[Any], name: str) -> tuple[int, ...]:
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError as error:
        raise InputError(f"{name} must be whole numbers, not {values!r:.80}") from error
