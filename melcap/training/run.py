"""A session of a training run, from its options to its checkpoint: what `melcap train` does.

Three runs make a codec, and a fourth may follow. Each resumes at any moment with the same options:

    stage 1                 OUT/stage1/   encoder, codebook, mel decoder
    stage 2 from mels       OUT/vocoder/  the vocoder on true mels
    stage 2                 OUT/stage2/   mel decoder and vocoder together, on tokens
    joint                   OUT/joint/    all parts together, which gives other tokens

The first two do not depend on each other. `melcap.training.export` writes the codec of the last.

Under torchrun each process runs a session, and all train as one (`melcap.training.launch`).
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from melcap.errors import InputError, MelcapError
from melcap.training import ranks
from melcap.training.audio_cache import AudioCache
from melcap.training.crops import CropSampler
from melcap.training.decoding import build_cache
from melcap.training.launch import Processes, processes
from melcap.training.loop import LoopOptions, print_error, train
from melcap.training.recipe import Recipe
from melcap.training.source import CropSource
from melcap.training.start import prepare
from melcap.training.stream.sampler import StreamOptions, StreamSampler

CPU_BATCH = 8
CUDA_BATCH = 32
"""Crops in a batch where no setting says otherwise."""
SECONDS_TO_END = 4.0
"""Seconds before a deadline at which training ends: for the last step, its checkpoint and the log.
"""
OUT_OF_MEMORY = "the GPU is out of memory"
"""The beginning of the error for a batch that is too large."""


@dataclass(frozen=True)
class RunOptions:
    """The options of a session.

    Attributes:
        sources: tar shards, or folders CLASS/clip, of training audio. With `stream`, tar shards
            as `StreamSampler` takes them.
        out: the folder for checkpoints and logs.
        settings: settings of `TrainingConfig` by name, checked by `prepare`. The others are those
            of the run's checkpoint, else the recipe's own.
        weights: a weights file to begin with, "default" for those that ship, or None.
        minutes: the wall time of the session, its start not counted.
        deadline: the time by which the session must have saved and ended, in seconds since 1970.
        schedule_minutes: the training time, of all sessions, over which the learning rate falls.
        cache: the folder for decoded audio; None for OUT/audio.
        stream: decode the sources as the run goes on, without a cache.
        device: cpu, cuda, cuda:1 ...; None for a GPU if there is one.
        bf16: run the networks in bfloat16; None for yes on a GPU.
        compiled: compile with torch.compile; None to decide by the first minute's rates on a GPU.
        save_minutes: the time between checkpoints.
        picture_minutes: the time between pictures in TensorBoard; infinity for none.
        threads: the number of CPU threads; None for torch's own, and for a share of the cores where
            several processes train together.
        accumulate: the number of pieces in which each process takes its crops of a step. It changes
            memory and speed, and weights in rounding only.
    """

    sources: Sequence[Path | str]
    out: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    minutes: float = math.inf
    deadline: float | None = None
    schedule_minutes: float | None = None
    cache: Path | None = None
    stream: StreamOptions | None = None
    device: str | None = None
    bf16: bool | None = None
    compiled: bool | None = None
    save_minutes: float = 1.0
    picture_minutes: float = 5.0
    threads: int | None = None
    accumulate: int = 1


def run_session(
    options: RunOptions, tell: Callable[[str], None] = print_error
) -> signal.Signals | None:
    """Train one stage until the time is over; resume the run that is in the folder.

    Ctrl-C or SIGTERM ends training after the step, with a checkpoint; a second one ends at once.

    Args:
        options: see `RunOptions`.
        tell: prints a sentence for the user.

    Returns:
        The signal that ended training, or None.

    Raises:
        InputError: for settings, sources and checkpoints that cannot be used, and an absent device.
        WeightsError: for weights that cannot be loaded.
        MelcapError: for a deadline that is too near, a GPU without enough memory, and as `train`
            does.
    """
    with processes() as together, _explained_out_of_memory():
        device = _prepare_device(together.device(options.device))
        together.begin(device)
        if not ranks.is_first():
            tell = _leave_unsaid
        on_gpu = device.startswith("cuda")
        if threads := options.threads or together.threads:
            torch.set_num_threads(threads)
        batch = CUDA_BATCH if on_gpu else CPU_BATCH
        start = prepare(options.out, options.settings, options.weights, batch)
        recipe = start.recipe
        for note in start.notes:
            tell(note)
        recipe.bf16 = on_gpu if options.bf16 is None else options.bf16
        recipe.accumulate = options.accumulate
        rows = ranks.rows(recipe.config.batch, options.accumulate)
        options.out.mkdir(parents=True, exist_ok=True)
        with _source(options, recipe, together, rows, tell) as source:
            for module in recipe.modules().values():
                module.to(device)
            if options.compiled:
                recipe.compile()
            loop = LoopOptions(
                minutes=ranks.first_value(_minutes_left(options.minutes, options.deadline)),
                schedule_minutes=options.schedule_minutes,
                device=device,
                save_minutes=options.save_minutes,
                picture_minutes=options.picture_minutes,
                compile_trial=on_gpu and options.compiled is None,
            )
            with _stopping_on_signals(tell) as came:
                path, history = start.checkpoint, start.history
                train(recipe, source, path, loop, history, lambda: bool(came), tell)
                ended_by = ranks.greatest(came[0] if came else 0)  # once the first one has saved
        return signal.Signals(ended_by) if ended_by else None


@contextmanager
def _source(
    options: RunOptions,
    recipe: Recipe,
    together: Processes,
    rows: slice,
    tell: Callable[[str], None],
) -> Iterator[CropSource]:
    """Yield the source of crops: a stream, or a cache that is filled first."""
    config = recipe.config
    if options.stream is None:
        paths = sorted(set(map(Path, options.sources)))  # the same data in any order
        cache = options.cache or options.out / "audio"
        workers = options.threads or os.cpu_count() or 2
        together.once_per_machine(lambda: build_cache(paths, cache, workers))
        audio = AudioCache(cache)
        tell(f"{audio.hours:.1f} hours of audio, classes {', '.join(audio.classes)}")
        yield CropSampler(
            audio,
            recipe.samples,
            config.batch,
            config.seed,
            gain_db=config.gain_db,
            class_weights=config.class_weights,
            narrowed=config.narrowed,
            rows=rows,
        )
        return
    if options.cache is not None:
        raise InputError("a stream has no cache: leave out --cache or --stream")
    with StreamSampler(
        list(map(str, options.sources)),
        recipe.samples,
        config.batch,
        config.seed,
        gain_db=config.gain_db,
        class_weights=config.class_weights,
        narrowed=config.narrowed,
        options=options.stream,
        rank=ranks.rank(),
        world=ranks.count(),
    ) as stream:
        try:
            yield stream
        finally:
            tell(stream.summary())


def _leave_unsaid(sentence: str) -> None:
    """Say nothing: the first of several processes says the same."""


def _minutes_left(asked: float, deadline: float | None) -> float:
    """Return the minutes to train: those asked for, and no more than the deadline leaves."""
    if deadline is None:
        return asked
    left = (deadline - time.time() - SECONDS_TO_END) / 60
    if left <= 0:
        raise MelcapError(
            f"the deadline leaves no time to train: it is {deadline - time.time():.0f} s away, and "
            f"{SECONDS_TO_END:.0f} s are kept for saving"
        )
    return min(asked, left)


def _prepare_device(name: str | None) -> str:
    """Return the device to train on, once torch is set up for it."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu":
        index = int(name.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise InputError(
                f"no device {name} here: `melcap doctor` prints the reason; use --device cpu"
            )
        torch.cuda.set_device(index)
        torch.set_float32_matmul_precision("high")  # what is not in bfloat16 may round to TF32
        torch.backends.cudnn.benchmark = True  # all shapes stay the same
    return name


@contextmanager
def _explained_out_of_memory() -> Iterator[None]:
    """Raise MelcapError, with what to do, where a block runs out of GPU memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MelcapError(
            f"{OUT_OF_MEMORY}: use a smaller --batch, fewer --columns or, with discriminators, "
            "fewer --discriminator-columns"
        ) from error


@contextmanager
def _stopping_on_signals(tell: Callable[[str], None]) -> Iterator[list[signal.Signals]]:
    """Yield a list that collects Ctrl-C and SIGTERM; a second one has its usual effect.

    Among several processes a second one has no effect. There a signal may come from torchrun and
    from the scheduler both, and also because another process failed, when nothing can be saved.
    """
    came: list[signal.Signals] = []

    def collect(number: int, _: object) -> None:
        came.append(signal.Signals(number))
        if ranks.count() == 1:
            signal.signal(number, before[signal.Signals(number)])
            tell("saving, then training ends; the same command resumes it")

    before = {number: signal.signal(number, collect) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
