"""The training loop of both stages: a time budget, a schedule fitted to it, logs, exact resume.

Processes that train together (`melcap.training.ranks`) run this loop in step. The clock of the
first one decides for all, and the first one alone writes.

An exponential moving average is kept of the modules that are exported. It is less noisy than the
weights of any one step, above all with discriminators.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from melcap.training import ranks
from melcap.training.agreement import require_in_step, require_same_start
from melcap.training.bounds import Bounds
from melcap.training.checkpoint import Record, resume
from melcap.training.compiling import CompileTrial
from melcap.training.crops import Batches
from melcap.training.logs import TrainingLog, crops_by_class
from melcap.training.recipe import Recipe
from melcap.training.saving import TrainingProgress, save
from melcap.training.session import Session
from melcap.training.source import CropSource


@dataclass(frozen=True)
class LoopOptions:
    """The options of a session that do not change what is trained.

    Attributes:
        minutes: the wall time of the session.
        schedule_minutes: the training time, of all sessions, over which the learning rate falls;
            None for what was trained before plus `minutes`.
        device: where the recipe is trained.
        steps: the step at which training ends, counted from the very beginning; None for no such
            step.
        log_every: the number of steps from line to line of the log.
        save_minutes: the time between checkpoints.
        picture_minutes: the time between pictures in TensorBoard; infinity for none.
        compile_trial: decide by the rates of the first minute whether to compile, see
            `CompileTrial`.
    """

    minutes: float
    schedule_minutes: float | None = None
    device: str = "cpu"
    steps: int | None = None
    log_every: int = 50
    save_minutes: float = 1.0
    picture_minutes: float = 5.0
    compile_trial: bool = False


def print_error(sentence: str) -> None:
    """Print a sentence to stderr."""
    print(sentence, file=sys.stderr, flush=True)


def schedule(progress: float, step: int, warmup: int) -> float:
    """Return the factor of the learning rate: linear warm-up, then a cosine down to 1 %.

    Args:
        progress: the share of the schedule's time that is over.
        step: the step, from 0.
        warmup: the number of steps of the warm-up.
    """
    cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return min(1.0, (step + 1) / warmup) * cosine


def train(
    recipe: Recipe,
    sampler: CropSource,
    checkpoint: Path,
    options: LoopOptions,
    history: Sequence[Record] = (),
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = print_error,
) -> None:
    """Train until the time is over, `stop` returns True or the last step is done; then save.

    A process that is one of several does so as soon as any of them is asked to stop.
    The run resumes from `checkpoint` if it exists. Figures go to `checkpoint` with the suffix
    .jsonl, and to TensorBoard with pictures, see `TrainingLog`.

    Args:
        recipe: the recipe, on the device.
        sampler: the source of crops.
        checkpoint: the checkpoint folder of the run.
        options: see `LoopOptions`.
        history: the records, in a new run, of what the recipe began with.
        stop: returns whether to end after this step.
        tell: prints a sentence for the user.

    Raises:
        InputError: if the checkpoint is not this run's.
        MelcapError: if a figure becomes infinite or not a number, or the checkpoint cannot be
            written. The last checkpoint is still there then.
    """
    config = recipe.config
    averages = {name: AveragedModel(module) for name, module in recipe.averaged().items()}
    step, before, earlier = 0, 0.0, list(history)
    if checkpoint.exists():
        found = resume(checkpoint, recipe, averages, options.device)
        sampler.load_state_dict(found.index["sampler"])
        step, before, earlier = found.step, found.minutes, found.records
        tell(f"resumed {checkpoint} at step {step} after {before:.1f} minutes")
        for part in found.missing:
            tell(f"{checkpoint} has no file for its {part}: they begin anew")
        del found  # it may be large
    require_same_start(
        {
            "settings": f"{config.to_json()} {recipe.bf16} {recipe.accumulate}",
            "options": str(replace(options, device="")),
            "audio": sampler.description(),
            "checkpoint": f"{step} {before}",
            "version of torch": str(torch.__version__),
        }
    )
    whole = options.schedule_minutes or before + options.minutes
    pictures = math.isfinite(options.picture_minutes) and ranks.is_first()
    crops = crops_by_class(sampler, recipe, options.device) if pictures else {}
    saved, shown = 0.0, -math.inf
    with Batches(sampler, options.device) as batches, _log(checkpoint, step, tell) as log:
        session = Session(recipe, sampler, options.device, checkpoint)  # its clock starts
        bounds = Bounds(options.device)
        trial = None
        if options.compile_trial:
            trial = CompileTrial(recipe, 60 * options.minutes, options.device, ranks.clock)

        def keep() -> None:
            records = [*earlier, session.record()] if session.steps else earlier
            state = in_step()
            if ranks.is_first():
                progress = TrainingProgress(step, before + session.minutes, state, records)
                save(checkpoint, recipe, averages, progress)

        def in_step() -> Mapping[str, object]:
            state = sampler.state_of_all(batches.state)
            require_in_step(recipe, averages, state, step, checkpoint)
            return state

        in_step()
        while True:
            spent, stopped = ranks.lead(session.minutes, stop())
            ended = options.steps is not None and step >= options.steps
            if ended or spent >= options.minutes or stopped:
                break
            progress = (before + spent) / whole
            rate = config.rate * schedule(progress, step, config.warmup)
            for optimiser in recipe.optimisers().values():
                for group in optimiser.param_groups:
                    group["lr"] = rate * group.get("share_of_rate", 1.0)
            wave = bounds.batch(batches.next)
            timed = trial is not None and trial.decision is None
            session.add(bounds.step(partial(recipe.step, wave), undisturbed=timed))
            step += 1
            _average(recipe, averages, step)
            if trial is not None and (decision := trial.after_step()):
                tell(decision)
                session.note("compiled", decision)
            if step % options.log_every == 0:
                row = {"step": step, "minutes": round(before + spent, 2), "rate": rate}
                row |= session.row()
                in_step()
                if log is not None:
                    log.row(row)
                tell("  ".join(f"{name} {value:g}" for name, value in row.items()))
            if pictures and log is not None and spent - shown >= options.picture_minutes:
                log.examples(recipe, crops, step)
                shown = spent
            if spent - saved >= options.save_minutes:
                keep()
                saved = spent
        if session.steps:
            session.note("bound", bounds.sentence())
        keep()
        if session.steps:
            if pictures and log is not None:
                log.examples(recipe, crops, step)
            speed = session.record()["audio_seconds_per_second"]
            tell(f"saved {checkpoint} at step {step}, {speed:g} seconds of audio a second")
            tell(bounds.sentence())


def _log(
    checkpoint: Path, step: int, tell: Callable[[str], None]
) -> AbstractContextManager[TrainingLog | None]:
    """Return the log of the run in the process that writes it, and None in others."""
    return TrainingLog(checkpoint, step, tell) if ranks.is_first() else nullcontext()


def _average(recipe: Recipe, averages: Mapping[str, AveragedModel], step: int) -> None:
    """Update the moving averages after a step, once the warm-up is over."""
    count = step - recipe.config.warmup
    if count <= 0:
        return
    # Over the last ninth of the steps at most, so that a short run forgets its start.
    average = get_ema_multi_avg_fn(min(recipe.config.average, count / (count + 9)))
    for name, module in recipe.averaged().items():
        averages[name].multi_avg_fn = average
        averages[name].update_parameters(module)
