"""CUDA graphs are recorded, reused and discarded as they should, and do not change results.

Without a device, a recording runs its function again on the memory that it keeps.
"""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

import melcap
from melcap.bench.agreement import LARGEST_ERROR
from melcap.codec import Codec
from melcap.errors import BackendError
from melcap.model import cuda_graphs, network
from melcap.model.cuda_graphs import Capture, GraphedFunction
from melcap.model.network import Graphs, Network, filled
from melcap.ops import registry
from tests.helpers import SMALL, cut_as_on_a_gpu, examples, noise, waves

gpu = pytest.mark.gpu
UNIT = SMALL.column_samples


@pytest.fixture
def steps() -> list[str]:
    """Return what was done on streams, in order."""
    return []


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, steps: list[str]) -> list[tuple[int, ...]]:
    """Replace all that needs a device, and return the shapes that were recorded."""
    shapes: list[tuple[int, ...]] = []

    def capture(function: Callable[[Tensor], Tensor], x: Tensor, pool: Any) -> Capture:
        shapes.append(tuple(x.shape))
        given = torch.full_like(x, -1)
        made = torch.full_like(function(x), -1)

        def replay() -> None:
            steps.append("replay")
            made.copy_(function(given))

        return Capture(given, made, replay)

    stream = SimpleNamespace(wait_event=lambda event: steps.append("wait"))
    event = SimpleNamespace(
        record=lambda stream: steps.append("record"),
        synchronize=lambda: steps.append("wait on the host"),
    )
    monkeypatch.setattr(cuda_graphs, "capture", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    on = property(lambda network: network._graphs is not None)
    monkeypatch.setattr(Network, "uses_graphs", on)
    return shapes


class Scale(nn.Module):
    """A network whose only layer multiplies by a weight."""

    def __init__(self, weight: float = 2.0) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        self.layer.weight.requires_grad_(False).fill_(weight)

    @property
    def weight(self) -> Tensor:
        return self.layer.weight

    def product(self, x: Tensor) -> Tensor:
        return x * self.weight.view(())


def graphed(required: bool = False) -> GraphedFunction[Scale]:
    return GraphedFunction(Scale.product, ("layer",), required)


def uses(double: GraphedFunction[Scale], scale: Scale, *sizes: int) -> None:
    """Call a function with inputs of these sizes, and check its results."""
    for number, size in enumerate(sizes):
        x = noise(size, seed=number)
        assert torch.equal(double(scale, x), x * scale.weight.view(()))


class TestFunction:
    """A function with one graph for each shape."""

    def test_a_shape_is_recorded_at_its_second_use(self, recorded: list[tuple[int, ...]]) -> None:
        double, scale = graphed(), Scale()
        inputs = [noise(3, seed=1), noise(2, 3), noise(3, seed=2), noise(3, seed=3)]
        results = [double(scale, x) for x in inputs]
        for x, found in zip(inputs, results, strict=True):
            assert torch.equal(found, 2 * x), "results are the caller's own"
        assert recorded == [(3,)]
        for _ in range(3):
            assert double(scale, torch.arange(3.0).double()).tolist() == [0, 2, 4]
        assert recorded == [(3,), (3,)], "another dtype"

    def test_a_replay_waits_for_the_one_before(
        self, recorded: list[tuple[int, ...]], steps: list[str]
    ) -> None:
        uses(graphed(), Scale(), 1, 1, 1)
        assert steps == ["wait", "replay", "record"] * 2

    def test_threads_share_the_memory_of_a_graph(
        self, recorded: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One thread at a time copies its input, replays, and copies the result."""
        record = cuda_graphs.capture

        def slow(*arguments: Any) -> Capture:
            found = record(*arguments)

            def replay() -> None:
                time.sleep(1e-3)
                found.replay()
                time.sleep(1e-3)

            return Capture(found.static_input, found.static_output, replay)

        monkeypatch.setattr(cuda_graphs, "capture", slow)
        double, scale = graphed(), Scale()

        def call(number: int) -> bool:
            x = torch.full((3,), float(number))
            return torch.equal(double(scale, x), 2 * x)

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(call, range(40)))
        assert recorded == [(3,)]

    @pytest.mark.parametrize("how", ["in place", "other memory", "parameter", "module"])
    def test_changed_weights_are_recorded_again(
        self, recorded: list[tuple[int, ...]], how: str
    ) -> None:
        table: dict[int, Tensor] = {}

        def product(scale: Scale, x: Tensor) -> Tensor:
            """Multiply by a table that is made from the weight when a recording begins."""
            return x * table.setdefault(len(recorded), scale.weight.view(()).clone())

        times, scale = GraphedFunction(product, ("layer",)), Scale(1)
        for _ in range(3):
            assert float(times(scale, torch.ones(1))) == 1
        table.clear()
        weight = torch.full((1, 1), 7.0)
        if how == "in place":
            scale.layer.weight.copy_(weight)
        elif how == "other memory":
            scale.layer.weight.data = weight  # the version stays
        elif how == "parameter":
            scale.layer.weight = nn.Parameter(weight, requires_grad=False)
        else:
            scale.layer = Scale(7).layer
        for _ in range(3):
            assert float(times(scale, torch.ones(1))) == 7
            table.clear()
        assert recorded == [(1,), (1,)]

    def test_weights_that_change_at_every_call_are_not_recorded(
        self, recorded: list[tuple[int, ...]]
    ) -> None:
        double, scale = graphed(), Scale()
        for _ in range(5):
            uses(double, scale, 3)
            scale.weight.mul_(1.5)
        assert recorded == []

    def test_the_least_recently_used_graph_is_discarded_first(
        self,
        recorded: list[tuple[int, ...]],
        steps: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(cuda_graphs, "MOST_GRAPHS", 2)
        double, scale = graphed(), Scale()
        uses(double, scale, 1, 1, 2, 2, 1, 3)
        assert "wait on the host" not in steps
        uses(double, scale, 3)
        assert steps.count("wait on the host") == 1, "the device may still be running it"
        uses(double, scale, 1, 2, 2)
        assert recorded == [(1,), (2,), (3,), (2,)]
        assert len(double._captures) == 2

    def test_a_pool_of_memory_ends_with_its_graphs(
        self, recorded: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """PyTorch refuses a pool that no graph uses any more, as long as memory of it is in use."""
        record, pools = cuda_graphs.capture, []

        def capture(function: Callable[[Tensor], Tensor], x: Tensor, pool: Any) -> Capture:
            pools.append(pool)
            return record(function, x, pool)

        monkeypatch.setattr(cuda_graphs, "capture", capture)
        double, scale = graphed(), Scale()
        uses(double, scale, 1, 1, 2, 2)
        scale.weight.mul_(2)
        uses(double, scale, 1, 1)
        assert pools[0] is pools[1] is not pools[2]

    def test_shapes_that_were_used_once_are_not_remembered_without_end(
        self, recorded: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cuda_graphs, "MOST_SHAPES", 4)
        double, scale = graphed(), Scale()
        uses(double, scale, *range(1, 20))
        assert len(double._used_once) <= 4
        assert recorded == []

    def test_a_graph_is_not_used_for_other_kernels(
        self, recorded: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        double, scale = graphed(), Scale()
        uses(double, scale, 3, 3)
        monkeypatch.setenv(registry.SWITCH, "log_mel")
        uses(double, scale, 3)
        assert recorded == [(3,)]
        uses(double, scale, 3)
        assert recorded == [(3,), (3,)]
        registry.register("log_mel", "torch", registry.implementation("log_mel", "torch"))
        uses(double, scale, 3)
        assert len(recorded) == 2

    def test_a_failed_recording_is_an_error_where_graphs_are_required(
        self, recorded: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cuda_graphs, "capture", refuse)
        double, scale = graphed(required=True), Scale()
        uses(double, scale, 3)
        for _ in range(2):
            with pytest.raises(BackendError, match=r"not permitted.*use_graphs\(False\)"):
                double(scale, torch.ones(3))

    def test_a_failed_recording_is_logged_once(
        self,
        recorded: list[tuple[int, ...]],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        double, scale = graphed(), Scale()
        uses(double, scale, 1, 1)
        monkeypatch.setattr(cuda_graphs, "capture", refuse)
        with caplog.at_level(logging.WARNING, logger="melcap"):
            uses(double, scale, 3, 3, 3, 2, 2, 1)
        (line,) = [record.getMessage() for record in caplog.records]
        assert "not permitted when stream is capturing" in line
        assert "without graphs" in line
        assert double.failed
        assert not double._captures


def refuse(*_: Any) -> Capture:
    raise RuntimeError("operation not permitted when stream is capturing")


def test_a_recording_allows_other_threads_to_allocate(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_there_is_one_recording_at_a_time(
    recorded: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two codecs do not record on the same stream, which belongs to the process."""
    record, running, most = cuda_graphs.capture, [], []

    def slow(*arguments: Any) -> Capture:
        running.append(1)
        time.sleep(5e-3)
        most.append(len(running))
        running.pop()
        return record(*arguments)

    monkeypatch.setattr(cuda_graphs, "capture", slow)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: uses(graphed(), Scale(), 3, 3), range(4)))
    assert most == [1, 1, 1, 1]


