"""Measure the time of a device kernel by kernel, with and without CUDA graphs.

    python profiling/device_time.py --out profiling/results

For batches of 64 x 10 s, 1 x 10 s and 1 x 1 s, encode and decode: the time of a call, the time of
its kernels, how many there are, and those that take most. A codec that does not pass the gate of
`rtf.py` is not measured. On a CPU the same is measured of PyTorch's operations.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from clips import clip
from contenders import MELCAP
from gates import agreement
from machine import provenance
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from melcap.bench.speed import Contender, Row, synchronize, timed
from melcap.markdown import table

SHAPES = ((64, 10.0), (1, 10.0), (1, 1.0))
SMALL = ((2, 0.3), (1, 0.2))
"""Shapes of a rehearsal on a CPU."""
ROUNDS = 7
KERNELS = 12


def measure(codec: Contender, batch: int, seconds: float, rounds: int) -> list[Row]:
    """Return a row for encode and one for decode."""
    wave = clip(seconds, codec.sample_rate).expand(batch, -1).contiguous().to(codec.device)
    codes = codec.encode(wave)
    rows = []
    for way, call in (
        ("encode", lambda: codec.encode(wave)),
        ("decode", lambda: codec.decode(codes)),
    ):
        row = {"mode": codec.name, "way": way, "batch": batch, "seconds": seconds}
        rows.append(row | _timed(call, codec.device, rounds))
        rows[-1]["x_real_time"] = 1e3 * batch * seconds / rows[-1]["call_ms"]
    return rows


def _timed(call: Callable[[], object], device: str, rounds: int) -> Row:
    gpu = device != "cpu"
    warm = min(3, rounds)
    taken = [timed(call, device)[0] for _ in range(rounds + warm)][warm:]
    activity = ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as seen:
        call()
        synchronize(device)
    kind = DeviceType.CUDA if gpu else DeviceType.CPU
    kernels = [event for event in seen.key_averages() if event.device_type == kind]

    def spent(event: Any) -> float:
        return float(event.self_device_time_total if gpu else event.self_cpu_time_total)

    kernels.sort(key=spent, reverse=True)
    return {
        "call_ms": 1e3 * statistics.median(taken),
        "kernels_ms": sum(map(spent, kernels)) / 1e3,
        "launches": sum(event.count for event in kernels),
        "kernels": [
            {"name": event.key[:110], "ms": spent(event) / 1e3, "count": event.count}
            for event in kernels[:KERNELS]
        ],
    }


def write(out: Path, device: str, found: dict[str, Any]) -> None:
    """Write device-time-DEVICE.json and .md."""
    stem = out / f"device-time-{device}"
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    origin = ", ".join(f"{name} {value}" for name, value in found["origin"].items())
    text = f"# Where the device's time goes\n\nBy `python profiling/device_time.py`: {origin}\n\n"
    text += "".join(f"- not measured: {reason}\n" for reason in found["skipped"]) + "\n"
    heads = ("mode", "way", "clips", "call, ms", "kernels, ms", "launches", "times real time")
    text += table(
        heads,
        [
            (
                row["mode"],
                row["way"],
                f"{row['batch']} x {row['seconds']:g} s",
                f"{row['call_ms']:.2f}",
                f"{row['kernels_ms']:.2f}",
                row["launches"],
                f"{row['x_real_time']:.0f}",
            )
            for row in found["rows"]
        ],
    )
    for row in found["rows"]:
        title = f"{row['mode']}, {row['way']}, {row['batch']} x {row['seconds']:g} s"
        text += f"\n{title}:\n\n"
        text += table(
            ("kernel", "ms", "launches"),
            [(f"`{k['name']}`", f"{k['ms']:.3f}", k["count"]) for k in row["kernels"]],
        )
    stem.with_suffix(".md").write_text(text)


def main(
    out: Annotated[Path, typer.Option(help="The folder for the results.")],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda",
    small: Annotated[bool, typer.Option("--small", help="Rehearse with small shapes.")] = False,
) -> None:
    """Measure; the files are written anew after every shape."""
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"origin": provenance(device), "skipped": [], "rows": []}
    on_gpu = ("melcap-cudnn", "melcap-triton", "melcap-graphs")
    with torch.no_grad():
        for name in ("melcap-torch",) if device == "cpu" else on_gpu:
            codec = MELCAP[name](device)
            if reason := agreement(codec, clip(1.0 if small else 10.0, codec.sample_rate)):
                found["skipped"].append(f"{codec.name}: {reason}")
                continue
            for batch, seconds in SMALL if small else SHAPES:
                found["rows"] += measure(codec, batch, seconds, 1 if small else ROUNDS)
                write(out, device, found)
    write(out, device, found)
    print((out / f"device-time-{device}.md").read_text())


if __name__ == "__main__":
    typer.run(main)
