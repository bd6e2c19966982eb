"""Settings of the process, such as autocast and default dtypes, do not change results."""

from __future__ import annotations

import contextlib
import copy
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import melcap
from melcap.bulk.encoding.encode import encode_windows
from melcap.bulk.reading.messages import Window
from melcap.codec import Codec
from melcap.config import MelSpec
from melcap.model.cuda_graphs import GraphedFunction
from melcap.ops import (
    channel_norm,
    convnext1d,
    griffin_lim,
    log_mel,
    nearest_code,
    precision,
    upsample_conv1d,
)
from melcap.ops.griffin_lim import inverse_window
from melcap.ops.log_mel import mel_filters
from melcap.ops.numerics import hann_window
from melcap.pretrained import save
from tests.forks import FORKS
from tests.helpers import noise, reduced_precision


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


SETTINGS: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "default dtype float16": lambda: default_dtype(torch.float16),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default device meta": lambda: torch.device("meta"),
    "reduced precision": reduced_precision,
    "inference mode": torch.inference_mode,
    "1 thread": lambda: threads(1),
    "3 threads": lambda: threads(3),
}


def streamed(codec: Codec, wave: Tensor) -> list[Tensor]:
    """Encode and decode two channels in pieces."""
    encoder = melcap.StreamEncoder(codec, 16000, 2)
    tokens = [encoder.push(piece) for piece in wave.split(4801, dim=1)] + [encoder.flush()]
    decoder = melcap.StreamDecoder(codec, 16000, 2)
    waves = [decoder.push(piece) for piece in torch.cat(tokens, -1).split(6, dim=-1)]
    return [torch.cat(tokens, -1), torch.cat([*waves, decoder.flush(wave.shape[1])], -1)]


def encoded(codec: Codec, wave: Any, rate: int = 16000) -> list[Tensor]:
    codes = codec.encode(wave, rate)
    return [codes.tokens, codec.decode(codes)]


def windows(codec: Codec) -> list[Tensor]:
    given = [Window(clip, 0, 0, 2 + clip, samples) for clip, samples in enumerate(CLIPS)]
    found = encode_windows(codec, given)
    return [torch.from_numpy(each.tokens.astype(np.int64)) for each in found]


X = noise(2, 24, 37, seed=1)
WAVE = noise(2, 9000)
ROWS = noise(1000, 8)
UP = (noise(24, 10, 8), noise(10), 4)
FRAMES = noise(2, 40, 64 + 65).abs()
LENGTHS = torch.tensor([3001, 9000])
ALPHA = noise(24)
CLIPS = [noise(24 * 1024, seed=5).numpy(), noise(25 * 1024, seed=6).numpy()]
BOOK = noise(300, 8, seed=2)
BLOCK = [noise(*shape, seed=3) for shape in ((24, 1, 7), (24,), (24,), (24,), (48, 24), (48,))]
BLOCK += [noise(*shape, seed=4) for shape in ((24, 48), (24,), (24,))]
SPEC = MelSpec(sample_rate=16000, n_fft=512, hop=128, n_mels=24)
UPSTREAM = noise(2, 24, 71, seed=7)


def with_gradient(operation: Callable[..., Tensor], *arguments: Any) -> list[Tensor]:
    """Return the result where a gradient is asked for, and the gradient."""
    with torch.inference_mode(False), torch.enable_grad():
        x = arguments[0].clone().requires_grad_()
        made = operation(x, *arguments[1:])
        with torch.autocast("cpu", enabled=False):  # autocast rounds any backward pass in it
            made.square().sum().backward()
    assert x.grad is not None
    return [made.detach(), x.grad]


def gradient_of_log_mel() -> list[Tensor]:
    """Compute the gradient, which is a separate operation, under the settings."""
    with torch.inference_mode(False), torch.enable_grad():
        wave = WAVE.clone().requires_grad_()
        return list(torch.autograd.grad(log_mel(wave, SPEC), wave, UPSTREAM))


