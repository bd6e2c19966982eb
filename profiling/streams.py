"""Streaming on a CPU: how soon the first audio is there, and what a live source costs."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from clips import clip
from paths import AUDIO

import melcap

PIECES = (1, 4, 20)
"""Columns that a live source hands over at a time."""
SECONDS = 10.0
"""Length of the live source."""
SOURCE = AUDIO / "speech.flac"
"""The clip of 10 s that a cold start decodes."""


def streaming(rounds: int = 9) -> list[dict[str, Any]]:
    """Return rows with medians and quartiles, in seconds or as a share of one core.

    - first audio: the time until a new stream of tokens first returns samples. The model looks
      ahead, so a live stream also waits for those columns; `melcap info` says how long.
    - load: seconds of work on one thread for each second of a live source, in pieces of so many
      columns. A small piece costs more, because stages compute the context of each piece again.
    - cold decode: a process that imports torch and melcap, loads the weights and decodes a 10 s
      .melcap file to its end, from the moment that it begins to import torch.
    """
    codec = melcap.load()
    rate, unit = codec.config.mel.sample_rate, codec.config.column_samples
    wave = clip(SECONDS, rate)
    codes = codec.encode(wave, rate)
    columns = codes.tokens.shape[-1]
    seconds = columns * unit / rate
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    for size in PIECES:
        taken: dict[str, list[float]] = {"first audio": [], "decode": [], "encode": []}
        for _ in range(rounds + 1):
            began = perf_counter()
            decoder = melcap.StreamDecoder(codec)
            first = None
            for tokens in codes.tokens.split(size, dim=-1):
                piece = decoder.push(tokens)
                if first is None and piece.shape[-1]:
                    first = perf_counter() - began
            taken["decode"].append((perf_counter() - began) / seconds)
            taken["first audio"].append(first or float("nan"))
            began = perf_counter()
            encoder = melcap.StreamEncoder(codec)
            for piece in wave.split(size * unit):
                encoder.push(piece)
            taken["encode"].append((perf_counter() - began) / seconds)
        pieces = f"pieces of {1000 * size * unit / rate:.0f} ms"
        rows += [
            _row(f"first audio of a stream, {pieces}", "s", taken["first audio"][1:]),
            _row(f"load of a live decoder, {pieces}", "share of a core", taken["decode"][1:]),
            _row(f"load of a live encoder, {pieces}", "share of a core", taken["encode"][1:]),
        ]
    torch.set_num_threads(threads)
    rows.append(_row("cold `melcap decode`, 10 s, from `import torch`", "s", _cold(rounds)))
    return rows


def _cold(rounds: int) -> list[float]:
    """Return the seconds of the command itself, timed inside its process."""
    timed = (
        "import sys, time; began = time.perf_counter(); import torch\n"
        "from melcap.cli.commands import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(time.perf_counter() - began)"
    )
    with TemporaryDirectory() as folder:
        tokens, audio = Path(folder) / "a.melcap", Path(folder) / "a.wav"
        melcap.encode_file(SOURCE, tokens, melcap.load())
        command = [sys.executable, "-c", timed, "decode", str(tokens), "-o", str(audio)]
        taken = []
        for _ in range(rounds + 1):
            done = subprocess.run(
                [*command, "--force", "--quiet"], capture_output=True, text=True, check=True
            )
            taken.append(float(done.stdout.splitlines()[-1]))
    return taken[1:]


def _row(what: str, unit: str, taken: list[float]) -> dict[str, Any]:
    low, middle, high = statistics.quantiles(taken, n=4)
    return {"what": what, "unit": unit, "median": middle, "p25": low, "p75": high}
