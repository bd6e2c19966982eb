"""Captured CUDA graphs are reused and discarded as they should, and do not change results.

Without a device, a capture runs its function again on the memory that it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

import melcap
from melcap.codec import Codec
from melcap.errors import BackendError
from melcap.model import cuda_graphs, network
from melcap.model.cuda_graphs import Capture, GraphedFunction
from tests.helpers import SMALL, cut_as_on_a_gpu, examples, noise, waves

gpu = pytest.mark.gpu
UNIT = SMALL.column_samples


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Replace the capture, which needs a device, and return the shapes that were captured."""
    shapes: list[tuple[int, ...]] = []

    def capture(function: Callable[[Tensor], Tensor], x: Tensor, pool: Any) -> Capture:
        shapes.append(tuple(x.shape))
        given = torch.full_like(x, -1)
        made = torch.full_like(function(x), -1)

        def replay() -> None:
            made.copy_(function(given))

        return Capture(given, made, replay)

    monkeypatch.setattr(cuda_graphs, "capture", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(cuda_graphs, "registry", SimpleNamespace(choose=lambda device: "triton"))
    return shapes


def test_a_shape_is_captured_once_and_results_are_the_callers_own(
    captured: list[tuple[int, ...]],
) -> None:
    double = GraphedFunction(lambda x: 2 * x, [])
    inputs = [noise(3, seed=1), noise(3, seed=2), noise(2, 3), noise(3, seed=3)]
    results = [double(x) for x in inputs]
    for x, found in zip(inputs, results, strict=True):
        assert torch.equal(found, 2 * x)
    assert captured == [(3,), (2, 3)]
    assert double(torch.arange(3)).tolist() == [0, 2, 4]
    assert captured[2:] == [(3,)]


def test_changed_weights_are_captured_again(captured: list[tuple[int, ...]]) -> None:
    weight = torch.ones(1)
    table = {weight._version: weight.clone()}

    def product(x: Tensor) -> Tensor:
        """Multiply by a table that is made from the weight when a capture begins."""
        return x * table[max(table)]

    times = GraphedFunction(product, [weight])
    assert float(times(torch.ones(1))) == 1
    weight.fill_(5)
    table[weight._version] = weight.clone()
    assert float(times(torch.ones(1))) == 5
    assert float(times(torch.ones(1))) == 5
    assert captured == [(1,), (1,)]
    weight.data = torch.full((1,), 7.0)  # the version stays
    table[weight._version] = weight.clone()
    assert float(times(torch.ones(1))) == 7
    assert len(captured) == 3


def test_the_least_recently_used_graph_is_discarded_first(
    captured: list[tuple[int, ...]],
) -> None:
    double = GraphedFunction(lambda x: 2 * x, [], max_graphs=2)
    for size in (1, 2, 1, 3, 1, 2):
        assert torch.equal(double(torch.ones(size)), torch.full((size,), 2.0))
    assert captured == [(1,), (2,), (3,), (2,)]


def test_a_failed_capture_is_an_error(
    captured: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Capture:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graphs, "capture", refuse)
    with pytest.raises(BackendError, match=r"not permitted.*use_graphs\(False\)"):
        GraphedFunction(lambda x: x, [])(torch.ones(1))


def test_the_reference_is_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "capture", None)
    with melcap.use_backend("torch"):
        assert float(GraphedFunction(lambda x: 2 * x, [])(torch.ones(1))) == 2


def test_graphs_are_refused_on_a_cpu(small_weights: Path) -> None:
    with pytest.raises(BackendError, match="this one is on cpu"):
        melcap.load(small_weights).use_graphs()


def with_graphs(codec: Codec) -> Codec:
    """Give a codec graphs, as `use_graphs` does on a device."""
    watched = [*codec.parameters(), *codec.buffers()]
    codec._graphs = (
        GraphedFunction(codec._tokens_of, watched),
        GraphedFunction(codec._samples_of, watched),
    )
    return codec


