"""Rebuild a training set from packages of the Debian archive, or make one of your own folders.

    python -m recipes.debian --out data                      # what melcap trained on
    python -m recipes.debian --out data --all                # all that they have
    python -m recipes.debian --out data --packages gcin-voice,chuck-data
    python -m recipes.debian --out data --folder my-audio/   # CLASS/SPEAKER/file

Stopped at any moment, the same command goes on. See docs/data.md.
"""

from __future__ import annotations

import signal
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from enum import Enum
from errno import ENOSPC
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from melcap.errors import InputError, MelcapError
from recipes.debian.apt import MIRROR, Apt
from recipes.debian.build import Built, Request, build
from recipes.debian.rules import CLASSES, SPLITS, choose_packages
from recipes.debian.sources import OWN, Dropped, Splitter, outside_classes
from recipes.debian.tables import Row


class Format(str, Enum):
    flac = "flac"
    opus = "opus"


def main(
    out: Annotated[Path, typer.Option(help="folder for shards, manifest and licences")],
    packages: Annotated[
        str | None,
        typer.Option(
            help="names with commas between, or a file of them; melcap's list if not given"
        ),
    ] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option(help="your own audio, CLASS/SPEAKER/file or CLASS/file; may be repeated"),
    ] = None,
    licence: Annotated[str, typer.Option(help="the licence of the folders' audio")] = OWN,
    hours: Annotated[
        float | None, typer.Option(help="how much in all; the list's own shares if not given")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="all that is good")] = False,
    valid: Annotated[
        str, typer.Option(help="packages and speakers for valid, with commas between")
    ] = "",
    valid_share: Annotated[
        float, typer.Option(min=0, max=1, help="share of those that no list puts anywhere")
    ] = 0.06,
    min_bandwidth: Annotated[
        int | None,
        typer.Option(min=0, help="Hz that a file must reach; 4000 for speech if not given"),
    ] = None,
    audio_format: Annotated[Format, typer.Option("--format", help="of the clips")] = Format.flac,
    shard_mb: Annotated[float, typer.Option(min=1, help="size of a train shard")] = 250,
    suite: Annotated[
        str | None, typer.Option(help="such as bookworm; the system's apt sources if not given")
    ] = None,
    mirror: Annotated[str, typer.Option(help="where --suite is fetched from")] = MIRROR,
    cache: Annotated[
        Path | None, typer.Option(help="downloads and work so far; OUT/cache if not given")
    ] = None,
    keep_debs: Annotated[bool, typer.Option(help="keep packages after unpacking")] = False,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 2,
) -> None:
    """Training audio, free to use, as tar shards for --data of melcap.training.run."""
    console = Console(stderr=True)
    try:
        if hours is not None and (everything or not 0 < hours < float("inf")):
            raise InputError("--hours takes a number above 0, and not together with --all")
        cache = cache or out / "cache"
        names, rules = choose_packages(packages) if packages is not None or not folder else ([], {})
        for place in folder or []:
            if outside := outside_classes(place):
                console.print(
                    f"{len(outside)} files of {place} are left out, such as {outside[0]}: they are "
                    f"not in {', '.join(CLASSES)}",
                    markup=False, highlight=False, soft_wrap=True,
                )  # fmt: skip
        request = Request(
            out, cache, names, rules, folder or [], licence, hours, everything,
            Splitter(valid_share, [name for name in valid.split(",") if name]),
            f".{audio_format.value}", min_bandwidth, int(shard_mb * 1e6), keep_debs, workers,
        )  # fmt: skip
        apt = Apt.of_suite(cache / "apt", suite, mirror) if suite and names else Apt()
        built = build(request, apt, console)
    except (MelcapError, OSError, BrokenProcessPool) as error:
        console.print(f"error: {_sentence(error)}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from error
    except KeyboardInterrupt as error:
        console.print("interrupted; the same command goes on from here")
        raise typer.Exit(130) from error
    typer.echo(_summary(built, out, cache))


def _sentence(error: Exception) -> str:
    if isinstance(error, BrokenProcessPool):
        return "a process was killed, perhaps for want of memory: try fewer --workers"
    if isinstance(error, OSError) and error.errno == ENOSPC:
        return "the disk is full; free some space and run the same command again, it goes on"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _summary(built: Built, out: Path, cache: Path) -> str:
    """Hours of each class and split, what was left out and why, and what may be deleted."""
    width = max(len(name) for name in (*CLASSES, *SPLITS))
    lines = [f"{out} is complete already" if built.as_before else f"{out} is complete", ""]
    lines.append("  ".join(["hours".ljust(width), *(name.rjust(width) for name in CLASSES)]))
    for split in SPLITS:
        hours = (_hours(built.rows, split, label) for label in CLASSES)
        lines.append("  ".join([split.ljust(width), *(f"{value:{width}.2f}" for value in hours)]))
    lines += ["", f"{len(built.rows)} clips; left out:"]
    lines += [f"  {line}" for line in _reasons(built.dropped)] or ["  nothing"]
    if not any(row["split"] == "valid" for row in built.rows):
        lines.append("No clip is in valid: name packages or speakers for it with --valid.")
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    lines.append(
        f"{cache} ({size / 1e6:.0f} MB) is for other sets from the same sources: delete it "
        "if there will be none."
    )
    return "\n".join(lines)


def _hours(rows: Iterable[Row], split: str, label: str) -> float:
    wanted = (row for row in rows if (row["split"], row["class"]) == (split, label))
    return float(sum(row["seconds"] for row in wanted)) / 3600


def _reasons(dropped: Sequence[Dropped]) -> list[str]:
    """A line for each reason, the details after its colon left away."""
    reasons: dict[str, list[Dropped]] = defaultdict(list)
    for drop in dropped:
        reasons[drop.reason.partition(":")[0]].append(drop)
    lines = []
    for reason, drops in sorted(reasons.items(), key=lambda item: -len(item[1])):
        files = len({(drop.package, drop.origin) for drop in drops})
        minutes = sum(drop.seconds or 0 for drop in drops) / 60
        measured = f", {minutes:.1f} minutes" if minutes else ""
        lines.append(f"{reason}: {files} files{measured}")
    return lines


if __name__ == "__main__":
    # A `kill` unwinds the stack, so that temporary files go away as they do on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    typer.run(main)
