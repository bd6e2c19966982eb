"""Make a training set from packages of the Debian archive, or from folders of your own.

    python -m recipes.debian --out data                      # the list of melcap's own weights
    python -m recipes.debian --out data --all                # all good audio of these packages
    python -m recipes.debian --out data --packages gcin-voice,chuck-data
    python -m recipes.debian --out data --folder my-audio/   # CLASS/SPEAKER/file

If it is stopped at any moment, the same command continues. See README.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from enum import Enum
from errno import ENOSPC
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from melcap.cli.exits import exit_on_errors, prepare_process
from recipes.debian.apt import MIRROR, Apt, FetchError
from recipes.debian.build import Built, Request, build
from recipes.debian.rules import CLASSES, SPLITS, choose_packages
from recipes.debian.sources import OWN, Dropped, Splitter, outside_classes
from recipes.debian.tables import Row


class Format(str, Enum):
    """The file formats of clips."""

    flac = "flac"
    opus = "opus"


def main(
    out: Annotated[Path, typer.Option(help="Folder for shards, manifest and licences.")],
    packages: Annotated[
        str | None,
        typer.Option(
            help="Package names separated by commas, or a file with a list of them. "
            "Default: melcap's list."
        ),
    ] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option(help="Your own audio, CLASS/SPEAKER/file or CLASS/file. May be repeated."),
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the audio in --folder.")] = OWN,
    hours: Annotated[
        float | None, typer.Option(help="Hours of the whole set. Default: the minutes of the list.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Take all good audio.")] = False,
    valid: Annotated[
        str, typer.Option(help="Packages and speakers of the valid split, separated by commas.")
    ] = "",
    valid_share: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the other packages and speakers in valid."),
    ] = 0.06,
    min_bandwidth: Annotated[
        int | None,
        typer.Option(min=0, help="Least bandwidth of a file in Hz. Default: 4000 for speech."),
    ] = None,
    audio_format: Annotated[
        Format, typer.Option("--format", help="Format of the clips.")
    ] = Format.flac,
    shard_mb: Annotated[float, typer.Option(min=1, help="Size of a train shard in MB.")] = 250,
    suite: Annotated[
        str | None,
        typer.Option(help="Debian suite, such as bookworm. Default: apt's own sources."),
    ] = None,
    mirror: Annotated[str, typer.Option(help="Mirror from which --suite is fetched.")] = MIRROR,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for downloads and intermediate results. Default: OUT/cache."),
    ] = None,
    keep_debs: Annotated[bool, typer.Option(help="Keep packages after unpacking.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Number of worker processes.")] = 2,
) -> None:
    """Make tar shards of freely licensed audio for --data of melcap train."""
    if hours is not None and (everything or not 0 < hours < float("inf")):
        what = "it takes a number above 0, and not together with --all"
        raise typer.BadParameter(what, param_hint="--hours")
    console = Console(stderr=True)
    with exit_on_errors(), _resumable(console):
        cache = cache or out / "cache"
        names, rules = choose_packages(packages) if packages is not None or not folder else ([], {})
        for place in folder or []:
            if outside := outside_classes(place):
                _say(
                    console,
                    f"{len(outside)} files of {place} are left out, such as {outside[0]}: they are "
                    f"not in {', '.join(CLASSES)}",
                )
        request = Request(
            out=out,
            cache=cache,
            packages=names,
            rules=rules,
            folders=folder or [],
            licence=licence,
            hours=hours,
            everything=everything,
            splitter=Splitter(valid_share, [name for name in valid.split(",") if name]),
            suffix=f".{audio_format.value}",
            min_bandwidth=min_bandwidth,
            shard_bytes=int(shard_mb * 1e6),
            keep_debs=keep_debs,
            workers=workers,
        )
        apt = Apt.of_suite(cache / "apt", suite, mirror) if suite and names else Apt()
        built = build(request, apt, console)
        typer.echo(_summary(built, out, cache))


@contextmanager
def _resumable(console: Console) -> Iterator[None]:
    """Say what to do about a full disk, a killed worker and an interruption."""
    try:
        yield
    except BrokenProcessPool as error:
        raise FetchError(
            "a worker process was killed, perhaps because memory was short: try fewer --workers"
        ) from error
    except OSError as error:
        if error.errno != ENOSPC:
            raise
        raise FetchError(
            "the disk is full; free some space and run the same command again, it continues"
        ) from error
    except KeyboardInterrupt:
        _say(console, "run the same command again to continue")
        raise


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _summary(built: Built, out: Path, cache: Path) -> str:
    """Return the hours of each class and split, what was left out and why, and what to delete."""
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
        f"{cache} ({size / 1e6:.0f} MB) is only needed for other sets from the same sources: "
        "delete it if you make none."
    )
    return "\n".join(lines)


def _hours(rows: Iterable[Row], split: str, label: str) -> float:
    wanted = (row for row in rows if (row["split"], row["class"]) == (split, label))
    return float(sum(row["seconds"] for row in wanted)) / 3600


def _reasons(dropped: Sequence[Dropped]) -> list[str]:
    """Return a line for each reason, without the details after its colon."""
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
    prepare_process()
    typer.run(main)