@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(waves(longest=9 * UNIT, batch=3))
def test_tokens_and_samples_are_the_same(
    codec: Codec, small_weights: Path, captured: list[tuple[int, ...]], wave: Tensor
) -> None:
    graphed = with_graphs(melcap.load(small_weights))
    graphed.chunk_columns = 6
    lengths = [max(1, wave.shape[1] // (index + 1)) for index in range(len(wave))]
    codes = graphed.encode(wave, 44100, lengths)
    expected = codec.encode(wave, 44100, lengths)
    assert torch.equal(codes.tokens, expected.tokens)
    assert codes.columns == expected.columns
    found = graphed.decode(codes)
    torch.testing.assert_close(found, codec.decode(expected), atol=1e-5, rtol=0)


def test_few_sizes_are_captured(small_weights: Path, captured: list[tuple[int, ...]]) -> None:
    graphed = with_graphs(melcap.load(small_weights))
    graphed.chunk_columns = 8
    for columns in range(1, 18):
        graphed.decode(graphed.encode(noise(columns * UNIT - 5), 44100))
    assert len(captured) == 2 * 4, "1, 2, 4 and 8 columns, each way"


@pytest.mark.slow
def test_a_large_batch_is_taken_in_pieces_of_two_shapes(
    small_weights: Path, captured: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips that are longer than a chunk go through in groups of the same size."""
    cut_as_on_a_gpu(monkeypatch)
    monkeypatch.setattr(network, "GPU_CHUNKS", 3)
    plain = melcap.load(small_weights)
    graphed = with_graphs(melcap.load(small_weights))
    plain.chunk_columns = graphed.chunk_columns = 8
    for columns in (8, 16):
        wave = noise(8, columns * UNIT, seed=columns)
        codes = plain.encode(wave, 44100)
        assert torch.equal(graphed.encode(wave, 44100).tokens, codes.tokens)
        torch.testing.assert_close(graphed.decode(codes), plain.decode(codes), atol=1e-5, rtol=0)
    assert [shape[0] for shape in captured] == [3, 2, 3, 2]


def test_a_capture_allows_other_threads_to_allocate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the mode that is passed to CUDA; only a device can show its effect."""
    told: list[dict[str, Any]] = []

    @contextmanager
    def within(*_: Any, **options: Any) -> Iterator[None]:
        told.append(options)
        yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    cuda = SimpleNamespace(
        device=lambda device: nullcontext(),
        Stream=lambda: stream,
        current_stream=lambda: stream,
        stream=lambda stream: nullcontext(),
        CUDAGraph=lambda: SimpleNamespace(replay=lambda: None),
        graph=within,
    )
    monkeypatch.setattr(cuda_graphs, "torch", SimpleNamespace(cuda=cuda))
    found = cuda_graphs.capture(lambda x: 2 * x, torch.ones(2), "a pool")
    assert found.static_output.tolist() == [2, 2]
    assert told == [{"pool": "a pool", "capture_error_mode": "thread_local"}]


def test_converting_a_codec_discards_its_graphs(
    small_weights: Path, captured: list[tuple[int, ...]]
) -> None:
    graphed = with_graphs(melcap.load(small_weights))
    graphed.encode(noise(UNIT), 44100)
    assert graphed.double()._graphs is None


@gpu
def test_graphs_are_bit_exact_on_a_device() -> None:
    codec = melcap.load(device="cuda")
    batches = [noise(2, 44100 * seconds, seed=seconds).cuda() for seconds in (1, 2, 7)]
    plain = [codec.encode(batch, 44100) for batch in batches]
    waves_plain = [codec.decode(codes) for codes in plain]
    codec.use_graphs()
    for _ in range(2):
        for batch, codes, wave in zip(batches, plain, waves_plain, strict=True):
            assert torch.equal(codec.encode(batch, 44100).tokens, codes.tokens)
            assert torch.equal(codec.decode(codes), wave)
    with torch.no_grad():
        codec.codebook.vectors.copy_(codec.codebook.vectors.flip(0))
    changed = codec.encode(batches[0], 44100)
    assert torch.equal(changed.tokens, codec.use_graphs(False).encode(batches[0], 44100).tokens)
