"""Check that networks and operations compute in float32, whatever the process has set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import melcap
from melcap.codec import Codec
from melcap.config import MelSpec
from melcap.model.stages import Stage
from melcap.ops import log_mel, nearest_code, precision, registry
from melcap.ops.precision import exact_float32
from tests.helpers import noise, reduced_precision

EXACT = [value for *_, value in precision.SETTINGS]


def now() -> list[object]:
    return [getattr(place, name) for place, name, _ in precision.SETTINGS]


@pytest.fixture(autouse=True)
def _rounded() -> Iterator[None]:
    with reduced_precision():
        assert not {"ieee", False} & set(now())
        yield


def test_all_settings_are_exact_inside_and_put_back() -> None:
    before = now()
    with exact_float32():
        assert now() == EXACT
        assert not torch.backends.cudnn.benchmark
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="inner"), exact_float32():
            raise ValueError("inner")
        assert now() == EXACT
    assert now() == before
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.backends.cudnn.allow_tf32


def test_the_last_thread_puts_back() -> None:
    before, entered, leave = now(), threading.Event(), threading.Event()

    def other() -> None:
        with exact_float32():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    try:
        with exact_float32():
            thread.start()
            entered.wait()
        assert now() == EXACT
    finally:
        leave.set()
        thread.join()
    assert now() == before


def test_networks_run_in_it(small_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = melcap.load(small_weights)
    seen: list[list[object]] = []

    def watch(stage: Stage) -> Callable[[Tensor], Tensor]:
        forward = stage.forward

        def watched(x: Tensor) -> Tensor:
            seen.append(now())
            return forward(x)

        return watched

    for stage in (codec.encoder[0], codec.vocoder[0]):
        monkeypatch.setattr(stage, "forward", watch(stage))
    before = now()
    codes = codec.encode(noise(5000), 44100)
    codec.decode(codes)
    melcap.StreamEncoder(codec).push(noise(9000))
    melcap.StreamDecoder(codec).push(codes.tokens)
    codec.learn_silence()
    assert len(seen) >= 5
    assert all(settings == EXACT for settings in seen)
    assert now() == before


@pytest.mark.parametrize("operation", ["log_mel", "nearest_code"])
def test_operations_run_in_it(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    implementation = registry.implementation(operation, "torch")

    def watched(*arguments: object) -> Tensor:
        seen.append(now())
        return implementation.run(*arguments)

    registry_entry = registry.Implementation(watched, {}, lambda *_: [])
    monkeypatch.setitem(registry._implementations, (operation, "torch"), registry_entry)
    if operation == "log_mel":
        log_mel(noise(1, 2000), MelSpec())
    else:
        nearest_code(noise(5, 3), noise(7, 3))
    assert seen == [EXACT]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "columns"),
    [("cpu", 30), *(pytest.param("cuda", n, marks=pytest.mark.gpu) for n in (40, 151, 231, 271))],
)
def test_each_stage_is_float32(device: str, columns: int) -> None:
    """This holds for any width and code: TF32 would be off by 3e-4, Winograd's by 1e-5."""
    codec, exact = melcap.load(device=device), melcap.load(device=device).double()
    tokens = torch.randint(8192, (1, codec.config.rows, columns), device=device)
    ways = [
        (codec.encode_stages, exact.encode_stages, noise(1, columns * 2048).double().to(device)),
        (codec.decode_stages, exact.decode_stages, exact.codebook.latents(tokens)),
    ]
    with torch.no_grad(), exact_float32():
        for stages, references, x in ways:
            for place, (stage, reference) in enumerate(zip(stages, references, strict=True)):
                found, x = stage(x.float()), reference(x)
                error = float((found - x).norm() / x.norm())
                assert error < 3e-6, f"{place} {type(stage).__name__}: {error:.1e}"


@pytest.mark.gpu
def test_tokens_on_a_device_do_not_depend_on_what_is_set(lite: Codec) -> None:
    there = melcap.load(device="cuda")
    wave = noise(4, 10 * 44100)
    found = there.encode(wave.cuda(), 44100).tokens.cpu()
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    assert torch.equal(there.encode(wave.cuda(), 44100).tokens.cpu(), found)
    expected = lite.encode(wave, 44100).tokens
    assert (found != expected).float().mean() < 1e-3
