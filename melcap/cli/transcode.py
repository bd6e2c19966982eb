"""`melcap encode`, `decode` and `transcode`: audio files to .melcap files and back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from melcap.cli.batch import BatchOptions, Record, record_of, run
from melcap.cli.jobs import PIPE, Job, plan
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
from melcap.io.suffixes import AUDIO_SUFFIXES

if TYPE_CHECKING:
    from melcap.transcode import Advance


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
    """Encode audio files (wav, flac, ogg, opus, mp3, m4a, webm ...) as .melcap files."""
    from melcap.transcode import encode_file

    passed = Counter[str]()
    jobs = plan(inputs, out, AUDIO_SUFFIXES, (".melcap",), passed)
    with open_codec(weights, device, backend) as codec:

        def work(job: Job, progress: Advance) -> Record:
            began = perf_counter()
            done = encode_file(
                job.source, job.target, codec, compact=compact, force=force, progress=progress
            )
            return record_of(done, encode_speed=done.seconds / (perf_counter() - began))

        run(jobs, work, BatchOptions(".melcap", passed, as_json, quiet))


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
    """Decode .melcap files to wav or flac files."""
    from melcap.transcode import decode_file

    targets, passed = _audio_targets(audio_format), Counter[str]()
    jobs = plan(inputs, out, (".melcap",), targets, passed)
    with open_codec(weights, device, backend, quality, decoder) as codec:

        def work(job: Job, progress: Advance) -> Record:
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

        run(jobs, work, BatchOptions(targets[0], passed, as_json, quiet))


def transcode(
    inputs: Inputs,
    out: OutRequired,
    audio_format: AudioFormat = None,
    sample_rate: SampleRate = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Also write the .melcap file, beside the audio.")
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
    """Encode and decode audio files, to hear what the codec makes of them."""
    from tempfile import TemporaryDirectory

    from melcap.io import container
    from melcap.transcode import decode_file, encode_file, refuse_existing

    targets, passed = _audio_targets(audio_format), Counter[str]()
    jobs = plan(inputs, out, AUDIO_SUFFIXES, targets, passed)
    if keep and jobs[0].target == PIPE:
        raise typer.BadParameter("needs an --out FILE to write beside", param_hint="--keep")
    if compact and not keep:
        raise typer.BadParameter("is for the file that --keep writes", param_hint="--compact")
    with (
        open_codec(weights, device, backend, quality, decoder) as codec,
        TemporaryDirectory(prefix="melcap-") as scratch,
    ):
        tokens = Path(scratch) / "tokens.melcap"

        def work(job: Job, progress: Advance) -> Record:
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

        run(jobs, work, BatchOptions(targets[0], passed, as_json, quiet, passes=2))


def _audio_targets(audio_format: Format | None) -> tuple[str, ...]:
    return (".wav", ".flac") if audio_format is None else (f".{audio_format.value}",)
