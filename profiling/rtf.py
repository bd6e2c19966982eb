"""How many times faster than real time melcap encodes and decodes, beside its peers, in one run.

    python profiling/rtf.py                    # clips of 1, 10 and 60 s, threads 1 and 2, peers
    python profiling/rtf.py --quick            # one clip of 10 s, about a minute
    python profiling/rtf.py --profile          # where melcap's time goes, against this machine
    python profiling/rtf.py --growth           # melcap alone, from 1 s to 3 h and batches to 64
    python profiling/rtf.py --streams          # melcap alone: first audio, live load, cold start

Everything is timed in turns, so that a drift of the machine meets all alike; a row is the median of
the rounds with the quartiles, after one round that does not count. Clips are real audio from
examples/audio. Nothing is timed before it has passed its gate: every backend of melcap must give
the tokens and the samples of the reference. Tables, JSON and pictures go to profiling/results.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import torch
import typer
from clips import clip
from contenders import MELCAP, PEERS, Contender, Skipped, build
from gates import agreement
from growth import growth
from layers import profile
from machine import provenance, rates
from memory import peak_memory
from report import write
from rich.console import Console
from rich.progress import track
from streams import streaming

RESULTS = Path(__file__).resolve().parent / "results"
LONGEST_CALL = 30.0
"""Seconds; what takes longer is timed on shorter clips only, and named."""

Row = dict[str, Any]


def timed(call: Callable[[], object], device: str) -> tuple[float, object]:
    """Seconds, and what came of it."""
    began = perf_counter()
    made = call()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return perf_counter() - began, made


def in_turns(
    contenders: dict[str, Contender], seconds: float, batch: int, rounds: int, threads: int | None
) -> tuple[list[Row], list[str]]:
    """A row for each contender and way, and what was left out.

    Slow calls have fewer rounds: as many as take half a minute, three at least.
    """
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    firsts, left_out = {}, []
    for name, contender in contenders.items():
        wave = clip(seconds, contender.sample_rate).expand(batch, -1).to(contender.device)
        call: Callable[[], object] = partial(contender.encode, wave)
        size = f"{seconds:g} s" if batch == 1 else f"{batch} clips of {seconds:g} s"
        for way in ("encode", "decode"):
            try:
                first, made = timed(call, contender.device)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                left_out.append(f"{contender.name}: no memory for {way} of {size}")
                break
            if first > LONGEST_CALL:
                left_out.append(f"{contender.name}: {way} of {size} takes {first:.0f} s")
                break
            calls[name, way], firsts[name, way] = call, first
            call = partial(contender.decode, made)
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for done in range(rounds):
        for key, call in calls.items():
            if done < max(3, min(rounds, LONGEST_CALL / firsts[key])):
                taken[key].append(timed(call, contenders[key[0]].device)[0])
    rows = []
    for (name, way), times in taken.items():
        low, middle, high = statistics.quantiles(times, n=4)
        rows.append(
            {
                "codec": contenders[name].name,
                "way": way,
                "threads": threads,
                "seconds": seconds,
                "batch": batch,
                "x_real_time": seconds * batch / middle,
                "p25": seconds * batch / high,
                "p75": seconds * batch / low,
                "rounds": len(times),
            }
        )
    return rows, left_out


def measure(
    names: Iterable[str],
    device: str,
    lengths: list[float],
    batches: list[int],
    threads: list[int],
    rounds: int,
    keep: Callable[[dict[str, Any]], object],
) -> dict[str, Any]:
    """Rows for every setting, and why some have none; `keep` is given what is known by then."""
    rows: list[Row] = []
    left_out: list[str] = []
    skipped: dict[str, str] = {}
    for count in threads if device == "cpu" else [None]:
        if count is not None:
            torch.set_num_threads(count)  # before graphs of ONNX Runtime are loaded
        contenders = {}
        for name, found in build(list(names), device):
            if isinstance(found, Skipped):
                skipped[name] = str(found)
            elif reason := agreement(found, clip(10.0, found.sample_rate)):
                skipped[name] = f"not timed: {reason}"
            else:
                contenders[name] = found
        settings = [(length, 1) for length in lengths]
        settings += [(min(lengths, key=lambda x: abs(x - 10)), n) for n in batches if n > 1]
        for seconds, batch in track(settings, f"{device}, {count or 'all'} threads"):
            more, too_slow = in_turns(contenders, seconds, batch, rounds, count)
            rows += more
            left_out += too_slow
            keep({"rows": rows, "skipped": skipped, "left_out": left_out})
    return {"rows": rows, "skipped": skipped, "left_out": left_out}


def keep_known(stem: Path, origin: dict[str, Any], known: dict[str, Any]) -> None:
    """Write what has been measured so far: a run that is stopped loses nothing."""
    write(stem, "rtf", origin | known)


def kind_of(device: str) -> str:
    """Return a device's kind: cuda of cuda:1."""
    return device.partition(":")[0]


def main(
    seconds: Annotated[list[float] | None, typer.Option(help="clip lengths")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="batch sizes, of 10 s clips")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="CPU threads")] = None,
    rounds: Annotated[int, typer.Option(min=3, help="counted rounds")] = 15,
    device: Annotated[list[str] | None, typer.Option(help="cpu, cuda; all by default")] = None,
    codec: Annotated[
        list[str] | None, typer.Option(help=", ".join([*MELCAP, *PEERS]) + "; all by default")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="one clip of 10 s, 5 rounds")] = False,
    profiled: Annotated[bool, typer.Option("--profile", help="where the time goes")] = False,
    grown: Annotated[bool, typer.Option("--growth", help="cost from 1 s to 3 h, on CPUs")] = False,
    streamed: Annotated[bool, typer.Option("--streams", help="live streams, on CPUs")] = False,
    out: Annotated[Path, typer.Option(help="folder for the results")] = RESULTS,
) -> None:
    """Time encoding and decoding."""
    out.mkdir(parents=True, exist_ok=True)
    counts = sorted(threads or {1, torch.get_num_threads()}, reverse=True)
    console = Console()
    devices = device or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for where in ["cpu"] if grown or streamed else devices:
        origin = {"origin": provenance(where)}
        found: dict[str, Any] = dict(origin)
        with torch.no_grad():
            if profiled:
                kind, found = "profile", found | profile(where)
            elif grown:
                kind, found = "growth", found | growth()
            elif streamed:
                kind, found = "streams", found | {"rows": streaming()}
            else:
                kind = "rtf"
                found |= measure(
                    codec or [*MELCAP, *PEERS],
                    where,
                    seconds or ([10.0] if quick else [1.0, 10.0, 60.0]),
                    batch or ([1] if quick else [1, 8] if where == "cpu" else [1, 64]),
                    counts,
                    5 if quick else rounds,
                    partial(keep_known, out / f"rtf-{kind_of(where)}", origin),
                )
                if where == "cpu" and not quick:
                    torch.set_num_threads(counts[0])
                    found["rates"] = rates()
                    found["memory"] = [
                        {"codec": name, "seconds": length} | peak_memory(name, length)
                        for name in codec or [*MELCAP, *PEERS]
                        if name not in found["skipped"]
                        for length in (10.0, 60.0)
                    ]
        path = write(out / f"{kind}-{kind_of(where)}", kind, found)
        console.print(path.read_text(), markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
