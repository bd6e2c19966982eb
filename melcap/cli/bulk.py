"""`melcap tokenize`, `detokenize` and `stats`: whole collections, and what they become."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melcap.cli import batch
from melcap.cli.options import (
    AsJson,
    AudioFormat,
    Backend,
    BackendChoice,
    Compact,
    Decoder,
    Device,
    Force,
    Format,
    QualityChoice,
    QualityName,
    Quiet,
    SampleRate,
    Weights,
    open_codec,
)

if TYPE_CHECKING:
    from melcap.bulk.run import Progress


class TokenFormat(str, Enum):
    parquet = "parquet"
    webdataset = "webdataset"
    melcap = "melcap"


class Engine(str, Enum):
    local = "local"
    ray = "ray"


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Audio files, folders, globs, tars, manifests (.csv, .tsv, .json, .jsonl, .parquet, "
        "wav.scp), and URLs.",
    ),
]
Sets = Annotated[
    list[Path],
    typer.Argument(
        metavar="TOKENS...", help="Folders of tokens, or .parquet, .tar, .melcap files."
    ),
]


def tokenize(
    sources: Sources,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the token set.")],
    token_format: Annotated[
        TokenFormat, typer.Option("--format", help="Of the token set.")
    ] = TokenFormat.parquet,
    compact: Compact = False,
    mono: Annotated[
        bool, typer.Option("--mono", help="Mix the channels of a clip, instead of coding each.")
    ] = False,
    keep: Annotated[
        str,
        typer.Option(
            metavar="COLUMN,...",
            help="Columns of the manifests that go into the token set, such as text,speaker.",
        ),
    ] = "",
    shard_clips: Annotated[int, typer.Option(min=1, help="Clips in a shard.")] = 1000,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try what was bad in an earlier run once more.")
    ] = False,
    batch_seconds: Annotated[
        float | None,
        typer.Option(min=1, help="Audio in a batch. Default: a window; on a GPU 240."),
    ] = None,
    readers: Annotated[
        int | None, typer.Option(min=1, help="Processes that decode audio. Default: by the cores.")
    ] = None,
    lanes: Annotated[
        int | None,
        typer.Option(min=1, help="Threads that encode. Default: each core; on a GPU 2."),
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="ray: on the cluster at RAY_ADDRESS; lanes are its actors.")
    ] = Engine.local,
    weights: Weights = None,
    device: Device = "cpu",
    backend: BackendChoice = Backend.auto,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print progress as a line of JSON twice a second.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """A collection of audio to a token set, for language models: Parquet shards, or others.

    Stopped at any moment and started again, it goes on, and nothing is done twice or lost. What
    cannot be read is passed by and listed in OUT/errors.jsonl; the exit status is then 1.
    """
    from melcap.bulk.entry import in_words
    from melcap.bulk.run import ERRORS, Options
    from melcap.bulk.run import tokenize as run

    options = Options(
        format=token_format.value,
        compact=compact,
        mono=mono,
        keep=tuple(name.strip() for name in keep.split(",")) if keep else (),
        shard_clips=shard_clips,
        readers=readers,
        lanes=lanes,
        engine=engine.value,
        device=device,
        backend=backend.value,
        batch_seconds=batch_seconds,
    )
    if engine is Engine.ray:  # they are for the actors: the head of a cluster may have no GPU
        device, backend = "cpu", Backend.auto
    with open_codec(weights, device, backend) as codec, _reporting(as_json, quiet) as report:
        end = run(sources, out, codec, options, retry=retry, progress=report)
    if as_json:
        _print_line({"event": "end", **_figures(end)})
    elif not quiet:
        typer.echo(
            f"{end.done} of {end.clips} clips in {out}; now {end.audio_seconds / 3600:.2f} h in "
            f"{end.wall_seconds:.0f} s, {end.speed:.1f}x real time"
            + (f", encoders busy {end.busy:.0%}" if end.busy else "")
        )
        if end.passed:
            typer.echo(f"passed over: {in_words(end.passed)}")
        if end.remade:
            typer.echo(f"made again: {end.remade} files of the token set, lost or altered")
    problems = {"could not be read": end.bad + end.unlisted, "have changed since": end.changed}
    for what, count in problems.items():
        if count:
            typer.echo(f"error: {count} {what}: see {out / ERRORS}", err=True)
    if any(problems.values()):
        raise typer.Exit(1)


def detokenize(
    sets: Sets,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the audio.")],
    audio_format: AudioFormat = None,
    sample_rate: SampleRate = None,
    quality: QualityChoice = QualityName.default,
    weights: Weights = None,
    decoder: Decoder = None,
    device: Device = "cpu",
    backend: BackendChoice = Backend.auto,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """The way back: every clip of a token set to OUT/ID.wav.

    What is there already is left alone, so that a run that was stopped goes on.
    """
    from melcap.bulk.detokenize import detokenize as run

    done: list[dict[str, Any]] = []
    failed: list[str] = []
    suffix = f".{(audio_format or Format.wav).value}"
    with open_codec(weights, device, backend, quality, decoder) as codec:
        heard = run(sets, out, codec, suffix=suffix, sample_rate=sample_rate, force=force)
        for each in heard:
            if each.error:
                failed.append(each.error)
                continue
            record = {"id": each.id, "target": str(each.target), "seconds": each.seconds}
            done.append({**record, "done_before": each.done_before})
            if not (as_json or quiet):
                state = "was there" if each.done_before else f"{each.seconds:.2f} s"
                typer.echo(f"{each.id} -> {each.target}: {state}")
    if as_json:
        batch.print_json({"clips": done, "failed": failed})
    for error in failed:
        typer.echo(f"error: {error}", err=True)
    if failed:
        raise typer.Exit(1)


def stats(
    sets: Sets,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw lengths, codes and entropies.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count what a token set holds: clips, hours, rates, and how much of the codebook is used."""
    from melcap.bulk import stats as numbers

    summary = numbers.summarise(sets)
    if plot:
        numbers.plot(summary, plot)
    data = summary.as_json()
    if as_json:
        batch.print_json(data)
        return
    for key, value in data.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name}: {_short(each)}" for name, each in value.items())
        elif isinstance(value, list):
            value = ", ".join(_short(each) for each in value)
        typer.echo(f"{key.replace('_', ' '):18} {_short(value)}")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def _reporting(as_json: bool, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show a run's progress: as a bar on a terminal, as lines of JSON, or not at all."""
    if as_json:
        yield lambda state: _print_line({"event": "progress", **_figures(state)})
        return
    if quiet or not sys.stderr.isatty():
        yield lambda state: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("tokenize"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[speed]:.1f}x real time"),
        progress.TextColumn("{task.fields[bad]} bad"),
        progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, speed=0.0, bad=0)

        def show(state: Progress) -> None:
            bar.update(
                task,
                total=state.clips,
                completed=state.done + state.bad,
                speed=state.speed,
                bad=state.bad,
            )

        yield show


def _figures(state: Progress) -> dict[str, Any]:
    return {
        "clips": state.clips,
        "done": state.done,
        "bad": state.bad,
        "unlisted": state.unlisted,
        "changed": state.changed,
        "remade": state.remade,
        "passed_over": dict(state.passed),
        "audio_seconds": round(state.audio_seconds, 3),
        "wall_seconds": round(state.wall_seconds, 3),
        "speed": round(state.speed, 2),
        "busy": round(state.busy, 3),
        "eta_seconds": state.eta_seconds and round(state.eta_seconds, 1),
    }


def _print_line(data: dict[str, Any]) -> None:
    typer.echo(json.dumps(data))
    sys.stdout.flush()
