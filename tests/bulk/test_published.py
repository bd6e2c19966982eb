"""Token sets of a codec of the published architecture hold the tokens of its `encode`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from melcap.audio import read
from melcap.base_codec import BaseCodec
from melcap.bulk.reading.windows import Framing
from melcap.bulk.tokenize import Options, tokenize
from tests.bulk.helpers import corpus, rows_of, saved_base, tokens_of, wave
from tests.bulk.test_windows import cut, tokens_of_windows
from tests.helpers import examples
from tests.model.base.published import TINY, codec_of, with_windows

pytestmark = pytest.mark.usefixtures("forked_readers")

UNIT = 2048


@pytest.fixture(scope="module")
def base() -> BaseCodec:
    return with_windows(codec_of(TINY[0]), 13)


@settings(max_examples=examples(20))
@given(
    samples=st.integers(1, 45 * UNIT),
    cuts=st.lists(st.integers(0, 45 * UNIT), max_size=5),
    channels=st.integers(1, 2),
)
@example(samples=1, cuts=[], channels=1)
@example(samples=512, cuts=[100], channels=1)
@example(samples=24 * UNIT, cuts=[], channels=1)
@example(samples=24 * UNIT + 1, cuts=[13 * UNIT], channels=2)
@example(samples=25 * UNIT + 1, cuts=[], channels=1)
@example(samples=26 * UNIT - 255, cuts=[25 * UNIT], channels=1)
def test_windows_give_the_tokens_of_the_clip(
    base: BaseCodec, samples: int, cuts: list[int], channels: int
) -> None:
    clip = wave(samples / 44100, channels=channels, seed=samples % 1000)
    framing, expected = Framing.of(base), base.encode(clip, 44100).tokens
    found = tokens_of_windows(base, framing, cut(clip, framing, cuts))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("encoders", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_rows_are_what_the_codec_gives(tmp_path: Path, encoders: int) -> None:
    """Clips are of equal and of other lengths, shorter and longer than a window."""
    base = saved_base(tmp_path / "base.safetensors", 13)
    files = corpus(tmp_path / "clips", [0.3, 0.3, 1.4, 0.01, 0.3, 0.6])
    options = replace(Options(readers=2, batch_seconds=3), encoders=encoders)
    end = tokenize([str(tmp_path / "clips")], tmp_path / "out", base, options)
    assert (end.clips, end.done, end.bad) == (6, 6, 0)
    for row, path in zip(rows_of(tmp_path / "out"), files, strict=True):
        samples, rate = read(path)
        assert (row.header.sample_rate, row.header.channels) == (rate, len(samples))
        assert row.header.tokenizer_id == base.tokenizer_id
        np.testing.assert_array_equal(row.tokens, tokens_of(base, path))
