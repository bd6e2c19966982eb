"""The training loop of both stages: a time budget, a schedule fitted to it, logs, exact resume.

Of the modules that are exported an exponential moving average of the weights is kept: it is less
noisy than the weights of any one step, those of a GAN above all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from melcap.training.bounds import Bounds
from melcap.training.checkpoint import Record, exported, resume, save
from melcap.training.compiling import CompileTrial
from melcap.training.crops import Batches, CropSampler
from melcap.training.logs import TrainingLog, crops_by_class
from melcap.training.recipe import Recipe
from melcap.training.sitting import Sitting

__all__ = ["Recipe", "exported", "schedule", "train"]


def schedule(progress: float, step: int, warmup: int) -> float:
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
    save_minutes: float = 1.0,
    picture_minutes: float = 5.0,
    history: Sequence[Record] = (),
    stop: Callable[[], bool] = lambda: False,
    compile_trial: bool = False,
) -> None:
    """Train for `minutes` of wall time, resuming from `checkpoint` if it exists.

    The learning rate falls over `schedule_minutes` of training time in all (by default: what was
    trained before plus `minutes`). With `steps` it stops after so many steps, counted from the very
    beginning, and when `stop` says so, if that comes first; then it saves. Figures go to
    `checkpoint` with the suffix .jsonl, and to TensorBoard with pictures, see `TrainingLog`; with
    infinite `picture_minutes` there are none.
    `history` is on record of a new run as what led to it. With `compile_trial` the rates of the
    first minute decide whether the recipe is compiled, see `CompileTrial`.

    Raises InputError where the checkpoint is not this run's, and MelcapError where a figure becomes
    infinite or not a number, or the checkpoint cannot be written: the last one is still there.
    """
    config = recipe.config
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    averages = {name: AveragedModel(module) for name, module in recipe.averaged().items()}
    step, before, earlier = 0, 0.0, list(history)
    if checkpoint.exists():
        found = resume(checkpoint, recipe, averages, device)
        sampler.load_state_dict(found.index["sampler"])
        step, before, earlier = found.step, found.minutes, found.records
        console.print(f"resumed {checkpoint} at step {step} after {before:.1f} minutes")
        for part in found.missing:
            console.print(f"{checkpoint} has no file for its {part}: they begin anew")
        del found  # it may be large
    whole = schedule_minutes or before + minutes
    pictures = math.isfinite(picture_minutes)
    crops = crops_by_class(sampler.cache, recipe, device) if pictures else {}
    saved, shown = 0.0, -math.inf
    with Batches(sampler, device) as batches, TrainingLog(checkpoint, step, console.print) as log:
        sitting = Sitting(recipe, sampler.cache, device, checkpoint)  # the clock runs from here
        bounds = Bounds(device)
        trial = CompileTrial(recipe, 60 * minutes, device) if compile_trial else None

        def keep() -> None:
            records = [*earlier, sitting.record()] if sitting.steps else earlier
            spent = before + sitting.minutes
            save(checkpoint, recipe, averages, batches.state, step, spent, records)

        while True:
            spent = sitting.minutes
            if spent >= minutes or (steps is not None and step >= steps) or stop():
                break
            progress = (before + spent) / whole
            rate = config.rate * schedule(progress, step, config.warmup)
            for optimiser in recipe.optimisers().values():
                for group in optimiser.param_groups:
                    group["lr"] = rate
            wave = bounds.batch(batches.next)
            timed = trial is not None and trial.verdict is None
            sitting.add(bounds.step(partial(recipe.step, wave, progress), undisturbed=timed))
            step += 1
            if step > config.warmup:
                # Over the last ninth of the steps at most: a short run forgets its start.
                count = step - config.warmup
                average = get_ema_multi_avg_fn(min(config.average, count / (count + 9)))
                for name, module in recipe.averaged().items():
                    averages[name].multi_avg_fn = average
                    averages[name].update_parameters(module)
            if trial is not None and (verdict := trial.after_step()):
                console.print(verdict)
                sitting.note("compiled", verdict)
            if step % log_every == 0:
                row = {"step": step, "minutes": round(before + spent, 2), "rate": rate}
                row |= sitting.row()
                log.row(row)
                console.print("  ".join(f"{name} {value:g}" for name, value in row.items()))
            if pictures and spent - shown >= picture_minutes:
                log.examples(recipe, crops, step)
                shown = spent
            if spent - saved >= save_minutes:
                keep()
                saved = spent
        if sitting.steps:
            sitting.note("bound", bounds.sentence())
        keep()
        if sitting.steps:
            if pictures:
                log.examples(recipe, crops, step)
            speed = sitting.record()["audio_seconds_per_second"]
            console.print(f"saved {checkpoint} at step {step}, {speed:g} seconds of audio a second")
            console.print(bounds.sentence())
