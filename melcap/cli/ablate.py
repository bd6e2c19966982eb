"""`melcap ablate`: variants of a training run, trained and measured at equal time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ablate(
    plan: Annotated[Path, typer.Argument(help="The variants to compare, as JSON.")],
    data: Annotated[
        list[Path], typer.Option(help="A tar shard, or a folder CLASS/clip; give one for each.")
    ],
    valid: Annotated[Path, typer.Option(help="Held-out clips: a folder, tar or CSV.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for runs and results.")],
    cache: Annotated[
        Path | None, typer.Option(help="The folder for decoded audio. Default: OUT/audio.")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    clips_per_class: Annotated[
        int, typer.Option(help="Held-out clips of each class, at most.", min=1)
    ] = 8,
) -> None:
    """Train every variant of a plan for the same time, and measure them on held-out clips.

    The first variant is the one that the others are compared with. A run that was stopped resumes.
    """
    from melcap.ablation.run import AblationOptions, run_plan

    options = AblationOptions(data, valid, out, cache, threads, clips_per_class)
    typer.echo(run_plan(plan, options), nl=False)
