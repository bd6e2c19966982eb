"""Measure how many times faster than real time melcap and its peers encode and decode, in one run.

    python profiling/rtf.py                    # clips of 1, 10 and 60 s, threads 1 and 2, peers
    python profiling/rtf.py --quick            # one clip of 10 s, about a minute, no slow codecs
    python profiling/rtf.py --codec melcap-torch --codec base-torch     # melcap's two codecs
    python profiling/rtf.py --profile          # melcap stage by stage, against this machine's rates
    python profiling/rtf.py --growth           # melcap alone, from 1 s to 3 h and batches to 64
    python profiling/rtf.py --streams          # melcap alone: first audio, live load, cold start

All take turns, so that a drift of the machine's speed affects all alike (melcap.bench.speed). A row
is the median of the rounds with the quartiles, after one round that does not count. Clips are real
audio from examples/audio. Before anything is timed, every backend of melcap must give the tokens
and the samples of the reference. Tables, JSON and pictures go to profiling/results.

"base" is the published MelCap architecture in its published size, with random weights. It, SNAC and
DAC code in about real time on a CPU, so --quick leaves them out unless --codec names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from clips import clip
from contenders import CODECS, MELCAP, PEERS, SLOW, Skipped, build, codec_of
from gates import agreement
from growth import growth
from layers import profile
from machine import provenance, rates
from memory import peak_memory
from paths import RESULTS
from report import write
from rich.console import Console
from rich.progress import track
from streams import streaming

from melcap.audio_codec import AudioCodec
from melcap.bench.speed import Row, Setting, in_turns
from melcap.ops import flops

CHECKED_SECONDS = 10.0
"""Seconds of audio on which results are compared before anything is timed."""
COUNTED_SECONDS = 10.0
"""Seconds of audio on which operations are counted."""
BATCH_SECONDS = 10.0
"""The length of clips in a batch: of the lengths that are asked for, the nearest to this one."""


@dataclass(frozen=True)
class Plan:
    """The settings of a measurement on a device.

    Attributes:
        names: the codecs, of `MELCAP` and `PEERS`.
        device: the device.
        lengths: seconds of single clips.
        batches: sizes of batches.
        threads: numbers of threads on a CPU.
        rounds: how often each call is timed.
    """

    names: list[str]
    device: str
    lengths: list[float]
    batches: list[int]
    threads: list[int]
    rounds: int

    def settings(self, threads: int | None) -> list[Setting]:
        """Return the settings: each length alone, then each size of batch."""
        length = min(self.lengths, key=lambda seconds: abs(seconds - BATCH_SECONDS))
        shapes = [(seconds, 1) for seconds in self.lengths]
        shapes += [(length, size) for size in self.batches if size > 1]
        return [Setting(*shape, self.rounds, threads) for shape in shapes]


def measure(plan: Plan, keep: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return the rows of every setting, and why some codecs and settings have none.

    Args:
        plan: what is measured.
        keep: is given what is known, after each setting.
    """
    rows: list[Row] = []
    left_out: list[str] = []
    skipped: dict[str, str] = {}
    for count in plan.threads if plan.device == "cpu" else [None]:
        if count is not None:
            torch.set_num_threads(count)  # before graphs of ONNX Runtime are loaded
        contenders = {}
        for name, found in build(plan.names, plan.device):
            if isinstance(found, Skipped):
                skipped[name] = str(found)
            elif reason := agreement(found, clip(CHECKED_SECONDS, found.sample_rate)):
                skipped[name] = f"not timed: {reason}"
            else:
                contenders[name] = found
        for setting in track(plan.settings(count), f"{plan.device}, {count or 'all'} threads"):
            more, slow = in_turns(contenders, setting, clip)
            rows += more
            left_out += slow
            keep({"rows": rows, "skipped": skipped, "left_out": left_out})
    return {"rows": rows, "skipped": skipped, "left_out": left_out}


def work(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return GFLOP for each second of audio, both ways, of melcap's codecs in the rows."""
    names = dict.fromkeys(codec_of(row["codec"]) for row in rows)
    return [{"codec": name} | gflop(CODECS[name]()) for name in names if name is not None]


def gflop(codec: AudioCodec) -> dict[str, float]:
    """Return GFLOP for each second of one clip, which is coded as it is when it is timed.

    `melcap.ops.flops` says what is counted. Peers are left out, because PyTorch's counter does not
    know all of their operations.

    Args:
        codec: a codec on a CPU.
    """
    wave = clip(COUNTED_SECONDS, codec.sample_rate)
    encoding, codes = flops.count(lambda x: codec.encode(x, codec.sample_rate), wave)
    decoding, _ = flops.count(lambda _: codec.decode(codes), codes.tokens)
    kinds = {"encode": encoding, "decode": decoding}
    return {way: found.total() / COUNTED_SECONDS / 1e9 for way, found in kinds.items()}


def keep_known(stem: Path, origin: dict[str, Any], known: dict[str, Any]) -> None:
    """Write what has been measured so far: a run that is stopped loses nothing."""
    write(stem, "rtf", origin | known)


def kind_of(device: str) -> str:
    """Return a device's kind: cuda of cuda:1."""
    return device.partition(":")[0]


def memory_of(names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the peak memory of processes that code one clip of 10 s, or of 60 s."""
    return [
        {"codec": name, "seconds": length} | peak_memory(name, length)
        for name in names
        for length in (10.0, 60.0)
    ]


def main(
    seconds: Annotated[
        list[float] | None, typer.Option(help="Clip lengths. Default: 1, 10 and 60.")
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(help="Batch sizes, of 10 s clips. Default: 1 and 8; on a GPU 1 and 64."),
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(help="CPU threads. Default: all, and one.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=3, help="How often each call is timed.")] = 15,
    device: Annotated[list[str] | None, typer.Option(help="cpu or cuda. Default: all.")] = None,
    codec: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Codecs: {', '.join([*MELCAP, *PEERS])}. Default: all; with --quick all but the "
            f"slow ones, {', '.join(SLOW)}."
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Time one clip of 10 s, in 5 rounds, without slow codecs."),
    ] = False,
    profiled: Annotated[
        bool, typer.Option("--profile", help="Time each stage of melcap instead.")
    ] = False,
    grown: Annotated[
        bool, typer.Option("--growth", help="Measure cost from 1 s to 3 h instead, on a CPU.")
    ] = False,
    streamed: Annotated[
        bool, typer.Option("--streams", help="Measure live streams instead, on a CPU.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The folder for the results.")] = RESULTS,
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
                every = [name for name in [*MELCAP, *PEERS] if not (quick and name in SLOW)]
                plan = Plan(
                    names=codec or every,
                    device=where,
                    lengths=seconds or ([10.0] if quick else [1.0, 10.0, 60.0]),
                    batches=batch or ([1] if quick else [1, 8] if where == "cpu" else [1, 64]),
                    threads=counts,
                    rounds=5 if quick else rounds,
                )
                keep = partial(keep_known, out / f"rtf-{kind_of(where)}", origin)
                found |= measure(plan, keep)
                found["gflop"] = work(found["rows"])
                if where == "cpu" and not quick:
                    torch.set_num_threads(counts[0])
                    found["rates"] = rates()
                    found["memory"] = memory_of(
                        name for name in plan.names if name not in found["skipped"]
                    )
        path = write(out / f"{kind}-{kind_of(where)}", kind, found)
        console.print(path.read_text(), markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
