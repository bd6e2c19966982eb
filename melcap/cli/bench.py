"""`melcap bench`: the speed of the codec, and of its kernels, on this machine."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from melcap.cli.options import AsJson, Backend, BackendChoice, Device, Weights, open_codec
from melcap.cli.output import columns, print_json


def bench(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Audio to measure on: its first channel, cut or repeated. Default: synthetic."
        ),
    ] = None,
    seconds: Annotated[
        list[float] | None,
        typer.Option(
            min=0.1, max=3600, help="Length of a clip, in seconds; repeatable. Default: 1 and 10."
        ),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, max=4096, help="Clips in a batch; repeatable. Default: 1 and 8."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=3, max=1000, help="How often each is timed.")] = 7,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Threads on a CPU. Default: as many as PyTorch uses."),
    ] = None,
    kernels: Annotated[
        bool,
        typer.Option(
            "--kernels",
            help="Instead, time each operation of the codec on both backends. Needs a CUDA device.",
        ),
    ] = False,
    graphs: Annotated[
        bool | None,
        typer.Option(
            "--graphs/--no-graphs",
            help="Require CUDA graphs for short inputs, or switch them off. Default: used where "
            "they can be recorded. Not for the published architecture.",
        ),
    ] = None,
    weights: Weights = None,
    device: Device = "cpu",
    backend: BackendChoice = Backend.auto,
    as_json: AsJson = False,
) -> None:
    """Measure how fast this machine encodes and decodes, in times real time.

    A figure is the median of the rounds, with the quartiles. Before it is taken, tokens and samples
    are compared with those of the reference. Each length is measured with each size of batch.
    """
    import torch

    from melcap import load
    from melcap.bench import clips, speed
    from melcap.bench.kernels import compare
    from melcap.bench.origin import origin
    from melcap.codec import Codec, require_own
    from melcap.ops.registry import choose

    lengths, sizes = seconds or [1.0, 10.0], batch or [1, 8]
    if threads is not None:
        torch.set_num_threads(threads)
    clip = clips.of_file(file, max(lengths)) if file else clips.synthetic
    with open_codec(weights, device, backend) as codec, torch.no_grad():
        if graphs is not None:
            require_own(codec, "melcap bench --graphs").use_graphs(graphs)
        data: dict[str, Any] = {
            "origin": origin(device, codec.model),
            "device": device,
            "backend": choose(codec.device.type),
            "threads": torch.get_num_threads() if device == "cpu" else None,
            "clip": str(file) if file else "synthetic",
        }
        if kernels:
            wave = clip(max(lengths), codec.sample_rate)
            data |= {"seconds": max(lengths), "kernels": compare(codec, wave)}
        else:
            settings = [
                speed.Setting(length, size, rounds, data["threads"])
                for length, size in product(lengths, sizes)
            ]
            rows, left_out = speed.measure(codec, backend.value, load(weights), settings, clip)
            data |= {"rows": rows, "left_out": left_out}
            data["graphs"] = isinstance(codec, Codec) and codec.uses_graphs
    if as_json:
        print_json(data)
    else:
        typer.echo(_text(data))


def _text(data: dict[str, Any]) -> str:
    facts = [*data["origin"].items(), ("device", data["device"]), ("clip", data["clip"])]
    if data["threads"]:
        facts.append(("threads", data["threads"]))
    if "kernels" in data:
        lines = [columns(*facts), "", *_kernel_table(data)]
    else:
        graphs = ", CUDA graphs for short inputs" if data["graphs"] else ""
        facts.append(("backend", f"{data['backend']}{graphs}"))
        lines = [columns(*facts), "", *_speed_table(data)]
    return "\n".join(lines)


def _speed_table(data: dict[str, Any]) -> list[str]:
    from melcap.bench.speed import speed_in_words
    from melcap.markdown import table

    by: dict[tuple[float, int], dict[str, str]] = {}
    for row in data["rows"]:
        by.setdefault((row["seconds"], row["batch"]), {})[row["way"]] = speed_in_words(row)
    rows = [
        (f"{seconds:g} s", batch, ways.get("encode", ""), ways.get("decode", ""))
        for (seconds, batch), ways in by.items()
    ]
    titles = ("clip", "batch", "encode, x real time", "decode, x real time")
    return [table(titles, rows, numbers_from=0), *data["left_out"]]


def _kernel_table(data: dict[str, Any]) -> list[str]:
    from melcap.markdown import table

    rows = []
    for row in data["kernels"]:
        start = (row["operation"], row.get("shape", ""), row.get("calls", ""))
        if "why" in row:
            rows.append((*start, "", "", "", row["why"]))
            continue
        triton, torch = (
            f"{row[name]['median']:.3f} ({row[name]['low']:.3f} to {row[name]['high']:.3f})"
            for name in ("triton", "torch")
        )
        rows.append((*start, triton, torch, f"{row['speedup']:.2f}", f"{row['error']:.1e}"))
    titles = ("operation", "shape", "calls", "triton, ms", "torch, ms", "speedup", "error")
    what = f"The calls of encoding and decoding one clip of {data['seconds']:g} s:"
    return [what, "", table(titles, rows)]
