"""Work out what a collection costs to tokenize: machines, days, storage and money.

    python profiling/scale.py --hours 1000000 --days 7
    python profiling/scale.py --gpu-speed 5000 --gpu-price 2.5    # with a GPU's rate of your own

The rate of two cores and the bytes of a token set are measured: profiling/results/bulk-cpu.json, by
`python profiling/bulk.py`. The rate of a GPU and the prices are assumptions, which options change.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Annotated

import typer
from paths import RESULTS

from melcap.markdown import table

MEASURED = RESULTS / "bulk-cpu.json"
FLAC_KBPS, MP3_KBPS = 700, 128
TOKENS_PER_SECOND = 12 * 44100 / 2048


@dataclass(frozen=True)
class Plan:
    """One kind of worker.

    Attributes:
        worker: what the table calls it.
        speed: its speed in times real time.
        price: what it costs an hour.
    """

    worker: str
    speed: float
    price: float

    def row(self, hours: float, days: float, share: float) -> list[str]:
        """Return the row of a table: how many workers finish in time, and what they cost.

        Args:
            hours: hours of audio.
            days: days until the work is done.
            share: the share of a worker's time that is work. The rest is waiting, stragglers and
                failed machines.
        """
        work = hours / self.speed / share
        workers = math.ceil(work / (24 * days))
        read = workers * self.speed * share * MP3_KBPS / 8 / 1000
        return [
            self.worker,
            f"{self.speed:,.0f}",
            f"{work:,.0f}",
            f"{workers:,}",
            f"{read:,.0f}",
            f"{work * self.price:,.0f}",
        ]


def main(
    hours: Annotated[float, typer.Option(min=1, help="Hours of audio, one channel.")] = 1e6,
    days: Annotated[float, typer.Option(min=0.01, help="Days until the work is done.")] = 7,
    share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the time that is work.")
    ] = 0.8,
    gpu_speed: Annotated[
        float | None, typer.Option(help="Speed of one GPU, in times real time.")
    ] = None,
    core_price: Annotated[float, typer.Option(help="Price of two cores for an hour.")] = 0.08,
    gpu_price: Annotated[float, typer.Option(help="Price of a GPU for an hour.")] = 2.5,
) -> None:
    """Print a table of workers, and the size of audio and tokens."""
    measured = json.loads(MEASURED.read_text())
    speed = measured["folder, times real time"]
    plans = [Plan("two cores (measured)", speed, core_price)]
    for rate in [gpu_speed] if gpu_speed else [1000, 3000, 10000]:
        plans.append(Plan("GPU (assumed)", rate, gpu_price))
    heads = ["worker", "x real time", "worker hours", "workers", "MB/s of mp3 to read", "cost"]
    typer.echo(table(heads, (plan.row(hours, days, share) for plan in plans)), nl=False)
    seconds = 3600 * hours
    size = seconds * measured["Parquet bytes a second of audio"]
    mp3, flac = (seconds * kbps / 8e9 for kbps in (MP3_KBPS, FLAC_KBPS))
    tokens = seconds * TOKENS_PER_SECOND
    typer.echo(
        f"\n{tokens / 1e9:,.0f} billion tokens, {size / 1e12:.2f} TB of Parquet; "
        f"audio: {mp3:,.0f} TB of mp3 ({MP3_KBPS} kbps), {flac:,.0f} TB of flac ({FLAC_KBPS} kbps)"
    )


if __name__ == "__main__":
    typer.run(main)
