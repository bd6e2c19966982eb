"""The summary of a downstream run as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from melcap.evaluation.probes.tasks import Row


def markdown(summary: Row) -> str:
    """Two tables for each task, one of the recogniser, what made them and what was left out."""
    parts = [text for task in summary["tasks"] for text in _task(task)]
    if summary["speech"]:
        parts.append("### Speech recogniser\n\n" + _speech(summary["speech"]))
    made = [f"{name} is {what}" for name, what in summary["identities"].items()]
    notes = [*made, *summary["notes"], *(f"failed: {failure}" for failure in summary["failures"])]
    parts += ["".join(f"- {note}\n" for note in notes)] if notes else []
    return "\n".join(parts)


def _task(task: Row) -> Iterable[str]:
    sides = {
        side: ", ".join(f"{n} {c['clips']} ({c['voices']})" for n, c in classes.items())
        for side, classes in task["classes"].items()
    }
    yield (
        f"### {task['task'].capitalize()}\n\n"
        f"Clips (voices) of TRAIN: {sides['train']}; of VALID: {sides['valid']}.\n"
    )
    names = list(task["classes"]["valid"])
    titles = ["features", "probe", "per column", "parameters", "balanced accuracy", "seeds' sd"]
    titles += ["macro F1", *(f"recall {name}" for name in names)]
    chance = ["chance", "", "", "", f"{task['chance']:.3f}", "", "", *[""] * len(names)]
    yield _table(titles, [*map(_probe, task["probes"]), chance])
    rows = [[d["features"], d["probe"], _cell(d["balanced_accuracy"])] for d in task["differences"]]
    if rows:
        yield _table(["difference", "probe", "balanced accuracy"], rows)


def _probe(line: Row) -> list[str]:
    shuffled = ", labels shuffled" if line["labels"] == "shuffled" else ""
    cells = [line["features"] + shuffled, line["probe"], str(line["numbers_per_column"])]
    cells += [str(line["parameters"]), _cell(line["balanced_accuracy"])]
    cells += [f"{line['seeds_standard_deviation']:.3f}", _cell(line["macro_f1"])]
    return cells + [f"{value:.2f}" for value in line["recall"].values()]


def _speech(lines: Sequence[Row]) -> str:
    titles = ["search", "clips of", "n", "s", "codec", "kbps"]
    titles += ["words", "error rate", "words of the original", "disagreement with the original"]
    rows = []
    for line in lines:
        cells = [line["search"], line["side"], str(line["clips"]), f"{line['seconds']:.0f}"]
        cells += [line["codec"], f"{line['kbps']:.2f}"]
        for name in ("error_rate", "disagreement"):
            cells += [str(line[f"{name}_words"] or ""), _cell(line[name])]
        rows.append(cells)
    return _table(titles, rows)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(value: dict[str, Any] | None) -> str:
    if value is None:
        return ""
    if value["low"] is None:
        return f"{value['mean']:.3f}"
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
