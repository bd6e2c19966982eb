"""The vocabulary of a language model, with ids for tokens and special ids."""

from __future__ import annotations

import dataclasses
import itertools
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from melcap.audio_codec import AudioCodec
from melcap.errors import InputError
from melcap.inputs import Tokens, as_tokens, described


@dataclass(frozen=True)
class Vocabulary:
    """The layout of a language model's ids; `Vocabulary.of` returns one for a codec.

    Id `offset` + t stands for token t. Of all other ids, such as those of a text tokenizer, only
    three special ones have a meaning here. The rest are foreign ids.

    Attributes:
        codebook_size: number of tokens.
        rows: tokens of one column.
        offset: the first audio id.
        bos: id that begins a sequence.
        eos: id that ends a sequence; it may be the same as `bos`.
        pad: id that fills up a sequence; it differs from both.

    Raises:
        InputError: where numbers are out of range, or ids collide.

    Example:
        >>> from melcap.lm import Vocabulary
        >>> Vocabulary(codebook_size=8192, rows=12, offset=32000, bos=1, eos=2, pad=0).size
        40192
    """

    codebook_size: int
    rows: int
    offset: int
    bos: int
    eos: int
    pad: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            least = 1 if field.name in ("codebook_size", "rows") else 0
            number = whole_number(getattr(self, field.name), field.name, least)
            object.__setattr__(self, field.name, number)
        for name, number in (("bos", self.bos), ("eos", self.eos), ("pad", self.pad)):
            if self.audio.start <= number < self.audio.stop:
                raise InputError(
                    f"{name} must not be an audio id ({self.audio.start} to {self.audio.stop - 1}),"
                    f" and is {number}: choose another id or another offset"
                )
        if self.pad in (self.bos, self.eos):
            raise InputError(
                f"pad must differ from bos and eos, or padding would begin and end sequences: "
                f"bos {self.bos}, eos {self.eos}, pad {self.pad}"
            )

    @classmethod
    def of(
        cls,
        codec: AudioCodec,
        offset: int = 0,
        bos: int | None = None,
        eos: int | None = None,
        pad: int | None = None,
    ) -> Vocabulary:
        """Return the vocabulary for a codec's tokens.

        Args:
            codec: the codec whose tokens the model reads.
            offset: the first audio id, such as the size of a text tokenizer's vocabulary.
            bos: an existing id; None for the next free id after the audio ids.
            eos: an existing id; None for the next free id after the audio ids.
            pad: an existing id; None for the next free id after the audio ids.

        Raises:
            InputError: where ids collide.

        Example:
            >>> import melcap
            >>> from melcap.lm import Vocabulary
            >>> vocabulary = Vocabulary.of(melcap.load(), offset=32000, eos=2)
            >>> vocabulary.bos, vocabulary.eos, vocabulary.pad, vocabulary.size
            (40192, 2, 40193, 40194)
        """
        offset = whole_number(offset, "offset", 0)
        following = itertools.count(offset + codec.vocab_size)
        free = (number for number in following if number not in (bos, eos, pad))
        return cls(
            codec.vocab_size,
            codec.rows,
            offset,
            bos=next(free) if bos is None else bos,
            eos=next(free) if eos is None else eos,
            pad=next(free) if pad is None else pad,
        )

    @property
    def audio(self) -> slice:
        """Return the audio ids as a slice, for the rows of an embedding or of logits."""
        return slice(self.offset, self.offset + self.codebook_size)

    @property
    def size(self) -> int:
        """Return the number of ids that a model's embedding needs at least."""
        return max(self.audio.stop - 1, self.bos, self.eos, self.pad) + 1

    def encode(
        self, tokens: Tokens, bos: bool = False, eos: bool = False, aligned: bool = False
    ) -> Tensor:
        """Return the ids of a flat sequence of tokens.

        Args:
            tokens: integers [n], whole columns as `Codes.flatten` returns them; they may be empty.
            bos: put BOS at the beginning.
            eos: put EOS at the end.
            aligned: BOS and EOS fill a column each, as in the blocks of `pack`, so that position
                modulo `rows` remains the row.

        Returns:
            int64 [n], and one or `rows` ids more for each of BOS and EOS.

        Raises:
            InputError: for tokens outside the codebook, or an incomplete column.

        Example:
            >>> from melcap.lm import Vocabulary
            >>> vocabulary = Vocabulary(300, rows=3, offset=1000, bos=1, eos=2, pad=0)
            >>> vocabulary.encode([7, 0, 299], bos=True).tolist()
            [1, 1007, 1000, 1299]
        """
        flat = _flat(tokens, "tokens")
        if len(flat) % self.rows:
            raise InputError(
                f"tokens must be whole columns of {self.rows}, not {len(flat)} tokens: leave out "
                f"the last {len(flat) % self.rows}"
            )
        outside = (flat < 0) | (flat >= self.codebook_size)
        if outside.any():
            where = int(outside.nonzero()[0, 0])
            raise InputError(
                f"tokens must be in 0..{self.codebook_size - 1}, not {int(flat[where])} at "
                f"position {where}"
            )
        repeats = self.rows if aligned else 1
        before = flat.new_full((repeats if bos else 0,), self.bos)
        after = flat.new_full((repeats if eos else 0,), self.eos)
        return torch.cat((before, flat + self.offset, after))

    def decode(self, ids: Tokens) -> Tensor:
        """Return the flat tokens of a sequence of ids, such as a model generated.

        The sequence ends before the first EOS, and BOS and PAD are left out. Where BOS and EOS are
        the same id, all of them at the beginning count as BOS. Every foreign id becomes -1, which
        is not a token, and so keeps its place. `Codec.decode_tokens` raises for it, or replaces it
        (`on_invalid="silence"`), or removes it (`on_invalid="drop"`).

        Args:
            ids: integers [n]. Of a sequence that continues a text, pass only what follows the text.

        Returns:
            int64 [at most n]; the last column may lack tokens.

        Raises:
            InputError: for anything but a flat sequence of integers.

        Example:
            >>> from melcap.lm import Vocabulary
            >>> vocabulary = Vocabulary(300, rows=3, offset=1000, bos=1, eos=2, pad=0)
            >>> vocabulary.decode([0, 1, 1007, 1000, 555, 2, 1299]).tolist()
            [7, 0, -1]
        """
        flat = _flat(ids, "ids")
        content = ((flat != self.bos) & (flat != self.pad)).nonzero()
        flat = flat[int(content[0, 0]) :] if len(content) else flat[:0]
        ends = (flat == self.eos).nonzero()
        if len(ends):
            flat = flat[: int(ends[0, 0])]
        flat = flat[(flat != self.bos) & (flat != self.pad)]
        audio = (flat >= self.audio.start) & (flat < self.audio.stop)
        return torch.where(audio, flat - self.offset, -1)


def _flat(values: Tokens, what: str) -> Tensor:
    """Return integers as int64 [n]."""
    flat = as_tokens(values, what).long()
    if flat.ndim != 1:
        raise InputError(f"{what} must be one flat sequence, not {described(flat)}")
    return flat


def whole_number(value: Any, name: str, least: int) -> int:
    """Return an argument as an int.

    Raises:
        InputError: for anything but a whole number, or a number below `least`.
    """
    try:
        number = operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} must be a whole number, not {value!r:.80}") from error
    if number < least:
        raise InputError(f"{name} must be at least {least}, not {number}")
    return number
