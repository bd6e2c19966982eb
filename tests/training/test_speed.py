"""The decision whether to compile, and what bounds a run, on simulated clocks."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import DeviceType

from melcap.training import bounds
from melcap.training.bounds import Bounds
from melcap.training.compiling import WARM_STEPS, WINDOW_SECONDS, CompileTrial
from tests.training.helpers import joint_stage, stage_1, stage_2, tokenizer


class Clock:
    """A clock that a step moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Recipe:
    """A recipe whose steps take some time, another time compiled, and longer while it compiles."""

    def __init__(self, clock: Clock, eager: float, compiled: float, compiler: float = 0.0) -> None:
        self.clock, self.seconds, self.compiler = clock, {False: eager, True: compiled}, compiler
        self.is_compiled = False
        self.history: list[bool] = []

    def compile(self, backend: str = "inductor") -> None:
        self.is_compiled = True
        self.clock.now += self.compiler

    def uncompile(self) -> None:
        self.is_compiled = False

    def step(self) -> None:
        self.history.append(self.is_compiled)
        self.clock.now += self.seconds[self.is_compiled]


def trial(seconds: float, recipe: Recipe) -> CompileTrial:
    made: Any = recipe
    return CompileTrial(made, seconds, "cpu", recipe.clock)


def decision_of(trial: CompileTrial, recipe: Recipe) -> str:
    for _ in range(10_000):
        recipe.step()
        if (said := trial.after_step()) is not None:
            recipe.step()
            assert trial.after_step() is None, "it is said once"
            return said
    raise AssertionError("no decision")


@pytest.mark.parametrize(
    ("compiled", "kept", "words"),
    [
        (
            0.05,
            True,
            "compiled: 20.00 steps/s compiled, 10.00 steps/s uncompiled; compiling took 60 s",
        ),
        (0.2, False, "uncompiled again: 5.00 steps/s compiled, 10.00 steps/s uncompiled"),
    ],
)
def test_the_faster_way_stays(compiled: float, kept: bool, words: str) -> None:
    recipe = Recipe(Clock(), 0.1, compiled, compiler=60 - WARM_STEPS * compiled)
    run = trial(600, recipe)
    said = decision_of(run, recipe)
    assert words in said
    assert recipe.is_compiled is kept
    assert run.decision == said
    first = recipe.history.index(True)
    assert first * 0.1 == pytest.approx(WINDOW_SECONDS + WARM_STEPS * 0.1, abs=0.15)


def test_a_short_run_is_not_compiled() -> None:
    recipe = Recipe(Clock(), 0.5, 0.1)
    said = decision_of(trial(200, recipe), recipe)
    assert "not compiled: 18" in said
    assert "s are left, and compiling pays from 240 s on (2.00 steps/s)" in said
    assert not any(recipe.history)


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        lambda: stage_1(codebook_warmup=0, discriminators=2),
        lambda: stage_2(tokenizer(), discriminators=2),
        lambda: joint_stage(discriminators=2, discriminator_kind="magnitudes"),
    ],
)
def test_a_recipe_that_was_compiled_runs_uncompiled_again(
    recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe()
    called: list[str] = []

    def compiled(function: Any, **_: Any) -> Any:
        return lambda *arguments: (called.append("compiled"), function(*arguments))[1]

    monkeypatch.setattr(torch, "compile", compiled)
    for discriminator in made.adversarial.discriminators:
        monkeypatch.setattr(
            discriminator,
            "compile",
            lambda part=discriminator, **_: setattr(
                part, "_compiled_call_impl", compiled(part.forward)
            ),
        )
    made.compile("eager")
    wave = 0.1 * torch.randn(1, made.samples)
    made.step(wave)
    assert called
    called.clear()
    made.uncompile()
    made.step(wave)
    assert not called


def figures() -> dict[str, Tensor]:
    return {}


def test_data_that_is_waited_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(bounds.time, "monotonic", clock)

    def slow() -> Tensor:
        clock.now += 0.3
        return torch.zeros(1)

    found = Bounds("cpu")
    clock.now += 50  # a stream decodes its first clips
    found.batch(lambda: torch.zeros(1))
    found.step(figures)
    clock.now += 0.7
    for _ in range(7):
        found.batch(slow)
        found.step(figures)
        clock.now += 0.7
    assert found.sentence() == "bound by data: 27% of the time was spent waiting for batches"


def test_a_cpu_says_how_many_cores_work() -> None:
    found = Bounds("cpu")
    ends = time.monotonic() + 0.2
    while time.monotonic() < ends:
        pass
    found.batch(lambda: torch.zeros(1))
    assert found.sentence().startswith("bound by the CPU: ")


@pytest.mark.parametrize(
    ("busy", "words"),
    [
        (None, "it ended before a step was profiled"),
        (0.93, "bound by the GPU: kernels take 93% of a step"),
        (0.5, "bound by kernel launches: the GPU is busy for 50% of a step"),
    ],
)
def test_a_gpu_says_what_it_waits_for(busy: float | None, words: str) -> None:
    found = Bounds("cuda")
    found.busy = busy
    assert words in found.sentence()


def test_one_step_is_profiled_and_none_that_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The profiler takes seconds to start, which would count against the rate of a trial."""
    profiled: list[int] = []
    steps = 0

    class Profiler:
        def __init__(self, activities: Any) -> None:
            profiled.append(steps)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def key_averages(self) -> list[Any]:
            return []

    monkeypatch.setattr(bounds, "profile", Profiler)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    found = Bounds("cuda")
    for steps in range(1, 100):
        found.step(figures, undisturbed=steps < 80)
    assert profiled == [80]
    assert found.busy == 0


def test_waiting_for_other_gpus_is_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL's kernels run until the other GPUs have come as far."""

    class Profiler:
        def __init__(self, activities: Any) -> None:
            pass

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def key_averages(self) -> list[Any]:
            kernels = {"conv": 3e5, "ncclDevKernel_AllReduce_Sum_f32_RING_LL": 6e5}
            return [
                SimpleNamespace(key=name, self_device_time_total=time, device_type=DeviceType.CUDA)
                for name, time in kernels.items()
            ]

    clock = Clock()
    monkeypatch.setattr(bounds, "profile", Profiler)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(bounds.time, "monotonic", clock)

    def one_second() -> dict[str, Tensor]:
        clock.now += 1
        return {}

    found = Bounds("cuda")
    for _ in range(bounds.PROFILED_STEP):
        found.step(one_second)
    assert found.busy == pytest.approx(0.3)
