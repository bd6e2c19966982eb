"""Show the summary of a run of probes as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from melcap.evaluation.table import Row
from melcap.markdown import table


def markdown(summary: Row) -> str:
    """Return two tables for each task, one for the recogniser, and notes.

    The notes tell which weights and versions made the results, what was left out, and what failed.
    """
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
    titles = [
        "features",
        "probe",
        "per column",
        "parameters",
        "balanced accuracy",
        "seeds' sd",
        "macro F1",
        *(f"recall {name}" for name in names),
    ]
    chance = ["chance", "", "", "", f"{task['chance']:.3f}", "", "", *[""] * len(names)]
    yield table(titles, [*map(_probe, task["probes"]), chance])
    rows = [[d["features"], d["probe"], _cell(d["balanced_accuracy"])] for d in task["differences"]]
    if rows:
        yield table(["difference", "probe", "balanced accuracy"], rows)


def _probe(line: Row) -> list[str]:
    shuffled = ", labels shuffled" if line["labels"] == "shuffled" else ""
    return [
        line["features"] + shuffled,
        line["probe"],
        str(line["numbers_per_column"]),
        str(line["parameters"]),
        _cell(line["balanced_accuracy"]),
        f"{line['seeds_standard_deviation']:.3f}",
        _cell(line["macro_f1"]),
        *(f"{value:.2f}" for value in line["recall"].values()),
    ]


def _speech(lines: Sequence[Row]) -> str:
    titles = [
        "search",
        "clips of",
        "n",
        "s",
        "codec",
        "kbps",
        "words",
        "error rate",
        "words of the original",
        "disagreement with the original",
    ]
    rows = [
        [
            line["search"],
            line["side"],
            str(line["clips"]),
            f"{line['seconds']:.0f}",
            line["codec"],
            f"{line['kbps']:.2f}",
            str(line["error_rate_words"] or ""),
            _cell(line["error_rate"]),
            str(line["disagreement_words"] or ""),
            _cell(line["disagreement"]),
        ]
        for line in lines
    ]
    return table(titles, rows)


def _cell(value: dict[str, Any] | None) -> str:
    if value is None:
        return ""
    if value["low"] is None:
        return f"{value['mean']:.3f}"
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
