"""Commands for whole collections: `melcap tokenize`, `detokenize`, `stats` and `row-tables`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from melcap.cli.bulk_progress import print_event, show_progress
from melcap.cli.exits import FAILURE
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
from melcap.cli.output import print_json
from melcap.errors import InputError


class TokenFormat(str, Enum):
    """The formats of a token set."""

    parquet = "parquet"
    webdataset = "webdataset"
    melcap = "melcap"


class Engine(str, Enum):
    """The engines that run the workers of `tokenize`."""

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
        TokenFormat, typer.Option("--format", help="The format of the token set.")
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
    shard_clips: Annotated[int, typer.Option(min=1, help="The most clips in a shard.")] = 1000,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try clips again that were bad in an earlier run.")
    ] = False,
    batch_seconds: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds of audio in a batch. Default: one window; on a GPU 240."),
    ] = None,
    readers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that decode audio. Default: by the number of cores."),
    ] = None,
    encoders: Annotated[
        int | None,
        typer.Option(min=1, help="Threads that encode. Default: one for each core; on a GPU 2."),
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(help="ray: use the cluster at RAY_ADDRESS; --encoders counts its actors."),
    ] = Engine.local,
    weights: Weights = None,
    device: Device = "cpu",
    backend: BackendChoice = Backend.auto,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print progress as a line of JSON twice a second.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Encode a collection of audio to a token set for language models (Parquet by default).

    A run that was stopped at any moment continues when it is started again; nothing is lost or done
    twice. Files that cannot be read are listed in OUT/errors.jsonl, and the exit status is then 1.
    """
    from melcap.bulk.manifests.passed_over import in_words
    from melcap.bulk.tokenize import ERRORS, Options
    from melcap.bulk.tokenize import tokenize as run

    options = Options(
        format=token_format.value,
        compact=compact,
        mono=mono,
        keep=tuple(name.strip() for name in keep.split(",")) if keep else (),
        shard_clips=shard_clips,
        readers=readers,
        encoders=encoders,
        engine=engine.value,
        device=device,
        backend=backend.value,
        batch_seconds=batch_seconds,
    )
    if engine is Engine.ray:  # both are for the actors; the head of a cluster may have no GPU
        device, backend = "cpu", Backend.auto
    with open_codec(weights, device, backend) as codec, show_progress(as_json, quiet) as show:
        end = run(sources, out, codec, options, retry=retry, progress=show)
    if as_json:
        print_event("end", end)
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
        raise typer.Exit(FAILURE)


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
    """Decode every clip of a token set to OUT/ID.wav, or OUT/ID.flac with --format flac.

    Existing files are kept unless --force is given, so that a run that was stopped continues.
    """
    from melcap.bulk.detokenize import detokenize as run

    done: list[dict[str, Any]] = []
    failed: list[str] = []
    suffix = f".{(audio_format or Format.wav).value}"
    with open_codec(weights, device, backend, quality, decoder) as codec:
        for row in run(sets, out, codec, suffix=suffix, sample_rate=sample_rate, force=force):
            if row.error:
                failed.append(row.error)
                continue
            record = {"id": row.id, "target": str(row.target), "seconds": row.seconds}
            done.append({**record, "done_before": row.done_before})
            if not (as_json or quiet):
                state = "was there" if row.done_before else f"{row.seconds:.2f} s"
                typer.echo(f"{row.id} -> {row.target}: {state}")
    if as_json:
        print_json({"clips": done, "failed": failed})
    for error in failed:
        typer.echo(f"error: {error}", err=True)
    if failed:
        raise typer.Exit(FAILURE)


def stats(
    sets: Sets,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw lengths, frequencies and entropies."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count the clips, hours and rates of a token set, and how much of the codebook it uses."""
    from melcap.bulk import stats as statistics

    summary = statistics.summarise(sets)
    if plot:
        statistics.plot(summary, plot)
    data = summary.as_json()
    if as_json:
        print_json(data)
        return
    for key, value in data.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name}: {_short(each)}" for name, each in value.items())
        elif isinstance(value, list):
            value = ", ".join(_short(each) for each in value)
        typer.echo(f"{key.replace('_', ' '):18} {_short(value)}")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def row_tables(
    sets: Sets,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the row tables.")],
    valid: Annotated[
        list[Path] | None,
        typer.Option(metavar="TOKENS", help="Other tokens, whose bits per token are also printed."),
    ] = None,
) -> None:
    """Make the row tables for compact .melcap files from token sets of one tokenizer.

    They hold how often each codebook entry occurs in each row of the grid.

    The file is named after the tokenizer's id.
    """
    from melcap.bulk.row_frequencies import bits_per_token, row_tables_of
    from melcap.bulk.stats import summarise

    summary = summarise(sets)
    tables = row_tables_of(summary)
    held_out = summarise(valid) if valid else None
    if held_out is not None and held_out.tokenizer_id != tables.tokenizer_id:
        raise InputError(f"--valid has tokens of tokenizer {held_out.tokenizer_id}")
    target = tables.save(out)
    typer.echo(f"{target}: {bits_per_token(tables, summary):.3f} bits per token")
    if held_out is not None:
        typer.echo(f"held out: {bits_per_token(tables, held_out):.3f} bits per token")
