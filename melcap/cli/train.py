"""`melcap train`, and what belongs to it: `melcap train-decode` and `melcap train-curves`."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import typer

from melcap.cli.options import check_device


def train(
    shards: Annotated[
        list[str] | None, typer.Argument(metavar="SHARD...", help="The same as --data.")
    ] = None,
    stage: Annotated[
        int | None, typer.Option(help="1: the tokenizer; 2: the vocoder.", min=1, max=2)
    ] = None,
    joint: Annotated[
        bool | None,
        typer.Option("--joint", help="All parts of a trained codec together, in place of --stage."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Tar shards, or folders CLASS/clip; one or several of them."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Wall time of this session, without its start.", min=0)
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            help="When the session must have saved and ended, in seconds since 1970. Give "
            "--minutes, --deadline or both."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder for checkpoints and logs.")
    ] = Path("runs/melcap"),
    schedule_minutes: Annotated[
        float | None,
        typer.Option(
            help="Time over which the learning rate falls, in all sessions together. Default: the "
            "time so far and --minutes."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings as JSON. The other options override them.")
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="The codec: lite, half-rate, or its configuration as JSON. Default: lite.",
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Peak learning rate. Default: the recipe's own.")
    ] = None,
    from_mels: Annotated[
        bool | None, typer.Option(help="Stage 2 on true mels, not on tokens.")
    ] = None,
    constant_phase: Annotated[
        bool | None,
        typer.Option(help="Stage 2 with all Griffin-Lim steps, and the phases as constants."),
    ] = None,
    discriminators: Annotated[
        int | None, typer.Option(help="Width of the discriminators; 0 trains without.", min=0)
    ] = None,
    discriminator_kind: Annotated[
        str | None,
        typer.Option(
            metavar="[waves|magnitudes]",
            help="Stage 2 and joint: discriminators of samples and complex spectra, or of log "
            "magnitudes alone. Default: waves.",
        ),
    ] = None,
    discriminator_columns: Annotated[
        int | None,
        typer.Option(
            help="Stage 2 and joint: columns of a crop that discriminators see. Default: all.",
            min=1,
        ),
    ] = None,
    columns: Annotated[
        int | None, typer.Option(help="Supervised columns of a crop. Default: the recipe's.", min=1)
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="Crops of a step, on all GPUs. Default: 8, or 32 on a GPU.", min=1),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="A weights file to start from, or 'default'.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="The folder for decoded audio. Default: OUT/audio.")
    ] = None,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Decode tar shards as the run goes on, without a cache. --data then also takes "
            "patterns such as 'train-{000..127}.tar', URLs and 'pipe:COMMAND'.",
        ),
    ] = False,
    stream_memory: Annotated[
        float, typer.Option(help="With --stream: GB of memory for decoded audio.")
    ] = 2.0,
    reuse: Annotated[
        float,
        typer.Option(help="With --stream: crops from each clip, as a multiple of its length."),
    ] = 4.0,
    decoders: Annotated[
        int, typer.Option(help="With --stream: processes that decode, each its own shards.", min=1)
    ] = 8,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda, cuda:1 ... Default: a GPU if there is one.", callback=check_device
        ),
    ] = None,
    bf16: Annotated[
        bool | None, typer.Option(help="Networks in bfloat16. Default: on a GPU alone.")
    ] = None,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Use torch.compile. Default: on a GPU, if it is faster in the first minute.",
        ),
    ] = None,
    decoder_only: Annotated[
        bool | None, typer.Option(help="Stage 1 for a tokenizer that does not change.")
    ] = None,
    save_minutes: Annotated[float, typer.Option(help="Time between checkpoints.", min=0)] = 1.0,
    picture_minutes: Annotated[
        float, typer.Option(help="Time between pictures in TensorBoard; inf: none.", min=0)
    ] = 5.0,
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads. Default: all cores, under torchrun a share.", min=1),
    ] = None,
    accumulate: Annotated[
        int,
        typer.Option(help="Pieces in which each process takes its crops of a step.", min=1),
    ] = 1,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights and of the order of the data.", min=0)
    ] = None,
) -> None:
    """Train a stage of a codec for some minutes; the same command resumes it.

    Three runs make a codec: --stage 1 the tokenizer, --stage 2 --from-mels the vocoder on true
    mels, --stage 2 mel decoder and vocoder together, on tokens. The first two do not depend on each
    other. A last one, --joint, tunes all parts together, which gives other tokens. `melcap export
    RUN --weights FILE` writes the codec.

    Settings without an option are those of --config, else those that the run had before, else the
    recipe's own. A run that is resumed may change its rate, batch, columns and discriminator
    columns, and may add discriminators.

    `torchrun --nproc-per-node 8 -m melcap train ...` trains on 8 GPUs. They share the crops of
    --batch, which gives the same weights as one GPU, to rounding. `--data a.tar b.tar` is the same
    as `--data a.tar --data b.tar`.
    """
    sources = [*(data or ()), *(shards or ())]
    if not sources:
        raise typer.BadParameter("give tar shards or folders of audio", param_hint="--data")
    if minutes is None and deadline is None:
        raise typer.BadParameter("give --minutes, --deadline or both", param_hint="--minutes")

    from melcap.training.run import RunOptions, run_session
    from melcap.training.settings_files import read_codec, read_settings
    from melcap.training.stream.sampler import StreamOptions

    given = {
        "stage": stage,
        "joint": joint,
        "from_mels": from_mels,
        "constant_phase": constant_phase,
        "rate": rate,
        "batch": batch,
        "columns": columns,
        "seed": seed,
        "discriminators": discriminators,
        "discriminator_kind": discriminator_kind,
        "discriminator_columns": discriminator_columns,
        "decoder_only": decoder_only,
        "codec": None if codec is None else read_codec(codec),
    }
    settings = {} if config is None else read_settings(config)
    settings |= {name: value for name, value in given.items() if value is not None}
    if "stage" not in settings and not settings.get("joint"):
        raise typer.BadParameter("1 or 2 must be given, or --joint", param_hint="--stage")
    ended = run_session(
        RunOptions(
            sources=sources,
            out=out,
            settings=settings,
            weights=weights,
            minutes=math.inf if minutes is None else minutes,
            deadline=deadline,
            schedule_minutes=schedule_minutes,
            cache=cache,
            stream=StreamOptions(stream_memory, reuse, decoders) if stream else None,
            device=device,
            bf16=bf16,
            compiled=compiled,
            save_minutes=save_minutes,
            picture_minutes=picture_minutes,
            threads=threads,
            accumulate=accumulate,
        )
    )
    if ended is not None:
        raise typer.Exit(128 + ended)


def train_decode(
    sources: Annotated[list[Path], typer.Argument(help="Tar shards, or folders CLASS/clip.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the decoded audio.")],
    workers: Annotated[
        int | None, typer.Option(help="Worker processes. Default: one for each core.", min=1)
    ] = None,
) -> None:
    """Decode training audio in advance.

    `melcap train --cache OUT` with the same sources then begins at once.
    """
    # These import no torch, nor do the worker processes, which start quickly on many cores.
    from melcap.training.audio_cache import AudioCache
    from melcap.training.decoding import build_cache

    cache = AudioCache(build_cache(sorted(set(sources)), out, workers or os.cpu_count() or 2))
    typer.echo(f"{out}: {cache.hours:.1f} hours of audio, classes {', '.join(cache.classes)}")


def train_curves(
    runs: Annotated[list[Path], typer.Argument(help="Folders of training runs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The PNG to write.")] = Path(
        "curves.png"
    ),
) -> None:
    """Draw the losses of training runs against the minutes of training."""
    from melcap.training.curves import draw_curves

    draw_curves(runs, out)
    typer.echo(str(out))
