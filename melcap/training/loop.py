"""The training loop of both stages: a time budget, a schedule fitted to it, logs, exact resume.

Of the modules that are exported an exponential moving average of the weights is kept: it is less
noisy than the weights of any one step, those of a GAN above all.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from melcap.files import replacing
from melcap.training.crops import CropSampler

WARMUP = 100
"""Steps over which the learning rate rises; averaging begins behind them."""
AVERAGE = 0.999


class Recipe(Protocol):
    """What a stage brings: its modules and optimisers, and one step."""

    samples: int
    batch: int
    peak_rate: float
    bf16: bool
    """Whether networks that learn run in bfloat16, where that is precise enough (autocast)."""

    def modules(self) -> Mapping[str, nn.Module]: ...

    def averaged(self) -> Mapping[str, nn.Module]:
        """Those of the modules that learn by gradients and are exported."""
        ...

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]: ...

    def step(self, wave: Tensor, progress: float) -> dict[str, Tensor]:
        """One update from a batch of waves; returns the figures to log."""
        ...


def schedule(progress: float, step: int, warmup: int = WARMUP) -> float:
    """Learning-rate factor: linear warm-up by steps, then a cosine down to 1 % by time."""
    cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return min(1.0, (step + 1) / warmup) * cosine


def train(
    recipe: Recipe,
    sampler: CropSampler,
    checkpoint: Path,
    minutes: float,
    schedule_minutes: float | None = None,
    device: str = "cpu",
    steps: int | None = None,
    log_every: int = 50,
    save_minutes: float = 4.0,
) -> None:
    """Train for `minutes` of wall time, resuming from `checkpoint` if it exists.

    The learning rate falls over `schedule_minutes` of training time in all (by default: what was
    trained before plus `minutes`). With `steps` it stops after so many steps, counted from the very
    beginning, if that comes first. Figures go to `checkpoint` with the suffix .jsonl.
    """
    console = Console(stderr=True)
    averages = {
        name: AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE))
        for name, module in recipe.averaged().items()
    }
    step, before = 0, 0.0
    if checkpoint.exists():
        step, before = _load(checkpoint, recipe, averages, sampler, device)
        console.print(f"resumed {checkpoint} at step {step} after {before:.1f} minutes")
    whole = schedule_minutes or before + minutes
    start = saved = logged = time.monotonic()
    sums: dict[str, Tensor] = {}
    while True:
        spent = (time.monotonic() - start) / 60
        if spent >= minutes or (steps is not None and step >= steps):
            break
        progress = (before + spent) / whole
        for optimiser in recipe.optimisers().values():
            for group in optimiser.param_groups:
                group["lr"] = recipe.peak_rate * schedule(progress, step)
        figures = recipe.step(sampler.next().to(device, non_blocking=True), progress)
        step += 1
        if step > WARMUP:
            for name, module in recipe.averaged().items():
                averages[name].update_parameters(module)
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + value.detach()
        if step % log_every == 0:
            now = time.monotonic()
            heard = log_every * recipe.batch * recipe.samples / 44100
            row: dict[str, float] = {
                "step": step,
                "minutes": round(before + spent, 2),
                "audio_seconds_per_second": round(heard / (now - logged), 1),
            }
            row.update({name: round(float(total) / log_every, 5) for name, total in sums.items()})
            with checkpoint.with_suffix(".jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            console.print("  ".join(f"{name} {value:g}" for name, value in row.items()))
            sums, logged = {}, now
        if time.monotonic() - saved > save_minutes * 60:
            _save(checkpoint, recipe, averages, sampler, step, before + spent)
            saved = time.monotonic()
    _save(checkpoint, recipe, averages, sampler, step, before + (time.monotonic() - start) / 60)


def exported(checkpoint: Path) -> dict[str, dict[str, Tensor]]:
    """The modules of a checkpoint by name, averaged where an average has begun."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    modules: dict[str, dict[str, Tensor]] = state["modules"]
    for name, average in state.get("averages", {}).items():
        if average["n_averaged"]:
            modules[name] = {key: average[f"module.{key}"] for key in modules[name]}
    return modules


def _save(
    path: Path,
    recipe: Recipe,
    averages: Mapping[str, AveragedModel],
    sampler: CropSampler,
    step: int,
    minutes: float,
) -> None:
    state = {
        "step": step,
        "minutes": minutes,
        "modules": {name: module.state_dict() for name, module in recipe.modules().items()},
        "averages": {name: average.state_dict() for name, average in averages.items()},
        "optimisers": {name: opt.state_dict() for name, opt in recipe.optimisers().items()},
        "sampler": sampler.state_dict(),
        "torch": torch.get_rng_state(),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def _load(
    path: Path,
    recipe: Recipe,
    averages: Mapping[str, AveragedModel],
    sampler: CropSampler,
    device: str,
) -> tuple[int, float]:
    """Steps and minutes so far; what the checkpoint lacks (discriminators, say) begins anew."""
    state = torch.load(path, map_location=device, weights_only=True)
    for kind, parts in (
        ("modules", recipe.modules()),
        ("averages", averages),
        ("optimisers", recipe.optimisers()),
    ):
        for name, part in parts.items():
            if name in state.get(kind, {}):
                part.load_state_dict(state[kind][name])
    sampler.load_state_dict(state["sampler"])
    torch.set_rng_state(state["torch"].cpu())
    return int(state["step"]), float(state["minutes"])
