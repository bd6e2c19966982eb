"""Train a codec: `python -m melcap.training.run --stage 1 --minutes 60 --data A.tar --out OUT`.

Three runs make a codec, each resumable at any moment by the same command:

    --stage 1                OUT/stage1/   encoder, codebook, mel decoder
    --stage 2 --from-mels    OUT/vocoder/  the vocoder on true mels
    --stage 2                OUT/stage2/   mel decoder and vocoder together, on tokens

The first two do not depend on each other. `python -m melcap.training.export OUT` ends it. With
`--weights FILE` a run starts from trained weights; `--weights default` are those that ship. Stage 2
goes on so with `--constant-phase`, from weights with the Griffin-Lim steps that they decode with.

Settings (melcap.training.config) are those of the options; what they leave open is as `--config`
says, else as the run had it before, else the recipe's own. A run that goes on may change its rate,
batch, columns and judged columns, and discriminators may join; anything else is refused.
"""

from __future__ import annotations

import math
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer

from melcap.cli.batch import sentences
from melcap.errors import InputError, MelcapError
from melcap.training.config import read_settings
from melcap.training.crops import CropSampler
from melcap.training.data import AudioCache, build_cache
from melcap.training.loop import train
from melcap.training.start import prepare

CUDA_BATCH = 32
SECONDS_TO_END = 4.0
"""Seconds before a deadline at which training ends: for the last step, its checkpoint and the log.
"""


def main(
    minutes: Annotated[
        float | None, typer.Option(help="wall time of this run, its start not counted", min=0)
    ] = None,
    shards: Annotated[
        list[Path] | None, typer.Argument(metavar="SHARD...", help="more of --data")
    ] = None,
    stage: Annotated[
        int | None, typer.Option(help="1: tokenizer; 2: vocoder", min=1, max=2)
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="tar shards, or folders CLASS/clip; one or several")
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(help="when the process must have saved and ended, in seconds since 1970"),
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for checkpoints and logs")] = Path(
        "runs/melcap"
    ),
    schedule_minutes: Annotated[
        float | None, typer.Option(help="time over which the learning rate falls, in all runs")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="settings as JSON; the other options override it")
    ] = None,
    codec: Annotated[
        Path | None, typer.Option(help="the codec's configuration as JSON; the lite one by default")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="peak learning rate; the recipe's own if not given")
    ] = None,
    from_mels: Annotated[
        bool | None, typer.Option(help="stage 2 on true mels, not on tokens")
    ] = None,
    constant_phase: Annotated[
        bool | None, typer.Option(help="stage 2 hears all Griffin-Lim steps, and keeps the phases")
    ] = None,
    discriminators: Annotated[
        int | None,
        typer.Option(help="width of the discriminators; 0 trains without", min=0),
    ] = None,
    judged: Annotated[
        int | None,
        typer.Option(help="stage 2: columns that discriminators hear; all by default", min=1),
    ] = None,
    columns: Annotated[int | None, typer.Option(help="supervised columns of a crop", min=1)] = None,
    batch: Annotated[
        int | None,
        typer.Option(help=f"crops in a batch; 8, or {CUDA_BATCH} on a GPU, if not given", min=1),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="weights file to start from, or 'default'")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="decoded audio; OUT/audio if not given")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 ...; a GPU where there is one")
    ] = None,
    bf16: Annotated[
        bool | None, typer.Option(help="networks in bfloat16; on a GPU unless switched off")
    ] = None,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="torch.compile; if not said, the first minute's rates decide on a GPU",
        ),
    ] = None,
    decoder_only: Annotated[
        bool | None, typer.Option(help="stage 1 for a tokenizer that stays as it is")
    ] = None,
    save_minutes: Annotated[float, typer.Option(help="time between checkpoints", min=0)] = 1.0,
    picture_minutes: Annotated[
        float, typer.Option(help="time between pictures in TensorBoard; inf: none", min=0)
    ] = 5.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads", min=1)] = None,
    seed: Annotated[
        int | None, typer.Option(help="of weights and of the order of the data", min=0)
    ] = None,
) -> None:
    """Train one stage for a while; the same command goes on where it stopped.

    `--data a.tar b.tar` is the same as `--data a.tar --data b.tar`.
    """
    sources = sorted({*(data or ()), *(shards or ())})  # the same data in any order
    if not sources:
        raise typer.BadParameter("give tar shards or folders of audio", param_hint="--data")
    options = {
        **{"stage": stage, "from_mels": from_mels, "constant_phase": constant_phase},
        **{"rate": rate, "batch": batch, "columns": columns, "seed": seed},
        **{"discriminators": discriminators, "judged": judged, "decoder_only": decoder_only},
    }
    if minutes is None and deadline is None:
        raise typer.BadParameter("give --minutes, --deadline or both", param_hint="--minutes")
    with sentences(), _gpu_memory():
        device = _device(device)
        on_gpu = device.startswith("cuda")
        if threads is not None:
            torch.set_num_threads(threads)
        given = read_settings(config) if config is not None else {}
        given |= {name: value for name, value in options.items() if value is not None}
        if codec is not None:
            given["codec"] = read_settings(codec)
        if "stage" not in given:
            raise typer.BadParameter("1 or 2 must be given", param_hint="--stage")
        start = prepare(out, given, weights, CUDA_BATCH if on_gpu else 8)
        recipe = start.recipe
        for note in start.notes:
            typer.echo(note, err=True)
        recipe.bf16 = on_gpu if bf16 is None else bf16
        out.mkdir(parents=True, exist_ok=True)
        workers = threads or os.cpu_count() or 2
        audio = AudioCache(build_cache(sources, cache or out / "audio", workers))
        typer.echo(
            f"{audio.hours:.1f} hours of audio, classes {', '.join(audio.classes)}", err=True
        )
        for module in recipe.modules().values():
            module.to(device)
        if compiled:
            recipe.compile()
        settings = recipe.config
        sampler = CropSampler(
            *(audio, recipe.samples, settings.batch, settings.seed),
            gain_db=settings.gain_db,
            class_weights=settings.class_weights,
            narrowed=settings.narrowed,
        )
        with _stopping() as stop:
            train(
                recipe,
                sampler,
                start.checkpoint,
                _minutes_left(minutes, deadline),
                schedule_minutes,
                device,
                picture_minutes=picture_minutes,
                history=start.history,
                stop=stop.is_set,
                save_minutes=save_minutes,
                compile_trial=on_gpu and compiled is None,
            )