ENTRIES: dict[str, Callable[[Codec], list[Tensor]]] = {
    "log_mel": lambda _: [log_mel(WAVE, SPEC)],
    "log_mel, lengths": lambda _: [log_mel(WAVE, SPEC, lengths=LENGTHS)],
    "nearest_code": lambda _: [nearest_code(ROWS, BOOK)],
    "upsample_conv1d": lambda _: [upsample_conv1d(X, *UP, activation="snake", alpha=ALPHA)],
    "convnext1d": lambda _: [convnext1d(X, *BLOCK)],
    "griffin_lim": lambda _: [griffin_lim(FRAMES, 128, 32, steps=2)],
    "channel_norm": lambda _: [channel_norm(X, BLOCK[1], BLOCK[2], activation="silu")],
    "convnext1d, learning": lambda _: with_gradient(convnext1d, X, *BLOCK),
    "channel_norm, learning": lambda _: with_gradient(channel_norm, X, BLOCK[1], BLOCK[2]),
    "griffin_lim, learning": lambda _: with_gradient(griffin_lim, FRAMES, 128, 32),
    "log_mel, learning": lambda _: with_gradient(log_mel, WAVE, SPEC),
    "log_mel, gradient": lambda _: gradient_of_log_mel(),
    "upsample_conv1d, learning": lambda _: with_gradient(upsample_conv1d, X, *UP),
    "codec": lambda codec: encoded(codec, WAVE),
    "codec, array": lambda codec: encoded(codec, WAVE.numpy()),
    "codec, list": lambda codec: encoded(codec, WAVE[0, :2000].tolist()),
    "codec, own rate": lambda codec: encoded(codec, WAVE, 44100),
    "streams": lambda codec: streamed(codec, WAVE[:, :7000]),
    "bulk": windows,
    "learn_silence": lambda codec: [codec.learn_silence() or codec.silence],
}


def same(found: list[Tensor], expected: list[Tensor], exact: bool) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.device.type == "cpu"
        assert one.dtype == other.dtype
        if exact or not one.is_floating_point():
            assert torch.equal(one, other)
        else:
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def plain(codec: Codec) -> Callable[[str], list[Tensor]]:
    """Return a function that computes an entry under no setting, once for all settings."""
    return cache(lambda entry: ENTRIES[entry](copy.deepcopy(codec)))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_no_setting_changes_a_result(
    entry: str, setting: str, codec: Codec, plain: Callable[[str], list[Tensor]]
) -> None:
    expected = plain(entry)
    codec = copy.deepcopy(codec)  # one entry writes to it
    # Other threads add up in another order; and gradients follow the switches for TF32.
    exact = "thread" not in setting and ("learning" not in entry or setting != "reduced precision")
    with SETTINGS[setting]():
        found = ENTRIES[entry](codec)
    same(found, expected, exact)
    same(ENTRIES[entry](codec), expected, exact=True)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_codec_loaded_and_saved_under_it_is_the_same(
    setting: str,
    small_weights: Path,
    codec: Codec,
    plain: Callable[[str], list[Tensor]],
    tmp_path: Path,
) -> None:
    with SETTINGS[setting]():
        loaded = melcap.load(small_weights)
        digest = save(loaded, tmp_path / "again.safetensors")
    assert loaded.model == codec.model
    assert digest == save(codec, tmp_path / "plain.safetensors")
    for name, value in codec.state_dict().items():
        found = loaded.state_dict()[name]
        assert torch.equal(found, value), name
        assert found.dtype == value.dtype
        assert not found.is_inference()
    same(encoded(loaded, WAVE), plain("codec"), exact=True)


def learned_after(setting: str) -> list[float]:
    """Sum up what learning gives in this process, whose tables are made under a setting."""
    with SETTINGS[setting]():
        for entry in ("log_mel", "griffin_lim"):
            ENTRIES[entry](None)  # type: ignore[arg-type]
    return [
        float(each.double().square().sum())
        for entry in ("log_mel, learning", "griffin_lim, learning")
        for each in ENTRIES[entry](None)  # type: ignore[arg-type]
    ]


@pytest.mark.slow
def test_tables_made_under_it_serve_without_it() -> None:
    """A process may, for example, begin in inference mode and train later."""
    names = ["1 thread", "inference mode", "default device meta"]
    with FORKS.Pool(1, maxtasksperchild=1) as pool:  # a process without tables for each of them
        found = dict(zip(names, pool.map(learned_after, names, chunksize=1), strict=True))
    assert found == dict.fromkeys(names, found["1 thread"])


@pytest.mark.parametrize("setting", ["default device meta", "default dtype bfloat16"])
def test_tables_have_the_device_and_dtype_asked_for(setting: str) -> None:
    cpu = torch.device("cpu")
    with SETTINGS[setting]():
        made = [
            mel_filters(16000, 334, 17, torch.float64, cpu),
            hann_window(334, torch.float64, cpu),
            inverse_window(336, 84, torch.float64, cpu),
        ]
    assert {(table.device.type, table.dtype) for table in made} == {("cpu", torch.float64)}
    window = torch.hann_window(334, dtype=torch.float64)
    torch.testing.assert_close(made[1], window, atol=0, rtol=0)


