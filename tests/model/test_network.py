"""A batch is cut into excerpts at once, and a call reads values from the device once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from melcap.codec import Codec
from melcap.errors import InputError
from tests.helpers import SMALL, cut_as_on_a_gpu, examples, noise

UNIT = SMALL.column_samples


def excerpt_of(clip: Tensor, begin: int, end: int) -> Tensor:
    """Return an excerpt of one clip, sample by sample."""
    samples = clip.float().clamp(-1, 1).tolist()
    inside = range(len(samples))
    return torch.tensor([samples[at] if at in inside else 0.0 for at in range(begin, end)])


@settings(max_examples=examples(100))
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.integers(-60, 60),
    st.integers(1, 90),
    st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    st.integers(0, 20),
)
def test_excerpts_of_a_batch(
    codec: Codec, lengths: list[int], begin: int, size: int, dtype: torch.dtype, after: int
) -> None:
    """The batch may be longer than these clips, and what follows a clip may be NaN."""
    batch = torch.full((len(lengths), max(lengths) + after), torch.nan, dtype=dtype)
    for row, length in zip(batch, lengths, strict=True):
        row[:length] = noise(length, seed=length, amplitude=0.8)
    found = codec._excerpt(batch, lengths, begin, begin + size)
    expected = [
        excerpt_of(clip[:length], begin, begin + size)
        for clip, length in zip(batch, lengths, strict=True)
    ]
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.stack(expected))


class Counting(TorchDispatchMode):
    """A block in which the operations of torch are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("ends", [(0, 0), (0, 1)])
def test_a_larger_batch_launches_no_more_operations(
    codec: Codec, monkeypatch: pytest.MonkeyPatch, ends: tuple[int, int]
) -> None:
    cut_as_on_a_gpu(monkeypatch)
    counts = []
    for clips in (2, 9):
        wave = noise(clips, 2 * UNIT)
        lengths = [wave.shape[1] - 100 * ends[index % 2] for index in range(clips)]
        codec.encode(wave, 44100, lengths)
        with Counting() as operations:
            codec.encode(wave, 44100, lengths)
        counts.append(operations.count)
    assert counts[0] == counts[1]


@contextmanager
def reading() -> Iterator[Counter[str]]:
    """Count the calls that read values of tensors, each of which waits for a GPU."""
    seen: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(Tensor, name)

        def call(tensor: Tensor, *arguments: Any) -> Any:
            seen[name] += 1
            return original(tensor, *arguments)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("tolist", "item", "__bool__", "__int__", "__float__", "__index__"):
            patch.setattr(Tensor, name, counted(name))
        yield seen


@pytest.mark.parametrize("lengths", [None, (2 * UNIT, UNIT, 5)])
def test_a_call_reads_values_once(codec: Codec, lengths: tuple[int, ...] | None) -> None:
    wave = noise(3, 2 * UNIT)
    codec.encode(wave, 44100)  # the id of the tokenizer is computed
    with reading() as seen:
        codes = codec.encode(wave, 44100, lengths)
    assert seen.total() == (1 if lengths is None else 2), "the lengths, which are on the CPU"
    with reading() as seen:
        codec.decode(codes)
    assert seen.total() == 1


def test_nan_is_found_in_any_clip(codec: Codec) -> None:
    wave = noise(3, 2 * UNIT)
    wave[1, 700] = torch.inf
    wave[2, 30] = torch.nan
    with pytest.raises(InputError, match="clip 1 has NaN or infinity, first at sample 700"):
        codec.encode(wave, 44100)
    with pytest.raises(InputError, match="clip 2 has NaN or infinity, first at sample 30"):
        codec.encode(wave, 44100, (2 * UNIT, 700, 31))
    tokens = codec.encode(wave, 44100, (2 * UNIT, 700, 30)).tokens
    expected = codec.encode(wave.nan_to_num(0.5, 0.5), 44100, (2 * UNIT, 700, 30)).tokens
    assert torch.equal(tokens, expected)
