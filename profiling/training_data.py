"""Measure what `melcap train --stream` costs the CPU: `python profiling/training_data.py TAR`.

Decoding is what a lane does: read the tar, decode, mix, resample. It is measured on the clips as
they are and on the same clips as FLAC at 44.1 kHz. Drawing is what the training process does for
each crop. All figures are seconds of audio for each second of one core (CPU time, so that other
processes on the machine matter less), medians of alternating rounds.
"""

from __future__ import annotations

import io
import statistics
import tarfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from paths import RESULTS

from melcap import audio
from melcap.markdown import table
from melcap.provenance import provenance
from melcap.training.audio_cache import SAMPLE_RATE
from melcap.training.cutting import DRAWS, Cutter
from melcap.training.stream.lane import Piece, Plan, Position, events
from melcap.training.stream.sampler import PIECE
from melcap.training.stream.window import Block, Window

CROP = round(3.4 * SAMPLE_RATE)
"""The samples of a crop of stage 1 with 48 columns, and its context."""
CROPS = 200


def pieces(shard: str, clips: int) -> list[Piece]:
    """Return the pieces of the first clips of a shard."""
    lane = events(Plan((shard,), 0, 0, 1, PIECE), Position(0, 0, 0), {})
    found = (event for event in lane if isinstance(event, Piece))
    return list(islice(found, clips))


def as_flac(shard: str, clips: int, target: Path) -> str:
    """Write the first clips of a shard as FLAC, 44.1 kHz and mono, to another tar."""
    with tarfile.open(target, "w") as tar:
        for number, piece in enumerate(pieces(shard, clips)):
            file = io.BytesIO()
            wave = piece.audio[None].astype(np.float32) / 32767
            audio.write(file, wave, SAMPLE_RATE, format="flac")
            info = tarfile.TarInfo(f"{piece.label}/{number}.flac")
            info.size = file.tell()
            file.seek(0)
            tar.addfile(info, file)
    return str(target)


def measured(work: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Return seconds of audio for each second of CPU time, in rounds that alternate."""
    found: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, call in work.items():
            began = time.process_time()
            samples = call()
            if number:  # the first round warms up
                found[name].append(samples / SAMPLE_RATE / (time.process_time() - began))
    return found


def drawing(shard: str, clips: int, narrowed: float) -> Callable[[], int]:
    """Return a function that draws crops and returns how many samples they have."""
    window = Window(Cutter(CROP, narrowed=narrowed), {})
    window.add(Block((), tuple(pieces(shard, clips)), ()))
    draws = np.random.default_rng(0).random((CROPS, DRAWS))

    def draw() -> int:
        out = np.zeros((CROPS, CROP), np.float32)
        for row, some in zip(out, draws, strict=True):
            window.cut(row, some)
        return out.size

    return draw


def main(
    shard: Annotated[Path, typer.Argument(help="A tar shard.")],
    clips: Annotated[int, typer.Option(help="Clips that are decoded.", min=1)] = 60,
    rounds: Annotated[int, typer.Option(help="Rounds that count.", min=1)] = 7,
) -> None:
    """Measure, print a table and write it to results/training-data-cpu.md."""
    with TemporaryDirectory() as folder:
        flac = as_flac(str(shard), clips, Path(folder) / "flac.tar")

        def decoding(tar: str) -> Callable[[], int]:
            return lambda: sum(len(piece.audio) for piece in pieces(tar, clips))

        work = {
            "decoding the shard as it is": decoding(str(shard)),
            "decoding FLAC, 44.1 kHz": decoding(flac),
            "drawing crops": drawing(flac, clips, 0.0),
            "drawing crops, all narrowed": drawing(flac, clips, 1.0),
        }
        rows = [
            [name, f"{statistics.median(some):.0f}", f"{min(some):.0f} to {max(some):.0f}"]
            for name, some in measured(work, rounds).items()
        ]
    made_with = ", ".join(f"{k} {v}" for k, v in provenance(("numpy", "av", "soxr")).items())
    lines = [
        "# What a stream of training data costs",
        f"Seconds of audio for each second of one core: {clips} clips of {shard.name}, "
        f"{rounds} rounds, crops of {CROP / SAMPLE_RATE:.1f} s.",
        table(["what", "median", "range"], rows),
        f"{made_with}. Made by `python profiling/training_data.py {shard.name}`.",
    ]
    text = "\n\n".join(lines) + "\n"
    (RESULTS / "training-data-cpu.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
