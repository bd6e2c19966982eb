"""`Codec.decode_tokens` takes integers of any type and number, and handles wrong ids as asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from melcap import Codes
from melcap.codec import Codec
from melcap.errors import InputError
from melcap.flat_tokens import grid_of
from tests.helpers import SMALL, examples, noise, sample_rates

UNIT = SMALL.column_samples


@pytest.fixture(scope="module")
def flat(codec: Codec) -> list[int]:
    """Return four columns of tokens."""
    (found,) = codec.encode(noise(4 * UNIT), 44100).flatten()
    return [int(token) for token in found]


@pytest.fixture(scope="module")
def expected(codec: Codec) -> Tensor:
    return codec.decode(codec.encode(noise(4 * UNIT), 44100))


FORMS: list[Any] = [
    list,
    tuple,
    np.array,
    lambda flat: np.array(flat, np.uint16),
    lambda flat: np.array(flat, ">i4"),
    torch.tensor,
    lambda flat: torch.tensor(flat, dtype=torch.int16),
]


@pytest.mark.parametrize("form", FORMS)
def test_integers_of_any_type(codec: Codec, flat: list[int], expected: Tensor, form: Any) -> None:
    assert torch.equal(codec.decode_tokens(form(flat)), expected)


@pytest.mark.parametrize("more", [1, 2])
def test_the_audio_ends_with_the_last_whole_column(
    codec: Codec, flat: list[int], expected: Tensor, more: int
) -> None:
    assert torch.equal(codec.decode_tokens(flat + flat[:more]), expected)
    assert codec.decode_tokens(flat[:more]).shape == (0,)
    assert codec.decode_tokens([]).shape == (0,)
    assert codec.decode_tokens([], sample_rate=16000).dtype == torch.float32


@settings(max_examples=examples(40))
@given(st.integers(1, 12), sample_rates())
def test_audio_at_any_rate_is_as_long_as_the_columns(codec: Codec, columns: int, rate: int) -> None:
    """The audio is as long as the columns, to the last whole sample."""
    (flat,) = codec.encode(noise(columns * UNIT), 44100).flatten()
    length = columns * UNIT * rate // 44100
    codes = Codes.from_flat([flat], codec.rows, [length], rate, codec.tokenizer_id)
    found = codec.decode_tokens(flat, rate)
    assert found.shape == (length,)
    assert torch.equal(found, codec.decode(codes)[0])


def test_grids_of_any_axes(codec: Codec) -> None:
    wave = noise(2, 3, 5 * UNIT)
    codes = codec.encode(wave, 44100)
    found = codec.codes_of(codes.numpy())
    assert torch.equal(found.tokens, codes.tokens)
    assert (found.lengths, found.tokenizer_id) == (codes.lengths, codec.tokenizer_id)
    assert codec.codes_of(codes.tokens, 8000).lengths == (5 * UNIT * 8000 // 44100,) * 6
    for wrong in (codes.tokens.mT, codes.tokens[0, 0, 0], codes.tokens[..., :0], [1.0]):
        with pytest.raises(InputError, match=r"tokens must be (integers|\[\.\.\., 3, columns\])"):
            codec.codes_of(wrong)


INVALID = [-1, 300, 2**31, -(2**40)]


@pytest.mark.parametrize("wrong", INVALID)
def test_a_wrong_id_is_an_error(codec: Codec, flat: list[int], wrong: int) -> None:
    ids = [*flat[:5], wrong, *flat[5:]]
    with pytest.raises(InputError, match=f"id {wrong} at position 5 .* 0 to 299"):
        codec.decode_tokens(ids)


@pytest.mark.parametrize("wrong", INVALID)
def test_a_wrong_id_is_left_out(
    codec: Codec, flat: list[int], expected: Tensor, wrong: int
) -> None:
    ids = [wrong, *flat[:5], wrong, wrong, *flat[5:], wrong]
    assert torch.equal(codec.decode_tokens(ids, on_invalid="drop"), expected)
    assert codec.decode_tokens([wrong] * 9, on_invalid="drop").shape == (0,)


@pytest.mark.parametrize("wrong", INVALID)
def test_a_wrong_id_becomes_silence_of_its_row(codec: Codec, flat: list[int], wrong: int) -> None:
    for at in range(6):
        ids, right = flat.copy(), flat.copy()
        ids[at], right[at] = wrong, int(codec.silence[at % 3])
        found = codec.decode_tokens(ids, on_invalid="silence")
        assert torch.equal(found, codec.decode_tokens(right))


@settings(max_examples=examples(60))
@given(st.lists(st.integers(-3, 12), max_size=40), st.integers(1, 5))
def test_grid_of_equals_loops(ids: list[int], rows: int) -> None:
    quiet = torch.arange(rows) % 10
    right = [id if 0 <= id < 10 else int(quiet[at % rows]) for at, id in enumerate(ids)]
    kept = [id for id in ids if 0 <= id < 10]
    for policy, flat in (("silence", right), ("drop", kept)):
        grid = grid_of(ids, quiet, 10, policy)  # type: ignore[arg-type]
        assert grid.shape == (rows, len(flat) // rows)
        for row in range(rows):
            for column in range(grid.shape[1]):
                assert grid[row, column] == flat[column * rows + row]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([[1, 2, 3]], r"one flat sequence, not int64 \[1, 3\].*codes_of"),
        ([1.0, 2.0, 3.0], "ids must be integers"),
        (torch.zeros(3, dtype=torch.bool), "ids must be integers, not bool"),
        (7, "one flat sequence"),
        ("talk", "not an array of numbers|integers"),
    ],
)
def test_other_shapes_and_types_are_refused(codec: Codec, ids: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        codec.decode_tokens(ids)
    assert "\n" not in str(caught.value)


def test_wrong_settings_are_refused(codec: Codec) -> None:
    with pytest.raises(InputError, match="one of error, silence, drop, not 'ignore'"):
        codec.decode_tokens([1, 2, 3], on_invalid="ignore")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rate must be"):
        codec.decode_tokens([1, 2, 3], sample_rate=5)
