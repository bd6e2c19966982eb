"""Measure how fast a folder of clips becomes tokens, beside the codec alone on this machine.

    python profiling/bulk.py        # 500 clips of 1 to 30 s, in six formats and four rates
    python profiling/bulk.py --ray  # and the same on Ray, on this machine

The codec alone is `Codec.encode` of one 10 s clip at 44.1 kHz, with all the cores and nothing to
decode or resample. It takes turns with the folder. Before a figure counts, a clip of each format
must have the tokens of `Codec.encode`.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import machine
import numpy as np
import soundfile
import torch
import typer
from clips import clip
from memory import peak_kib
from paths import RESULTS

import melcap
from melcap.audio import read
from melcap.bulk.token_sets.shards import read_rows, token_files
from melcap.bulk.tokenize import Options, tokenize

FORMATS = (
    ("wav", "WAV", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("wav", "WAV", "FLOAT"),
)
RATES = (44100, 48000, 16000, 22050, 44100)


def make_folder(folder: Path, count: int) -> float:
    """Write clips cut from the examples, with evenly spread logarithms of length.

    Returns:
        Seconds of audio in all.
    """
    chance = np.random.default_rng(0)
    waves = {rate: clip(60, rate).numpy() for rate in (*RATES, 48000)}
    total = 0.0
    for number in range(count):
        suffix, kind, subtype = FORMATS[number % len(FORMATS)]
        rate = 48000 if suffix == "opus" else RATES[number % len(RATES)]
        seconds = float(np.exp(chance.uniform(0, np.log(30))))
        start = int(chance.uniform(0, 30) * rate)
        samples = waves[rate][start : start + round(seconds * rate)]
        path = folder / f"{number % 10}" / f"{number:04d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, format=kind, subtype=subtype)
        total += len(samples) / rate
    return total


def gate(folder: Path, tokens: Path, codec: melcap.Codec) -> None:
    """Check that a clip of each format has the tokens that the codec alone gives, but for ties.

    Raises:
        SystemExit: it has not, and nothing is timed.
    """
    rows = {row.id: row for file in token_files(tokens) for row in read_rows(file, tokens)}
    paths = sorted(folder.rglob("*.*"))
    if len(rows) != len(paths):
        sys.exit(f"{len(rows)} rows for {len(paths)} clips: not timed")
    for path in {path.suffix: path for path in paths}.values():
        samples, rate = read(path)
        (expected,) = codec.encode(samples, rate).flatten()
        found = rows[f"{folder.name}/{path.relative_to(folder).as_posix()}"].tokens
        differ = int((expected.numpy() != found).sum())
        if differ > len(found) // 1000:
            sys.exit(f"{path.name}: {differ} of {len(found)} tokens differ: not timed")


def main(
    clips: Annotated[int, typer.Option(min=6, help="Clips in the folder.")] = 500,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 3,
    encoders: Annotated[
        int | None, typer.Option(min=1, help="Threads that encode. Default: by the cores.")
    ] = None,
    readers: Annotated[
        int | None, typer.Option(min=1, help="Processes that decode. Default: by the cores.")
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Also on Ray, in the same rounds.")] = False,
    out: Annotated[Path, typer.Option(help="The file of the figures.")] = RESULTS / "bulk-cpu.json",
) -> None:
    """Measure, print and write the figures."""
    codec = melcap.load()
    wave = clip(10, 44100)
    engines = {"folder": Options(encoders=encoders, readers=readers)}
    if ray:
        engines["folder on Ray"] = Options(engine="ray", device="cpu")
    alone: list[float] = []
    bulk: dict[str, list[float]] = {name: [] for name in engines}
    busy: list[float] = []
    size = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "clips"
        seconds = make_folder(folder, clips)
        for number in range(rounds):
            for _ in range(5):
                began = perf_counter()
                codec.encode(wave, 44100)
                alone.append(10 / (perf_counter() - began))
            for name, options in engines.items():
                tokens = Path(scratch) / f"{options.engine}{number}"
                end = tokenize([str(folder)], tokens, codec, options)
                gate(folder, tokens, codec)
                bulk[name].append(end.speed)
                if name == "folder":
                    busy.append(end.busy)
                size = sum(path.stat().st_size for path in tokens.glob("*.parquet"))
    found: dict[str, Any] = {
        **machine.provenance("cpu"),
        "threads": torch.get_num_threads(),
        "clips": clips,
        "seconds": seconds,
        "rounds": rounds,
        "codec alone, times real time": statistics.median(alone),
        **{f"{name}, times real time": statistics.median(runs) for name, runs in bulk.items()},
        **{f"{name}, of each round": runs for name, runs in bulk.items()},
        "ratio": statistics.median(bulk["folder"]) / statistics.median(alone),
        "encoders busy": statistics.median(busy),
        "Parquet bytes a second of audio": size / seconds,
        "MB that this process took at most": peak_kib() * 1024 / 1e6,
    }
    out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    typer.run(main)
