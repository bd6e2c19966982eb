"""A stopping rule that ends the generation of a sequence after some seconds of silence."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from melcap.audio_codec import AudioCodec
from melcap.errors import InputError
from melcap.inputs import Tokens, as_tokens, described
from melcap.lm.vocabulary import Vocabulary

SILENCE_TOLERANCE = 0.8
"""The distance from the token of the silence column up to which a token counts as silent.

It is a multiple of the root mean square distance between two codebook entries (10.4 for the shipped
weights). The share of tokens equal to those of the silence column would not separate silence from
sound: dithered silence of 16 bits has 38 % of them, and a hum of 50 Hz at -40 dBFS has 67 %. The
largest distance within a column follows the level. It is at most 0.41 for such dither, below 0.8
for all columns of white noise at -80 dBFS, and above 0.8 for all columns at -70 dBFS. The numbers,
and the script that computes them, are in docs/language-models.md.
"""


class SilenceStop:
    """A stopping rule, true for a sequence that ends with the given seconds of silence.

    A column is silent if each of its tokens is near the token of the same row of the silence
    column. The rule reads whole columns only. They are counted from the last id that is not an
    audio id, such as BOS or the end of a text. So prompts may differ in length, and padding on the
    left does not matter. Silence at the end of a prompt counts.

    An instance has the signature of `transformers.StoppingCriteria`: pass
    `stopping_criteria=StoppingCriteriaList([stop])` to `generate`, or call it in your own loop.

    Args:
        codec: the codec whose tokens are generated.
        vocabulary: the layout of the ids; None for tokens themselves, without special ids.
        seconds: of silence at the end, rounded to columns, but at least one column.
        tolerance: see `SILENCE_TOLERANCE`; 0 accepts only the tokens of the silence column.

    Attributes:
        columns: `seconds` in columns.

    Raises:
        InputError: where codec and vocabulary do not fit together, or numbers are out of range.

    Example:
        >>> import melcap
        >>> from melcap.lm import SilenceStop
        >>> codec = melcap.load()
        >>> stop = SilenceStop(codec, seconds=1)
        >>> stop(codec.silence.repeat(1, stop.columns))
        tensor([True])
    """

    def __init__(
        self,
        codec: AudioCodec,
        vocabulary: Vocabulary | None = None,
        seconds: float = 2.0,
        tolerance: float = SILENCE_TOLERANCE,
    ) -> None:
        if vocabulary and (vocabulary.codebook_size, vocabulary.rows) != (
            codec.vocab_size,
            codec.rows,
        ):
            raise InputError(
                f"the vocabulary has {vocabulary.codebook_size} tokens in {vocabulary.rows} rows "
                f"and the codec {codec.vocab_size} in {codec.rows}: make it with "
                "Vocabulary.of(codec)"
            )
        if not 0 < seconds < math.inf or not 0 <= tolerance < math.inf:
            raise InputError(
                f"seconds must be above 0 and tolerance at least 0, not {seconds} and {tolerance}"
            )
        self.columns = max(1, round(seconds * codec.frame_rate))
        self._offset = vocabulary.offset if vocabulary else 0
        self._silent = _silent_tokens(codec, tolerance)

    def __call__(self, input_ids: Tensor, scores: Any = None, **kwargs: Any) -> Tensor:
        """Return which sequences should end.

        Args:
            input_ids: integers [batch, n], the prompts and the ids generated so far.
            scores: ignored.
            **kwargs: ignored.

        Returns:
            bool [batch], on the device of `input_ids`; false between whole columns.

        Raises:
            InputError: for another shape or dtype.
        """
        tokens = as_tokens(input_ids, "input_ids") - self._offset
        if tokens.ndim != 2:
            raise InputError(f"input_ids must be [batch, n], not {described(tokens)}")
        batch, length = tokens.shape
        rows, size = self._silent.shape
        window = self.columns * rows
        if length < window:
            return torch.zeros(batch, dtype=torch.bool, device=tokens.device)
        place = torch.arange(1, length + 1, device=tokens.device)
        foreign = (tokens < 0) | (tokens >= size)
        audio = length - torch.where(foreign, place, 0).amax(dim=1)
        grid = tokens[:, -window:].view(batch, self.columns, rows).mT
        return self.silent_columns(grid).all(dim=1) & (audio % rows == 0)

    def silent_columns(self, tokens: Tokens) -> Tensor:
        """Return which columns of a grid are silent, for models that write whole columns.

        Args:
            tokens: integers [..., rows, columns], as in `Codes.tokens`, without offset. Numbers
                outside the codebook are not silent.

        Returns:
            bool [..., columns], on the device of `tokens`.

        Raises:
            InputError: for another number of rows, or another dtype.
        """
        grid = as_tokens(tokens).long()
        rows, size = self._silent.shape
        if grid.ndim < 2 or grid.shape[-2] != rows:
            raise InputError(f"tokens must be [..., {rows} rows, columns], not {described(grid)}")
        self._silent = self._silent.to(grid.device)
        row = torch.arange(rows, device=grid.device)[:, None]
        near = self._silent[row, grid.clamp(0, size - 1)]
        return (near & (grid >= 0) & (grid < size)).all(dim=-2)


def _silent_tokens(codec: AudioCodec, tolerance: float) -> Tensor:
    """Return which tokens count as silent in each row, bool [rows, codebook size]."""
    vectors = codec.codebook.vectors.detach().to("cpu", torch.float64)
    quiet = vectors[codec.silence.to("cpu").long()]
    distances = (vectors - quiet[:, None]).square().sum(dim=-1).sqrt()
    # The mean square distance between two entries is twice that from the mean.
    spread = (2 * (vectors - vectors.mean(dim=0)).square().sum(dim=-1).mean()).sqrt()
    return distances <= tolerance * spread
