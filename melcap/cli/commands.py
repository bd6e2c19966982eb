"""The command line: every command, or where it lies.

Results go to stdout; progress, and errors as one sentence each, to stderr. The exit status is 0
where all went well, 1 where something failed, 2 for wrong usage, 130 after Ctrl-C.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer
import typer.core

# Everything heavy is imported inside the command that needs it: --help must be quick.
from melcap.cli import batch
from melcap.cli.batch import Progress, Record, record_of, run
from melcap.cli.bulk import detokenize, stats, tokenize
from melcap.cli.evaluate import evaluate
from melcap.cli.export import export
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
    Inputs,
    Out,
    OutRequired,
    QualityChoice,
    QualityName,
    Quiet,
    SampleRate,
    Weights,
    open_codec,
)
from melcap.cli.plan import PIPE, Job, plan
from melcap.errors import InputError


class _Commands(typer.core.TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        with batch.sentences(as_json="--json" in ctx.args):  # the arguments of the command
            return super().invoke(ctx)


def _version(wanted: bool) -> None:
    if wanted:
        from melcap import __version__

        typer.echo(f"melcap {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point; exits with the status."""
    batch.prepare_process()
    app(prog_name="melcap")


@app.callback()
def _melcap(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Speech, music and sound as one stream of tokens, and back."""


@app.command()
def encode(
    inputs: Inputs,
    out: Out = None,
    compact: Compact = False,
    weights: Weights = None,
    device: Device = "cpu",
    backend: BackendChoice = Backend.auto,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Encode audio (wav, flac, ogg, opus, mp3, m4a, webm ...) to .melcap files."""
    from melcap.audio import AUDIO_SUFFIXES
    from melcap.transcode import encode_file

    passed = Counter[str]()
    jobs = plan(inputs, out, AUDIO_SUFFIXES, (".melcap",), passed)
    with open_codec(weights, device, backend) as codec:

        def work(job: Job, progress: Progress) -> Record:
            began = perf_counter()
            done = encode_file(
                job.source, job.target, codec, compact=compact, force=force, progress=progress
            )
            return record_of(done, encode_speed=done.seconds / (perf_counter() - began))

        run(jobs, work, suffix=".melcap", passed=passed, as_json=as_json, quiet=quiet)


@app.command()
def decode(
    inputs: Inputs,
    out: Out = None,
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
    """Tokens to audio: .melcap files become wav or flac files."""
    from melcap.transcode import decode_file

    targets, passed = _audio_targets(audio_format), Counter[str]()
    jobs = plan(inputs, out, (".melcap",), targets, passed)
    with open_codec(weights, device, backend, quality, decoder) as codec:

        def work(job: Job, progress: Progress) -> Record:
            began = perf_counter()
            done = decode_file(
                job.source,
                job.target,
                codec,
                sample_rate=sample_rate,
                force=force,
                progress=progress,
            )
            return record_of(done, decode_speed=done.seconds / (perf_counter() - began))

        run(jobs, work, suffix=targets[0], passed=passed, as_json=as_json, quiet=quiet)


@app.command()
def transcode(
    inputs: Inputs,
    out: OutRequired,
    audio_format: AudioFormat = None,
    sample_rate: SampleRate = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the .melcap file, beside the audio.")
    ] = False,
    compact: Compact = False,
    quality: QualityChoice = QualityName.default,
    weights: Weights = None,
    decoder: Decoder = None,
    device: Device = "cpu",
    backend: BackendChoice = Backend.auto,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Audio to tokens and back to audio, to hear what the codec makes of it."""
    from tempfile import TemporaryDirectory

    from melcap.audio import AUDIO_SUFFIXES
    from melcap.io import container
    from melcap.transcode import decode_file, encode_file, refuse_existing

    targets, passed = _audio_targets(audio_format), Counter[str]()
    jobs = plan(inputs, out, AUDIO_SUFFIXES, targets, passed)
    if keep and jobs[0].target == PIPE:
        raise InputError("--keep needs an --out FILE, beside which the .melcap file goes")
    if compact and not keep:
        raise InputError("--compact is for the .melcap file that --keep keeps: give both")
    with (
        open_codec(weights, device, backend, quality, decoder) as codec,
        TemporaryDirectory(prefix="melcap-") as scratch,
    ):
        tokens = Path(scratch) / "tokens.melcap"

        def work(job: Job, progress: Progress) -> Record:
            kept = job.target.with_suffix(".melcap")
            for target in (job.target, kept) if keep else (job.target,):
                refuse_existing(job.source, target, force)
            began = perf_counter()
            encoded = encode_file(
                job.source, tokens, codec, compact=compact, force=True, progress=progress
            )
            between = perf_counter()
            decoded = decode_file(
                tokens, job.target, codec, sample_rate=sample_rate, force=force, progress=progress
            )
            ended = perf_counter()
            if keep:
                container.write(kept, *container.read(tokens))
            return {
                **record_of(decoded),
                "tokens": str(kept) if keep else None,
                "encode_speed": encoded.seconds / (between - began),
                "decode_speed": decoded.seconds / (ended - between),
            }

        run(jobs, work, suffix=targets[0], passed=passed, passes=2, as_json=as_json, quiet=quiet)


@app.command()
def info(
    file: Annotated[
        Path | None,
        typer.Argument(help="A .melcap or weights file; default: the built-in weights."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What a .melcap file holds, or what a model is: rates, receptive field, latency, size."""
    from melcap.cli.info import describe

    data, text = describe(file)
    if as_json:
        batch.print_json(data)
    else:
        typer.echo(text)


@app.command()
def plot(
    file: Annotated[Path, typer.Argument(help="An audio or .melcap file.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A .png file. Default: beside the input.")
    ] = None,
    start: Annotated[float, typer.Option(min=0, help="Where to begin, in seconds.")] = 0,
    seconds: Annotated[float, typer.Option(min=0.05, max=600, help="How much to show.")] = 10,
    channel: Annotated[int, typer.Option(min=1, help="Which channel to show.")] = 1,
    quality: QualityChoice = QualityName.default,
    weights: Weights = None,
    decoder: Decoder = None,
    device: Device = "cpu",
    backend: BackendChoice = Backend.auto,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """A picture: log-mel before and after, and the tokens. A .melcap file has no before."""
    from melcap.cli.plot import picture_of_file
    from melcap.transcode import refuse_existing

    target = out or file.with_suffix(".png")
    refuse_existing(file, target, force)
    with open_codec(weights, device, backend, quality, decoder) as codec, batch.folder_for(target):
        picture_of_file(file, target, codec, start=start, seconds=seconds, channel=channel)
    if as_json:
        batch.print_json({"source": str(file), "target": str(target)})
    elif not quiet:
        typer.echo(f"{file} -> {target}")


for command in (tokenize, detokenize, stats, evaluate, export):
    app.command()(command)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What is installed, what runs where and why not, and what to do about each problem."""
    from melcap.cli.doctor import examine

    data, text = examine()
    if as_json:
        batch.print_json(data)
    else:
        typer.echo(text)
    if data["problems"]:
        raise typer.Exit(1)


def _audio_targets(audio_format: Format | None) -> tuple[str, ...]:
    return (".wav", ".flac") if audio_format is None else (f".{audio_format.value}",)
