"""Decode training audio beforehand: `python -m melcap.training.decode A.tar B.tar --out CACHE`.

`melcap.training.run --cache CACHE` with the same sources then begins at once. This command imports
no torch, and neither do its worker processes, so it starts quickly on many cores.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from melcap.cli.batch import sentences
from melcap.training.data import AudioCache, build_cache


def main(
    sources: Annotated[list[Path], typer.Argument(help="tar shards, or folders CLASS/clip")],
    out: Annotated[Path, typer.Option(help="folder for the decoded audio")],
    workers: Annotated[int | None, typer.Option(help="processes; all cores", min=1)] = None,
) -> None:
    """Decode tar shards and folders into one memory-mapped file."""
    with sentences():
        cache = AudioCache(build_cache(sorted(set(sources)), out, workers or os.cpu_count() or 2))
    typer.echo(f"{out}: {cache.hours:.1f} hours of audio, classes {', '.join(cache.classes)}")


if __name__ == "__main__":
    typer.run(main)