@pytest.mark.parametrize("setting", ["inference mode", "autocast to bfloat16"])
def test_a_stream_may_leave_and_enter_it(setting: str, codec: Codec) -> None:
    wave = noise(20000)
    expected = codec.encode(wave[None], 44100)
    encoder, decoder = melcap.StreamEncoder(codec), melcap.StreamDecoder(codec)
    tokens, samples = [], []
    for number, piece in enumerate(wave.split(3000)):
        with SETTINGS[setting]() if number % 2 else contextlib.nullcontext():
            tokens.append(encoder.push(piece))
            samples.append(decoder.push(tokens[-1]))
    tokens.append(encoder.flush())
    samples += [decoder.push(tokens[-1]), decoder.flush(20000)]
    assert torch.equal(torch.cat(tokens, -1), expected.tokens)
    torch.testing.assert_close(torch.cat(samples, -1), codec.decode(expected), atol=1e-4, rtol=0)


class NoStream:
    """A stand-in for a stream and for an event."""

    def wait_stream(self, _: object) -> None: ...
    def wait_event(self, _: object) -> None: ...
    def record(self, _: object) -> None: ...


class Doubling:
    """A function of one tensor that is also its own graph; its replay writes the same memory."""

    def __call__(self, network: nn.Module, x: Tensor) -> Tensor:
        self.given, self.made = x, x * 2
        return self.made

    def replay(self) -> None:
        self.made.copy_(self.given * 2)


def test_a_graph_captured_in_inference_mode_replays_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A CPU has no graphs, so a call replaces the replay."""
    function = Doubling()
    for name, stand_in in {
        "graph_pool_handle": lambda: None,
        "device": lambda _: contextlib.nullcontext(),
        "Stream": lambda: NoStream(),
        "stream": lambda _: contextlib.nullcontext(),
        "current_stream": lambda *_: NoStream(),
        "Event": lambda: NoStream(),
        "CUDAGraph": lambda: function,
        "graph": lambda *_, **__: contextlib.nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    graphed, network = GraphedFunction(function, ()), nn.Module()
    with torch.inference_mode():
        for _ in range(2):
            assert graphed(network, torch.ones(3)).tolist() == [2, 2, 2]
    assert graphed(network, torch.full((3,), 3.0)).tolist() == [6, 6, 6]
    assert not function.made.is_inference()


def test_other_threads_keep_their_autocast(codec: Codec) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        codec.encode(noise(3000), 44100)
        assert torch.is_autocast_enabled("cpu")
        assert torch.mm(noise(2, 2), noise(2, 2)).dtype == torch.bfloat16


def encode_in_a_fork(weights: Path, stderr: Path) -> int:
    """Fork this process after it computed with two threads, and return the child's exit status.

    The status is 0 where the child finds the tokens that its parent found, and -9 where it hangs.
    """
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
    precision._thread_pool_is_lost = False  # the server of this process computes nothing
    torch.set_num_threads(2)
    codec = melcap.load(weights)
    wave = torch.sin(torch.arange(200000) / 20.0)
    expected = codec.encode(wave, 44100).tokens
    child = os.fork()
    if not child:
        found = codec.encode(wave, 44100).tokens
        os._exit(0 if torch.equal(found, expected) else 3)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.kill(child, 9)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_continues_with_one_thread(small_weights: Path, tmp_path: Path) -> None:
    said = tmp_path / "stderr"
    with FORKS.Pool(1) as pool:
        assert pool.apply(encode_in_a_fork, (small_weights, said)) == 0
    assert said.read_text().count("computes with 1 thread") == 1


def test_a_fork_inside_another_threads_block_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that would leave the block does not exist in the child."""
    before = [getattr(place, name) for place, name, _ in precision.SETTINGS]
    monkeypatch.setattr(precision, "_lock", threading.Lock())
    with precision.exact_float32():
        precision._lock.acquire()  # another thread is about to enter
        with monkeypatch.context() as child:
            child.setattr(precision, "_open_blocks", 1)
            precision._after_fork()
            assert [getattr(place, name) for place, name, _ in precision.SETTINGS] == before
            assert not precision._lock.locked()
            monkeypatch.setattr(precision, "_thread_pool_is_lost", False)
        for place, name, value in precision.SETTINGS:
            setattr(place, name, value)
