"""Usage and entropy of a codebook: of known streams and of pooled counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from melcap.errors import InputError
from melcap.evaluation.measures import codebook
from melcap.evaluation.measures.codebook import CodebookStatistics, codebook_statistics

SIZE = 300
streams = arrays.arrays(np.int32, st.integers(1, 400), elements=st.integers(0, SIZE - 1))


def test_codebook_statistics_of_known_streams() -> None:
    every = codebook_statistics(np.arange(8192).reshape(2, 4, -1), 8192)
    assert every == CodebookStatistics(1.0, pytest.approx(13), 8192)
    assert codebook_statistics(np.full(100, 7), 8192) == (
        CodebookStatistics(1 / 8192, pytest.approx(0), 100)
    )
    uneven = codebook_statistics(np.array([0, 0, 0, 1]), 4)
    assert uneven == CodebookStatistics(0.5, pytest.approx(2 - 0.75 * math.log2(3)), 4)
    for tokens in (np.array([4]), np.array([-1]), np.array([], dtype=np.int64)):
        with pytest.raises(InputError, match=r"0\.\.3"):
            codebook_statistics(tokens, 4)


@given(streams, streams)
def test_counts_add_up_and_survive_packing(one: Any, other: Any) -> None:
    counts = [codebook.count_tokens(tokens, SIZE) for tokens in (one, other)]
    packed = [codebook.pack_counts(count) for count in counts]
    assert all(text.isascii() and "\n" not in text for text in packed)
    total = sum(codebook.unpack_counts(text) for text in packed)
    together = np.concatenate((one, other))
    assert codebook.statistics_of(total) == codebook_statistics(together, SIZE)
    assert codebook.statistics_of(total).entropy <= math.log2(min(SIZE, len(together))) + 1e-9


def test_ten_seconds_are_packed_in_a_few_kilobytes() -> None:
    tokens = np.random.default_rng(0).integers(0, 8192, 2580)
    assert len(codebook.pack_counts(codebook.count_tokens(tokens, 8192))) < 3000
