"""Print results as JSON, or as tables of names and values."""

from __future__ import annotations

import json

import typer


def print_json(data: object) -> None:
    """Print data as indented JSON."""
    typer.echo(json.dumps(data, indent=2, allow_nan=False))


def columns(*rows: tuple[str, object]) -> str:
    """Return lines of name and value, with the values below each other.

    The lines are plain text, which a narrow terminal does not cut: paths stay whole.

    Example:
        >>> print(columns(("rate", 44100), ("channels", 2)))
        rate      44100
        channels  2
    """
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
