"""Make the table of docs/peers.md from a scorecard: codecs by rate, figures by class.

    python profiling/peers_table.py docs/scorecard/peers.json

It prints Markdown. A cell with three figures is for the classes speech, sound and music.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from melcap.markdown import table

CLASSES = ("speech", "sound", "music")
MEASURES = {
    "visqol_speech": "ViSQOL, speech mode",
    "stoi": "STOI",
    "pesq": "PESQ-WB",
    "mel_l1": "ln-mel L1",
    "over_smoothing": "over-smoothing",
}


def peers_table(summary: dict[str, Any]) -> str:
    """Return the table of a summary of `melcap evaluate`, with the lowest rate first.

    Codecs without a rate come last.
    """
    lines = {(line["codec"], line["class"]): line for line in summary["table"]}
    means = [line for line in summary["table"] if line["class"] == "mean"]
    rows = []
    for mean in sorted(means, key=lambda line: line["kbps"] or float("inf")):
        classes = [lines[mean["codec"], kind] for kind in CLASSES]
        figures = [_cell(classes, name) for name in MEASURES]
        rows.append([mean["codec"], f"{mean['kbps']:.2f}" if mean["kbps"] else "", *figures])
    return table(["codec", "kbps", *MEASURES.values()], rows)


def _cell(classes: list[dict[str, Any]], measure: str) -> str:
    values = [line[measure]["mean"] for line in classes if line[measure] is not None]
    return " / ".join(f"{value:.2f}" for value in values)


def main(
    scorecard: Annotated[Path, typer.Argument(help="A scorecard.json of `melcap evaluate`.")],
) -> None:
    """Print the table of a scorecard."""
    typer.echo(peers_table(json.loads(scorecard.read_text(encoding="utf-8"))), nl=False)


if __name__ == "__main__":
    typer.run(main)