class TestCodec:
    """A codec whose short inputs run as graphs."""

    @settings(
        max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(waves(longest=9 * UNIT, batch=3))
    def test_tokens_and_samples_are_the_same(
        self, codec: Codec, small_weights: Path, recorded: list[tuple[int, ...]], wave: Tensor
    ) -> None:
        other = melcap.load(small_weights)
        other.chunk_columns = 6
        lengths = [max(1, wave.shape[1] // (index + 1)) for index in range(len(wave))]
        with graphs_off():
            expected = codec.encode(wave, 44100, lengths)
            samples = codec.decode(expected)
        for _ in range(3):
            codes = other.encode(wave, 44100, lengths)
            assert torch.equal(codes.tokens, expected.tokens)
            assert codes.tokens.is_contiguous()
            assert codes.columns == expected.columns
            torch.testing.assert_close(other.decode(codes), samples, atol=1e-5, rtol=0)
        assert recorded

    def test_few_sizes_are_recorded(
        self, small_weights: Path, recorded: list[tuple[int, ...]]
    ) -> None:
        codec = melcap.load(small_weights)
        for _ in range(2):
            for columns in (1, 7, 8, 9, 17):
                codec.decode(codec.encode(noise(columns * UNIT - 5), 44100))
        assert len(recorded) == 2 * 3, "8, 16 and 24 columns, each way"

    def test_short_inputs_alone_run_as_graphs(
        self,
        small_weights: Path,
        recorded: list[tuple[int, ...]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        cut_as_on_a_gpu(monkeypatch)
        monkeypatch.setattr(network, "GRAPH_COLUMNS", 16)
        codec = melcap.load(small_weights)
        for clips, columns in ((2, 9), (3, 1), (1, 17)):
            for _ in range(2):
                codec.decode(codec.encode(noise(clips, columns * UNIT), 44100))
        assert recorded == []
        for clips, columns in ((2, 8), (1, 16), (1, 9)):
            for _ in range(2):
                codec.decode(codec.encode(noise(clips, columns * UNIT), 44100))
        assert [shape[0] for shape in recorded] == [2, 2, 1, 1], "both ways of two shapes"

    def test_columns_are_filled_up(self) -> None:
        assert [filled(columns) for columns in (1, 8, 9, 64, 65, 1024)] == [8, 8, 16, 64, 96, 1024]
        assert all(filled(columns) >= columns for columns in range(1, 1025))
        assert len({filled(columns) for columns in range(1, 1025)}) == 38

    def test_where_they_are_used(
        self, small_weights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        codec, chosen = melcap.load(small_weights), ["triton"]
        monkeypatch.setattr(registry, "choose", lambda device: chosen[0])
        assert not codec.uses_graphs, "it is on a CPU"
        monkeypatch.setattr(Network, "device", torch.device("cuda"))
        assert codec.uses_graphs
        assert not codec.use_graphs(False).uses_graphs
        assert codec.use_graphs().uses_graphs
        chosen[0] = "torch"
        assert not codec.uses_graphs, "the reference reads values on the host"
        chosen[0] = "triton"
        assert codec._graphs is not None
        codec._graphs.decode.failed = True
        assert not codec.uses_graphs
        assert codec.use_graphs().uses_graphs

    def test_in_float64_they_are_not_used(
        self, small_weights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        codec = melcap.load(small_weights).double()
        monkeypatch.setattr(registry, "choose", lambda device: "triton")
        monkeypatch.setattr(Network, "device", torch.device("cuda"))
        assert not codec.uses_graphs

    def test_by_name_they_are_required(
        self, small_weights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        codec = melcap.load(small_weights)
        with pytest.raises(BackendError, match="this one is on cpu"):
            codec.use_graphs()
        assert [way.required for way in graphs_of(codec)] == [False, False]
        monkeypatch.setattr(Network, "device", torch.device("cuda"))
        assert [way.required for way in graphs_of(codec.use_graphs())] == [True, True]

    def test_converting_it_discards_its_graphs(
        self, small_weights: Path, recorded: list[tuple[int, ...]]
    ) -> None:
        codec = melcap.load(small_weights)
        codec._graphs = Graphs.none_yet(required=True)
        with_graphs(codec)
        assert [len(way._captures) for way in graphs_of(codec)] == [1, 1]
        assert [len(way._captures) for way in graphs_of(codec.float())] == [0, 0]
        assert graphs_of(codec).encode.required
        assert codec.use_graphs(False).float()._graphs is None

    @pytest.mark.parametrize(
        "copied", [copy.deepcopy, lambda codec: pickle.loads(pickle.dumps(codec))]
    )
    def test_a_copy_has_no_graphs(
        self,
        small_weights: Path,
        recorded: list[tuple[int, ...]],
        copied: Callable[[Codec], Codec],
    ) -> None:
        codec = with_graphs(melcap.load(small_weights))
        other = copied(codec)
        assert [len(way._captures) for way in graphs_of(codec)] == [1, 1]
        assert [len(way._captures) for way in graphs_of(other)] == [0, 0]
        assert other.tokenizer_id == codec.tokenizer_id
        with torch.no_grad():
            other.codebook.vectors.copy_(codec.codebook.vectors.flip(0))
        tokens = codec.encode(noise(UNIT), 44100).tokens
        flipped = SMALL.tokenizer.codebook_size - 1 - tokens
        for _ in range(3):
            assert torch.equal(codec.encode(noise(UNIT), 44100).tokens, tokens)
            assert torch.equal(other.encode(noise(UNIT), 44100).tokens, flipped)

    def test_graphs_do_not_keep_it_alive(
        self,
        small_weights: Path,
        recorded: list[tuple[int, ...]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Its memory is freed with the last reference, and not when garbage is collected."""

        def capture(function: Callable[[Tensor], Tensor], x: Tensor, pool: Any) -> Capture:
            return Capture(x.clone(), function(x), lambda: None)

        monkeypatch.setattr(cuda_graphs, "capture", capture)
        codec = with_graphs(melcap.load(small_weights))
        weight = weakref.ref(codec.codebook.vectors)
        gc.disable()
        try:
            del codec
            assert weight() is None
        finally:
            gc.enable()


@contextmanager
def graphs_off() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "uses_graphs", False)
        yield


def graphs_of(codec: Codec) -> Graphs:
    assert codec._graphs is not None
    return codec._graphs


def with_graphs(codec: Codec) -> Codec:
    """Return the codec after it has recorded a graph for each way."""
    for _ in range(2):
        codec.decode(codec.encode(noise(UNIT), 44100))
    return codec


@gpu
class TestDevice:
    """Tests that only a device can run."""

    def test_replays_are_bit_exact(self) -> None:
        """At the first use kernels are launched one by one, at the third a graph is replayed."""
        codec = melcap.load(device="cuda")
        batches = [noise(2, 44100 * seconds, seed=seconds).cuda() for seconds in (1, 2, 7)]
        first = [codec.encode(batch, 44100) for batch in batches]
        samples = [codec.decode(codes) for codes in first]
        assert codec.uses_graphs
        for _ in range(2):
            for batch, codes, wave in zip(batches, first, samples, strict=True):
                assert torch.equal(codec.encode(batch, 44100).tokens, codes.tokens)
                assert torch.equal(codec.decode(codes), wave)
        assert [len(way._captures) for way in graphs_of(codec)] == [3, 3]
        assert codec.uses_graphs
        codec.use_graphs(False)
        for batch, codes, wave in zip(batches, first, samples, strict=True):
            other = codec.encode(batch, 44100).tokens  # of fewer columns, which may round otherwise
            assert int((other != codes.tokens).sum()) <= 1e-3 * other.numel() + 1
            assert float((codec.decode(codes) - wave).abs().max()) <= LARGEST_ERROR

    def test_changed_weights_are_noticed(self) -> None:
        codec, wave = melcap.load(device="cuda"), noise(2, 44100).cuda()
        codes = [codec.encode(wave, 44100) for _ in range(3)][-1]
        with torch.no_grad():
            codec.codebook.vectors.copy_(codec.codebook.vectors.flip(0))
        for _ in range(3):
            flipped = codec.vocab_size - 1 - codec.encode(wave, 44100).tokens
            # Where two entries are equally near, the lower index is taken.
            assert int((flipped != codes.tokens).sum()) <= 1

    def test_threads_with_streams_of_their_own(self) -> None:
        codec = melcap.load(device="cuda")
        clips = [noise(44100, seed=seed).cuda() for seed in range(8)]
        expected = [codec.encode(clip, 44100) for clip in clips]
        samples = [codec.decode(codes) for codes in expected]
        torch.cuda.synchronize()
        barrier = threading.Barrier(4, timeout=60)

        def call(first: int) -> None:
            with torch.cuda.stream(torch.cuda.Stream()):
                for number in range(100):
                    barrier.wait()
                    index = (first + number) % len(clips)
                    found = codec.encode(clips[index], 44100)
                    assert torch.equal(found.tokens, expected[index].tokens)
                    assert torch.equal(codec.decode(found), samples[index])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(call, range(4)))

    def test_threads_record_at_the_same_time(self) -> None:
        """A recording does not disturb threads that launch, allocate or record, nor they it."""
        codecs = [melcap.load(device="cuda").use_graphs() for _ in range(3)]

        def call(codec: Codec) -> list[Tensor]:
            clips = [noise(2048 * columns, seed=columns).cuda() for columns in (8, 16, 24)]
            return [codec(clip, 44100) for _ in range(3) for clip in clips]

        with ThreadPoolExecutor(3) as pool:
            first, *others = pool.map(call, codecs)
        for other in others:
            assert all(torch.equal(one, found) for one, found in zip(first, other, strict=True))

    def test_a_function_that_reads_values_runs_without_graphs(self) -> None:
        """In another process, because PyTorch's allocator does not recover from it."""
        script = """
import torch
from melcap.model.cuda_graphs import GraphedFunction

def scaled(layer, x):
    return x * float(layer[0].weight)

scale = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False)).cuda().requires_grad_(False)
scale[0].weight.fill_(2)
graphed = GraphedFunction(scaled, ("0",))
for _ in range(4):
    assert graphed(scale, torch.ones(3, device="cuda")).tolist() == [2, 2, 2]
assert graphed.failed
"""
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("cannot be recorded as a CUDA graph") == 1

    @pytest.mark.parametrize("lengths", [None, (44100, 30000, 7)])
    def test_a_call_waits_for_the_device_once(self, lengths: tuple[int, ...] | None) -> None:
        codec, wave = melcap.load(device="cuda"), noise(3, 44100).cuda()
        for _ in range(3):
            codes = codec.encode(wave, 44100, lengths)
            codec.decode(codes)
        assert waits(lambda: codec.encode(wave, 44100, lengths)) == 1
        assert waits(lambda: codec.decode(codes)) == 1

    def test_a_copy_works(self) -> None:
        codec, wave = melcap.load(device="cuda"), noise(44100).cuda()
        tokens = [codec.encode(wave, 44100).tokens for _ in range(3)][-1]
        other = copy.deepcopy(codec)
        del codec
        for _ in range(3):
            assert torch.equal(other.encode(wave, 44100).tokens, tokens)


def waits(call: Callable[[], object]) -> int:
    """Return how often a call waits for the device."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(each.message) for each in seen)
