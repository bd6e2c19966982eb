"""Check the choice of backends: names, scopes, refusals with reasons, and what then runs."""

from __future__ import annotations

import asyncio
import json
import logging
import pkgutil
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import melcap
from melcap import kernels, ops
from melcap.config import MelSpec
from melcap.errors import BackendError
from melcap.kernels.launch import launched
from melcap.ops import (
    backend_report,
    channel_norm,
    conv2d,
    convnext1d,
    griffin_lim,
    log_mel,
    nearest_code,
    polar_istft,
    registry,
    resblock2d,
    upsample_conv1d,
)
from melcap.ops.registry import Implementation, Tolerance
from tests.helpers import noise

SPEC = MelSpec(sample_rate=8000, n_fft=32, hop=8, n_mels=4)


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the registry after the test; "auto" has not decided yet."""
    monkeypatch.setattr(registry, "_implementations", dict(registry._implementations))
    monkeypatch.setattr(registry, "_auto_choice", {})
    monkeypatch.setattr(registry, "_default", "auto")


@pytest.fixture
def no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imitate a machine without triton and CUDA, where no kernel has been loaded."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for operation in registry.OPERATIONS:
        registry._implementations.pop((operation, "triton"), None)


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let "triton" run here, with implementations that note their names; return the notes."""
    ran: list[str] = []

    def noted(operation: str) -> Callable[..., Tensor]:
        reference = registry.implementation(operation, "torch").run

        def run(*arguments: Any) -> Tensor:
            ran.append(operation)
            with melcap.use_backend("torch"):  # of which references may call other operations
                result: Tensor = reference(*arguments) + 1
            return result

        return run

    monkeypatch.setattr(registry, "unavailable", lambda name: [])
    for operation in registry.OPERATIONS:
        fake = Implementation(noted(operation), {torch.float32: Tolerance(0, 0)}, lambda *_: [])
        registry.register(operation, "triton", fake)
    return ran


def all_of_them() -> tuple[Tensor, ...]:
    one = torch.ones(2)
    return (
        channel_norm(noise(1, 2, 3), one, one),
        conv2d(noise(1, 2, 3, 3), noise(1, 2, 2, 2)),
        convnext1d(
            noise(1, 2, 3),
            noise(2, 1, 3),
            one,
            one,
            one,
            noise(1, 2),
            one[:1],
            noise(2, 1),
            one,
            one,
        ),
        griffin_lim(noise(1, 8, 33), 32, 8),
        log_mel(noise(1, 100), SPEC),
        nearest_code(noise(5, 3), noise(7, 3, seed=1)),
        polar_istft(noise(1, 4, 34), torch.ones(32), 8, loudest=6.0),
        resblock2d(
            noise(1, 2, 3, 3), one, one, noise(2, 2, 1, 1), one, one, one, noise(2, 2, 1, 1), one
        ),
        upsample_conv1d(noise(1, 2, 3), noise(2, 2, 4, seed=2), None, 2),
    )


def test_auto_is_the_default_and_takes_torch_on_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    assert melcap.get_backend() == "auto"
    with caplog.at_level(logging.INFO, logger="melcap"):
        all_of_them()
        all_of_them()
    (line,) = [record.getMessage() for record in caplog.records if record.name == "melcap"]
    assert "cpu" in line
    assert "torch" in line


def test_set_backend_is_for_good_and_use_backend_for_a_block(triton: list[str]) -> None:
    melcap.set_backend("torch")
    assert melcap.get_backend() == "torch"
    with melcap.use_backend("triton"):
        assert melcap.get_backend() == "triton"
        with melcap.use_backend("auto"):
            assert melcap.get_backend() == "auto"
            melcap.set_backend("triton")  # the block's own choice stays in force
            assert melcap.get_backend() == "auto"
        assert melcap.get_backend() == "triton"
        with pytest.raises(KeyError), melcap.use_backend("torch"):
            raise KeyError
        assert melcap.get_backend() == "triton"
    assert melcap.get_backend() == "triton"
    melcap.set_backend("auto")
    assert melcap.get_backend() == "auto"


