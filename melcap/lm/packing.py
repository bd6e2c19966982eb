"""Packing of documents into blocks of one length, to train a language model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from melcap.errors import InputError
from melcap.inputs import Tokens
from melcap.lm.vocabulary import Vocabulary, whole_number


class Block(NamedTuple):
    """A block of ids; `torch.utils.data.DataLoader` collates blocks into a batch.

    Attributes:
        ids: int64 [length], for a model to train on.
        documents: int64 [length], the number of the document that each id belongs to, from 0 in the
            order of the documents; -1 for PAD. Positions with the same number may attend to each
            other.
    """

    ids: Tensor
    documents: Tensor


def pack(
    documents: Iterable[Tokens],
    vocabulary: Vocabulary,
    length: int,
    bos: bool = False,
    eos: bool = True,
) -> Iterator[Block]:
    """Yield blocks that hold the documents one after the other, without gaps.

    A document continues in the next block when one is full. BOS and EOS fill a column each, so in
    every block the position modulo `rows` is the row, and every block begins with a new column. PAD
    fills up the last block. One document and one block are in memory at a time.

    Args:
        documents: the flat tokens of each document, integers [n] of whole columns.
        vocabulary: the layout of the ids.
        length: ids of a block, a multiple of `vocabulary.rows`.
        bos: put a column of BOS before every document.
        eos: put a column of EOS after every document.

    Raises:
        InputError: at once for a length that is not a multiple of the rows; during iteration for a
            document that is empty, not of whole columns, or not of tokens.

    Example:
        >>> from melcap.lm import Vocabulary, pack
        >>> vocabulary = Vocabulary(300, rows=3, offset=0, bos=300, eos=301, pad=302)
        >>> for block in pack([[1, 2, 3, 4, 5, 6], [7, 8, 9]], vocabulary, length=9):
        ...     print(block.ids.tolist(), block.documents.tolist())
        [1, 2, 3, 4, 5, 6, 301, 301, 301] [0, 0, 0, 0, 0, 0, 0, 0, 0]
        [7, 8, 9, 301, 301, 301, 302, 302, 302] [1, 1, 1, 1, 1, 1, -1, -1, -1]
    """
    rows = vocabulary.rows
    length = whole_number(length, "length", rows)
    if length % rows:
        raise InputError(
            f"length must be a multiple of the {rows} rows, such as {length - length % rows}, "
            f"not {length}"
        )
    return _blocks(documents, vocabulary, length, bos, eos)


def _blocks(
    documents: Iterable[Tokens], vocabulary: Vocabulary, length: int, bos: bool, eos: bool
) -> Iterator[Block]:
    block, filled = _empty(vocabulary, length), 0
    for number, document in enumerate(documents):
        ids = _encoded(document, number, vocabulary, bos, eos)
        while len(ids):
            taken = min(len(ids), length - filled)
            block.ids[filled : filled + taken] = ids[:taken]
            block.documents[filled : filled + taken] = number
            ids, filled = ids[taken:], filled + taken
            if filled == length:
                yield block
                block, filled = _empty(vocabulary, length), 0
    if filled:
        yield block


def _empty(vocabulary: Vocabulary, length: int) -> Block:
    ids = torch.full((length,), vocabulary.pad, dtype=torch.int64, device="cpu")
    return Block(ids, torch.full_like(ids, -1))


def _encoded(document: Tokens, number: int, vocabulary: Vocabulary, bos: bool, eos: bool) -> Tensor:
    """Return the ids of a document, or raise an error with the number of the document."""
    try:
        if not len(document):
            raise InputError("it is empty: leave it out")
        return vocabulary.encode(document, bos, eos, aligned=True)
    except (InputError, TypeError) as error:  # TypeError: a number has no length
        raise InputError(f"document {number}: {error}") from error
