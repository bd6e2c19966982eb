"""How many times faster than real time the codec encodes and decodes, on this machine.

    python profiling/rtf.py                       # 10 s clip, batch of one, all threads
    python profiling/rtf.py --seconds 1 --seconds 10 --seconds 60 --batch 1 --batch 8

Every row is the median of several runs after a warm-up, on real clips from examples/audio, with the
lower and upper quartile. Before anything is timed, chunked and one-shot coding must agree on the
very signal that is timed. Rows are added to profiling/results/rtf.csv with machine and versions.
"""

from __future__ import annotations

import csv
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

import melcap
from melcap.audio import read
from melcap.ops.registry import unavailable
from melcap.resample import resample

HERE = Path(__file__).resolve().parent
CLIPS = HERE.parent / "examples" / "audio"
RESULTS = HERE / "results" / "rtf.csv"
GRAPHS = " + CUDA graphs"


def clip(seconds: float, rate: int) -> torch.Tensor:
    """The example clips one after the other, repeated to the length asked for: [samples]."""
    parts = []
    for path in sorted(CLIPS.glob("*.flac")):
        wave, source = read(path)
        parts.append(torch.from_numpy(resample(wave[:1], source, rate)[0]))
    joined = torch.cat(parts)
    samples = round(seconds * rate)
    return joined.repeat(-(-samples // len(joined)))[:samples]


def agree(codec: melcap.Codec, wave: torch.Tensor, rate: int) -> None:
    """Exit where chunks do not give what the whole clip gives."""
    codes = codec.encode(wave, rate)
    whole = codec.decode(codes)
    usual, codec.chunk_columns = codec.chunk_columns, 37
    chunked = codec.encode(wave, rate)
    flips = int((chunked.tokens != codes.tokens).sum())
    error = float((codec.decode(codes) - whole).abs().max())
    codec.chunk_columns = usual
    if flips > codes.tokens.numel() * 1e-4 or error > 1e-4:
        sys.exit(f"not timed: {flips} tokens and {error:.1e} of amplitude differ between chunkings")


def timed(work: Callable[[], object], runs: int, device: str) -> list[float]:
    """Seconds of each of `runs` calls, after two that are not counted."""
    taken = []
    for _ in range(runs + 2):
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return taken[2:]


def machine(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    names = (
        [
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        if Path("/proc/cpuinfo").exists()
        else []
    )
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"


def measure(
    codec: melcap.Codec, device: str, backend: str, seconds: float, batch: int, runs: int
) -> list[dict[str, object]]:
    """One row for encoding and one for decoding."""
    rate = codec.config.mel.sample_rate
    wave = clip(seconds, rate).expand(batch, -1).to(device)
    if device.startswith("cuda"):
        codec.use_graphs(backend.endswith(GRAPHS))
    with melcap.use_backend(backend.removesuffix(GRAPHS)):
        agree(codec, wave[:1], rate)
        codes = codec.encode(wave, rate)
        taken = {
            "encode": timed(lambda: codec.encode(wave, rate), runs, device),
            "decode": timed(lambda: codec.decode(codes), runs, device),
        }
    rows: list[dict[str, object]] = []
    for operation, times in taken.items():
        low, middle, high = statistics.quantiles(times, n=4)
        rows.append(
            {
                "operation": operation,
                "device": machine(device),
                "backend": backend,
                "seconds": seconds,
                "batch": batch,
                "x_real_time": round(seconds * batch / middle, 1),
                "x_real_time_p25": round(seconds * batch / high, 1),
                "x_real_time_p75": round(seconds * batch / low, 1),
                "runs": runs,
                "torch": torch.__version__,
                "model": codec.model,
                "commit": commit(),
                "date": date.today().isoformat(),
            }
        )
    return rows


def main(
    seconds: Annotated[list[float] | None, typer.Option(help="clip lengths")] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="batch sizes; 1, on a GPU 64 as well")
    ] = None,
    runs: Annotated[int, typer.Option(help="counted runs of each", min=2)] = 9,
    device: Annotated[list[str] | None, typer.Option(help="cpu, cuda")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
    weights: Annotated[Path | None, typer.Option(help="a weights file")] = None,
    save: Annotated[bool, typer.Option(help="add to profiling/results/rtf.csv")] = True,
) -> None:
    """Time encode and decode."""
    if threads is not None:
        torch.set_num_threads(threads)
    rows = []
    for where in device or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        codec = melcap.load(weights, where)
        fast = where.startswith("cuda") and not unavailable("triton")
        for backend in ("torch", "triton", "triton" + GRAPHS) if fast else ("torch",):
            for length in seconds or [10.0]:
                for count in batch or ([1, 64] if where.startswith("cuda") else [1]):
                    rows += measure(codec, where, backend, length, count, runs)
    show(rows)
    if save:
        store(rows)


def show(rows: list[dict[str, object]]) -> None:
    table = Table(title="times faster than real time (median, quartiles)")
    for head in ("operation", "device", "backend", "clip", "batch", "x real time", "quartiles"):
        table.add_column(head)
    for row in rows:
        table.add_row(
            str(row["operation"]),
            str(row["device"]),
            str(row["backend"]),
            f"{row['seconds']:g} s",
            str(row["batch"]),
            f"{row['x_real_time']}",
            f"{row['x_real_time_p25']} to {row['x_real_time_p75']}",
        )
    Console().print(table)


def store(rows: list[dict[str, object]]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    fresh = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    typer.run(main)
