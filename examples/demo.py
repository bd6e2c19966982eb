"""Hear the codec: `python examples/demo.py` makes tokens, audio and a picture of each clip.

The clips are those of the repository's `examples/audio`, or files named on the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from melcap import Codec, audio, decode_file, encode_file, load
from melcap.audio import AUDIO_SUFFIXES
from melcap.cli.batch import prepare_process, sentences
from melcap.cli.plan import plan
from melcap.errors import AudioFileError
from melcap.evaluation.measures.metrics import log_spectral_distance
from melcap.io.container import read as read_tokens
from melcap.plot.spectrogram import picture

CLIPS = Path(__file__).parent / "audio"
RUNS = 3
COLUMNS = ("clip", "seconds", "bytes", "kbps", "encode", "decode", "distance")


def demo(
    clips: Annotated[
        list[Path] | None, typer.Argument(help="Audio files; default: those of the repository.")
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder to write to.")] = "demo",
    weights: Annotated[
        Path | None, typer.Option(help="Weights file instead of the built-in one.")
    ] = None,
) -> None:
    """Clips to tokens and back: a .melcap, a wav, a picture, and a line of a table for each."""
    with sentences():
        if not clips and not CLIPS.is_dir():
            raise AudioFileError(f"{CLIPS} is not there: name audio files to listen to")
        codec = load(weights)
        jobs = plan(clips or [CLIPS], f"{out}/", AUDIO_SUFFIXES, (".melcap",))
        table = Table(*COLUMNS, caption="speed in times real time; log-spectral distance, 0 best")
        for column in table.columns[1:]:
            column.justify = "right"
        for job in track(jobs, "round trip", console=Console(stderr=True), transient=True):
            job.target.parent.mkdir(parents=True, exist_ok=True)
            table.add_row(*_round_trip(job.source, job.target, codec))
    console = Console()
    console.print(f"{codec.model} on {torch.get_num_threads()} threads", highlight=False)
    console.print(table)
    heard = sorted({str(job.source.parent) for job in jobs})
    typer.echo(f"Listen: {out}/*.wav, against {', '.join(heard)}; look: {out}/*.png")


def _round_trip(clip: Path, tokens: Path, codec: Codec) -> tuple[str, ...]:
    """The files of one clip, and its row of the table."""
    decoded = tokens.with_suffix(".wav")
    encoded = encode_file(clip, tokens, codec, force=True)
    decode_file(tokens, decoded, codec, force=True)
    before, rate = audio.read(clip)
    after, _ = audio.read(decoded)
    codes = codec.encode(before, rate)
    picture(
        tokens.with_suffix(".png"),
        before[0],
        after[0],
        read_tokens(tokens)[1][0],
        rate,
        f"{clip.name}, {encoded.kbps:.2f} kbps",
        codebook_size=codec.config.tokenizer.codebook_size,
    )
    distances = [log_spectral_distance(*pair, rate) for pair in zip(before, after, strict=True)]
    return (
        clip.name,
        f"{encoded.seconds:.2f}",
        str(encoded.file_bytes),
        f"{encoded.kbps:.2f}",
        f"{encoded.seconds / _time(lambda: codec.encode(before, rate)):.0f}x",
        f"{encoded.seconds / _time(lambda: codec.decode(codes)):.0f}x",
        f"{sum(distances) / len(distances):.2f}",
    )


def _time(work: Callable[[], object]) -> float:
    """Median seconds; once before, so that nothing is done for the first time."""
    work()
    seconds = []
    for _ in range(RUNS):
        began = perf_counter()
        work()
        seconds.append(perf_counter() - began)
    return median(seconds)


def main() -> None:
    prepare_process()
    typer.run(demo)


if __name__ == "__main__":
    main()