def _minutes_left(minutes: float | None, deadline: float | None) -> float:
    """Return the minutes to train: what was asked for, and no more than the deadline leaves."""
    asked = math.inf if minutes is None else minutes
    if deadline is None:
        return asked
    left = (deadline - time.time() - SECONDS_TO_END) / 60
    if left <= 0:
        raise MelcapError(
            f"the deadline leaves no time to train: it is {deadline - time.time():.0f} s away, and "
            f"{SECONDS_TO_END:.0f} s are kept for saving"
        )
    return min(asked, left)


def _device(name: str | None) -> str:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise typer.BadParameter(
            f"{name!r} is none of cpu, cuda, cuda:1, ...", param_hint="--device"
        )
    if name != "cpu":
        index = int(name.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise InputError(f"no device {name} here: `melcap doctor` says why, --device cpu works")
        torch.cuda.set_device(index)
        torch.set_float32_matmul_precision("high")  # what is not in bfloat16 may round to TF32
        torch.backends.cudnn.benchmark = True  # all shapes stay as they are
    return name


@contextmanager
def _gpu_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MelcapError(
            "the GPU's memory is full: take a smaller --batch, fewer --columns or, with "
            "discriminators, fewer --judged columns"
        ) from error


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Ctrl-C or a kill sets the event, so that the step is finished and saved; a second one ends.

    Leaves with status 130 or 143 where one came.
    """
    stop = threading.Event()
    came: list[int] = []

    def wait(number: int, _: object) -> None:
        came.append(number)
        stop.set()
        signal.signal(number, before[signal.Signals(number)])
        typer.echo("saving, then it ends; the same command goes on", err=True)

    before = {number: signal.signal(number, wait) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise typer.Exit(128 + came[0])


if __name__ == "__main__":
    typer.run(main)
