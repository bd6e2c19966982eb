"""How fast a folder of clips becomes tokens, beside what the codec alone does on this machine.

    python profiling/bulk.py        # 500 clips of 1 to 30 s, in six formats and four rates
    python profiling/bulk.py --ray  # and the same on Ray, on this machine

The codec alone is `Codec.encode` of one 10 s clip at 44.1 kHz, with all the cores, nothing to
decode or resample; it takes turns with the folder. Gate: a clip of each format has the tokens of
`Codec.encode`.
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

import melcap
from melcap.audio import read
from melcap.bulk.run import Options, tokenize
from melcap.bulk.shards import read_rows, token_files

FORMATS = (
    ("wav", "WAV", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("wav", "WAV", "FLOAT"),
)
RATES = (44100, 48000, 16000, 22050, 44100)
RESULTS = Path(__file__).resolve().parent / "results"


def make_folder(folder: Path, count: int) -> float:
    """Clips cut from the examples, lengths spread evenly over their logarithm; seconds in all."""
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
    """A clip of each format has the tokens that the codec gives by itself, but for ties."""
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
    clips: Annotated[int, typer.Option(min=6)] = 500,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    lanes: Annotated[int | None, typer.Option(min=1)] = None,
    readers: Annotated[int | None, typer.Option(min=1)] = None,
    ray: Annotated[bool, typer.Option("--ray", help="On Ray as well, in the same rounds.")] = False,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = RESULTS / "bulk-cpu.json",
) -> None:
    codec = melcap.load()
    wave = clip(10, 44100)
    engines = {"folder": Options(lanes=lanes, readers=readers)}
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
        "lanes busy": statistics.median(busy),
        "Parquet bytes a second of audio": size / seconds,
        "MB that this process took at most": _peak_megabytes(),
    }
    out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def _peak_megabytes() -> float:
    """Of this process alone: getrusage would include what the one that started it had taken."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) * 1024 / 1e6


if __name__ == "__main__":
    typer.run(main)
