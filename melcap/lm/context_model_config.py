"""The sizes of a context model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from melcap.errors import InputError


@dataclass(frozen=True)
class ContextModelConfig:
    """The sizes of a `ContextModel`.

    Attributes:
        rows: tokens of one column.
        dim: numbers of a codebook entry.
        codebook_size: entries of the codebook.
        classes: classes of the two-level softmax, a power of two that divides `codebook_size`.
        history_width: size of the summary of the columns before.
        width: size of the hidden state of one token.
        dilations: dilation of each causal convolution over columns.
        kernel: columns that each convolution reads.
        rank: length of the vectors from which the logits within a class are computed.

    Raises:
        InputError: for a size that is below 1 or not a whole number.
    """

    rows: int
    dim: int
    codebook_size: int
    classes: int
    history_width: int = 128
    width: int = 192
    dilations: tuple[int, ...] = (1, 2, 4)
    kernel: int = 3
    rank: int = 32

    def __post_init__(self) -> None:
        sizes = dataclasses.asdict(self)
        for name, value in sizes.items():
            for number in value if name == "dilations" else [value]:
                if type(number) is not int or number < 1:
                    raise InputError(f"{name} must be a whole number from 1 up, not {number!r:.80}")

    @property
    def context(self) -> int:
        """Return how many columns before its own a prediction depends on."""
        return 1 + (self.kernel - 1) * sum(self.dilations)
