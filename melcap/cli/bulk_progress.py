"""The progress of `melcap tokenize`: a bar on a terminal, or lines of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from melcap.bulk.run_state import RunState


@contextmanager
def show_progress(as_json: bool, quiet: bool) -> Iterator[Callable[[RunState], None]]:
    """Show the progress of a run while the block lasts.

    Args:
        as_json: print lines of JSON to stdout.
        quiet: show nothing, as if stderr were not a terminal.

    Yields:
        The function to call with the state of the run.
    """
    if as_json:
        yield lambda state: print_event("progress", state)
        return
    if quiet or not sys.stderr.isatty():
        yield lambda state: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("tokenize"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[speed]:.1f}x real time"),
        progress.TextColumn("{task.fields[bad]} bad"),
        progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, speed=0.0, bad=0)

        def show(state: RunState) -> None:
            bar.update(
                task,
                total=state.clips,
                completed=state.done + state.bad,
                speed=state.speed,
                bad=state.bad,
            )

        yield show


def print_event(event: str, state: RunState) -> None:
    """Print the state of a run as a line of JSON."""
    typer.echo(json.dumps({"event": event, **_figures(state)}))
    sys.stdout.flush()


def _figures(state: RunState) -> dict[str, Any]:
    return {
        "clips": state.clips,
        "done": state.done,
        "bad": state.bad,
        "unlisted": state.unlisted,
        "changed": state.changed,
        "remade": state.remade,
        "passed_over": dict(state.passed),
        "audio_seconds": round(state.audio_seconds, 3),
        "wall_seconds": round(state.wall_seconds, 3),
        "speed": round(state.speed, 2),
        "busy": round(state.busy, 3),
        "eta_seconds": state.eta_seconds and round(state.eta_seconds, 1),
    }