def test_a_scope_ends_at_its_thread(triton: list[str]) -> None:
    seen: list[str] = []
    inside, over = threading.Event(), threading.Event()

    def other() -> None:
        seen.append(melcap.get_backend())
        with melcap.use_backend("triton"):
            inside.set()
            over.wait(10)
            seen.append(melcap.get_backend())

    melcap.set_backend("torch")
    with melcap.use_backend("auto"):
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
        assert melcap.get_backend() == "auto"
    assert melcap.get_backend() == "torch"
    all_of_them()
    over.set()
    thread.join()
    assert seen == ["torch", "triton"]
    assert triton == []


def test_a_scope_ends_at_its_task(triton: list[str]) -> None:
    async def scoped(name: str) -> list[str]:
        with melcap.use_backend(name):
            seen = []
            for _ in range(3):
                seen.append(melcap.get_backend())
                await asyncio.sleep(0)
            return seen

    async def both() -> list[list[str]]:
        return list(await asyncio.gather(scoped("torch"), scoped("triton")))

    assert asyncio.run(both()) == [["torch"] * 3, ["triton"] * 3]


def test_the_chosen_implementation_runs(triton: list[str]) -> None:
    plain = all_of_them()
    assert triton == []
    with melcap.use_backend("triton"):
        marked = all_of_them()
    assert triton == list(registry.OPERATIONS)
    for one, other in zip(plain, marked, strict=True):
        assert torch.equal(one + 1, other)
    assert all(torch.equal(a, b) for a, b in zip(plain, all_of_them(), strict=True))
    assert len(triton) == len(registry.OPERATIONS)


def test_a_compiled_graph_follows_the_backend(triton: list[str]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, c: nearest_code(x, c) + 1, fullgraph=True, backend="aot_eager"
    )
    x, codebook = noise(5, 3), noise(7, 3, seed=1)
    plain = compiled(x, codebook)
    with melcap.use_backend("triton"):
        marked = compiled(x, codebook)
    assert triton == ["nearest_code"]
    assert torch.equal(plain + 1, marked)


def test_gradients_with_another_backend_are_the_references(triton: list[str]) -> None:
    wave = noise(1, 100).requires_grad_()
    (expected,) = torch.autograd.grad(log_mel(wave, SPEC).sum(), wave)
    with melcap.use_backend("triton"):
        (found,) = torch.autograd.grad(log_mel(wave, SPEC).sum(), wave)
    assert triton == ["log_mel"]
    assert torch.equal(found, expected)


def test_what_an_implementation_cannot_run_is_refused_with_its_reasons(triton: list[str]) -> None:
    def unsupported(x: Tensor, codebook: Tensor) -> list[str]:
        return [] if x.shape[1] == 3 else [f"dim is {x.shape[1]}", "it is too late"]

    found = registry.implementation("nearest_code", "triton")
    picky = Implementation(found.run, found.tolerances, unsupported)
    registry.register("nearest_code", "triton", picky)
    with melcap.use_backend("triton"):
        nearest_code(noise(5, 3), noise(7, 3))
        with pytest.raises(BackendError, match=r"nearest_code.*triton.*dim is 4; it is too late"):
            nearest_code(noise(5, 4), noise(7, 4))
    assert triton == ["nearest_code"]


def test_reasons_are_looked_for_once_for_each_kind_of_call(
    triton: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []

    def unsupported(x: Tensor, codebook: Tensor, *others: object) -> list[str]:
        asked.append(tuple(x.shape))
        return [] if x.shape[1] == 3 else [f"dim is {x.shape[1]}"]

    def reasons(*arguments: object) -> list[str]:
        return registry.reasons_against("nearest_code", "triton", *arguments)

    found = registry.implementation("nearest_code", "triton")
    registry.register("nearest_code", "triton", replace(found, unsupported=unsupported))
    x, codebook = noise(5, 3), noise(7, 3)
    for _ in range(3):
        assert reasons(x, codebook) == []
        assert reasons(noise(5, 4), codebook) == ["dim is 4"]
    assert asked == [(5, 3), (5, 4)]
    for other in (noise(6, 3), noise(3, 5).t(), x.double(), x.to("meta")):
        reasons(other, codebook)
    reasons(x, codebook.double())
    reasons(x, codebook, [1, 2])
    reasons(x, codebook, [1, 3])
    reasons(x, codebook, None)
    reasons(x, codebook, 0.5)
    assert len(asked) == 11, "shape, strides, dtype, device, other tensors and other arguments"
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    reasons(x, codebook)
    assert len(asked) == 12, "kernels on a CPU"
    monkeypatch.setenv(registry.SWITCH, "nearest_code")
    assert "switches its kernel off" in reasons(x, codebook)[0]
    monkeypatch.delenv(registry.SWITCH)
    assert reasons(x, codebook) == []
    registry.register("nearest_code", "triton", replace(found, unsupported=lambda *_: ["anew"]))
    assert reasons(x, codebook) == ["anew"]


def test_reasons_are_not_remembered_without_end(
    triton: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MOST_REASONS", 4)
    monkeypatch.setattr(registry, "_known_reasons", {})
    for rows in range(1, 20):
        registry.reasons_against("nearest_code", "triton", noise(rows, 3), noise(7, 3))
    assert 1 <= len(registry._known_reasons) <= 4


def test_auto_falls_back_where_triton_cannot_run_an_operation(
    triton: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registry, "_auto_choice", {"cpu": "triton"})
    found = registry.implementation("nearest_code", "triton")
    picky = Implementation(found.run, found.tolerances, lambda *_: ["the moon is full"])
    registry.register("nearest_code", "triton", picky)
    del registry._implementations["upsample_conv1d", "triton"]
    with caplog.at_level(logging.INFO, logger="melcap"):
        all_of_them()
        all_of_them()
    run = [name for name in registry.OPERATIONS if name not in ("nearest_code", "upsample_conv1d")]
    assert triton == run * 2
    first, second = [record.getMessage() for record in caplog.records if record.name == "melcap"]
    assert "nearest_code" in first
    assert "the moon is full" in first
    assert "no triton implementation of upsample_conv1d" in second


@pytest.mark.usefixtures("no_triton")
def test_triton_is_refused_with_every_reason() -> None:
    for call in (melcap.set_backend, lambda name: melcap.use_backend(name).__enter__()):
        with pytest.raises(BackendError) as caught:
            call("triton")
        for reason in ("not installed", "no CUDA device"):
            assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
        assert melcap.get_backend() == "auto"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_triton_is_refused_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendError, match="no CUDA device"):
        melcap.set_backend("triton")


@pytest.mark.parametrize("name", ["cuda", "", "Triton", "AUTO"])
def test_unknown_names(name: str) -> None:
    for call in (melcap.set_backend, lambda name: melcap.use_backend(name).__enter__()):
        with pytest.raises(BackendError, match=f"'{name}'.*auto, torch, triton"):
            call(name)
    assert melcap.get_backend() == "auto"


def test_only_known_operations_and_backends_are_registered() -> None:
    torchs = registry.implementation("log_mel", "torch")
    for operation, backend in [("log_mel", "auto"), ("log_mel", "cuda"), ("softmax", "torch")]:
        with pytest.raises(BackendError, match=f"'{operation}'.*'{backend}'"):
            registry.register(operation, backend, torchs)


def test_a_missing_implementation_is_named(triton: list[str]) -> None:
    del registry._implementations["log_mel", "triton"]
    with melcap.use_backend("triton"), pytest.raises(BackendError, match=r"triton.*log_mel"):
        log_mel(noise(1, 100), SPEC)


def test_auto_decides_once_for_each_kind_of_device(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def unavailable(name: str) -> list[str]:
        asked.append(name)
        return reasons

    monkeypatch.setattr(registry, "unavailable", unavailable)
    with caplog.at_level(logging.INFO, logger="melcap"):
        reasons: list[str] = []
        assert [registry.choose("cuda") for _ in range(3)] == ["triton"] * 3
        assert asked == ["triton"]
        assert registry.choose("cpu") == "torch"
        registry._auto_choice.clear()
        reasons = ["it is Monday", "it rains"]
        assert [registry.choose("cuda") for _ in range(3)] == ["torch"] * 3
    assert len(caplog.records) == 3
    assert "it is Monday; it rains" in caplog.records[2].getMessage()


@pytest.mark.usefixtures("no_triton")
def test_the_report_without_triton() -> None:
    report: dict[str, Any] = backend_report()
    assert json.loads(json.dumps(report)) == report
    assert report["backend"] == "auto"
    assert report["available"]["torch"] == []
    assert len(report["available"]["triton"]) == 2
    assert report["chosen_by_auto"] == {"cpu": "torch", "cuda": "torch"}
    assert report["operations"] == {operation: ["torch"] for operation in registry.OPERATIONS}


def test_the_report_with_triton(triton: list[str]) -> None:
    with melcap.use_backend("torch"):
        report: dict[str, Any] = backend_report()
        assert melcap.get_backend() == "torch"
    assert report["backend"] == "torch"
    assert report["available"]["triton"] == []
    assert report["chosen_by_auto"] == {"cpu": "torch", "cuda": "triton"}
    assert report["operations"]["log_mel"] == ["torch", "triton"]
    assert json.loads(json.dumps(report)) == report
    assert triton == []


def test_every_operation_of_the_package_is_found() -> None:
    """Module, function and kernels have the operation's name; nothing else lists operations."""
    modules = {module.name for module in pkgutil.iter_modules(ops.__path__)}
    for operation in registry.OPERATIONS:
        assert operation in modules
        assert callable(getattr(ops, operation))
        assert hasattr(torch.ops.melcap, operation)
    assert tuple(registry.OPERATIONS) == kernels.OPERATIONS
    functions = [name for name in ops.__all__ if "backend" not in name]
    assert functions == list(registry.OPERATIONS)


def test_every_operation_has_a_reference_with_tolerances() -> None:
    for operation in registry.OPERATIONS:
        found = registry.implementation(operation, "torch")
        names = {f"{operation}_reference", f"{operation}_inference"}
        assert found.run.__name__ in names
        tolerance = found.tolerances[torch.float32]
        assert tolerance.atol >= 0
        assert tolerance.rtol >= 0
        assert tolerance.atol + tolerance.rtol < 0.01


class TestSwitch:
    """A kernel that is switched off does not run, and messages say so."""

    @pytest.mark.slow
    def test_auto_runs_pytorch_and_says_so(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        registry.note_fallback.cache_clear()
        monkeypatch.setattr(registry, "choose", lambda device: "triton")
        monkeypatch.setenv(registry.SWITCH, "log_mel, griffin_lim")
        wave, before = noise(1, 2000), sum(launched.values())
        with caplog.at_level(logging.INFO, logger="melcap"):
            found = log_mel(wave, MelSpec())
        assert sum(launched.values()) == before
        assert "log_mel falls back to the torch backend: MELCAP_DISABLE_KERNELS" in caplog.text
        monkeypatch.delenv(registry.SWITCH)
        torch.testing.assert_close(log_mel(wave, MelSpec()), found, atol=1e-3, rtol=0)
        assert sum(launched.values()) == before + 1

    def test_by_name_it_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(registry.SWITCH, "log_mel")
        with melcap.use_backend("triton"):
            with pytest.raises(
                BackendError, match="MELCAP_DISABLE_KERNELS switches its kernel off"
            ):
                log_mel(noise(1, 2000), MelSpec())
            nearest_code(noise(3, 4), noise(5, 4))

    def test_a_name_that_is_no_operation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(registry.SWITCH, "log_mel,mel_log")
        with melcap.use_backend("triton"):
            with pytest.raises(
                BackendError, match="names mel_log: the operations are channel_norm"
            ):
                nearest_code(noise(3, 4), noise(5, 4))

    def test_the_doctor_reports_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from melcap.cli.diagnosis import examine

        monkeypatch.setenv(registry.SWITCH, "griffin_lim")
        data, text = examine()
        assert data["backends"]["switched_off"] == ["griffin_lim"]
        assert "the kernel of griffin_lim is switched off by MELCAP_DISABLE_KERNELS" in text
        monkeypatch.delenv(registry.SWITCH)
        assert "switched off" not in examine()[1]
