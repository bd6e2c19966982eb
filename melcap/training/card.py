"""The model card of exported weights: what they are, from what and how they learnt, and scores."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from melcap.codec import Codec
from melcap.errors import InputError
from melcap.training.checkpoint import Checkpoint, Record

_NAMES: dict[str, str] = {
    "stage1": "stage 1",
    "vocoder": "stage 2 on true mels",
    "stage2": "stage 2 on tokens",
}


def card(
    codec: Codec,
    weights: Path,
    digest: str,
    checkpoint: Checkpoint,
    licences: Sequence[Mapping[str, str]] = (),
    scorecard: Mapping[str, Any] | None = None,
) -> str:
    """Markdown, from what the checkpoint has on record; see `read_licences`, `read_scorecard`."""
    records = checkpoint.records
    parts = [
        f"# {weights.stem}: model card",
        _codec(codec, weights, digest),
        "## Training data",
        _data(records),
        *_packages(licences),
        "## Training",
        _training(records),
    ]
    parts += ["Settings of the last run:", f"```json\n{checkpoint.config.to_json()}\n```"]
    if scorecard is not None:
        parts += ["## Scores", *_scores(scorecard)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def read_licences(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file that names packages and their licences, in whatever other columns.

    Raises InputError where it is none.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot read the licences: {error}") from error
    found = rows[0].keys() if rows else set[str]()
    if "package" not in found or not {"licence", "licences"} & found:
        raise InputError(f"{path}: needs rows, with columns called package and licences")
    if any(None in row or None in row.values() for row in rows):
        raise InputError(f"{path}: not all rows have as many cells as the first line has names")
    return rows


def read_scorecard(path: Path) -> dict[str, Any]:
    """The scorecard.json of `melcap.evaluation.scorecard`. Raises InputError where it is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _scores(found)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot read the scorecard: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a scorecard.json of melcap.evaluation.scorecard") from error
    return found


def _codec(codec: Codec, weights: Path, digest: str) -> str:
    config = codec.config
    parameters = sum(value.numel() for value in codec.parameters())
    codebook = f"{config.tokenizer.codebook_size} vectors of {config.tokenizer.codebook_dim}"
    return (
        f"`{weights.name}` ({weights.stat().st_size / 1e6:.1f} MB, SHA-256 `{digest}`), exported "
        f"{datetime.date.today().isoformat()}. A codec called {config.name}, for "
        f"{config.mel.sample_rate} Hz: one codebook of {codebook} numbers, {config.rows} tokens "
        f"for every {config.column_samples} samples, {config.tokens_per_second:.1f} tokens/s, "
        f"{config.bits_per_second / 1000:.2f} kbps, {parameters / 1e6:.1f} M parameters. Its "
        "configuration is in the file (`melcap info`)."
    )


def _data(records: Iterable[Record]) -> str:
    """The hours of each class, once for each set of data."""
    sets = {record["data"]: record["hours"] for record in records if "hours" in record}
    if not sets:
        return "Its hours are not on record."
    classes = sorted({label for hours in sets.values() for label in hours})
    rows = [
        [key, *(f"{hours.get(label, 0):.2f}" for label in classes), f"{sum(hours.values()):.2f}"]
        for key, hours in sets.items()
    ]
    return _table(["data", *(f"{label}, hours" for label in classes), "all"], rows)


def _packages(licences: Sequence[Mapping[str, str]]) -> list[str]:
    if not licences:
        return []
    table = _table(licences[0].keys(), (row.values() for row in licences))
    return ["The packages that it is from, and their licences:", table]


def _training(records: Iterable[Record]) -> str:
    titles = ["recipe", "steps", "minutes", "crops x columns", "peak rate", "discriminators"]
    titles += ["seconds of audio a second", "on", "data", "figures at the end"]
    rows: list[list[str]] = []
    for record in records:
        if record["recipe"] == "weights":
            rows.append([f"begun with {record['model']}"])
            continue
        recipe = str(record["recipe"])
        rows.append([_NAMES.get(recipe, recipe)])
        rows[-1] += [str(record["steps"]), f"{record['minutes']:.1f}"]
        machine = f"{record['device']}{', bfloat16' if record['bf16'] else ''}"
        rows[-1] += [
            f"{record['batch']} x {record['columns']}",
            f"{record['rate']:g}",
            str(record["discriminators"] or ""),
            f"{record['audio_seconds_per_second']:g}",
            f"{machine}, torch {record['torch']}, {record['date']}",
            record["data"],
            ", ".join(f"{name} {value:g}" for name, value in record["figures"].items()),
        ]
    return _table(titles, (row + [""] * (len(titles) - len(row)) for row in rows))


def _scores(scorecard: Mapping[str, Any]) -> list[str]:
    """The table with whatever measures are in it; flags and figures of a codebook are left out."""
    lines: list[dict[str, Any]] = scorecard["table"]
    names = [
        name
        for name in dict.fromkeys(name for line in lines for name in line)
        if all(_is_told(line.get(name)) for line in lines)
    ]
    clips, seconds = scorecard["clips_per_class"], scorecard["seconds_at_most"]
    return [
        f"`melcap.evaluation.scorecard` on {scorecard['data']}, at most {clips} clips of each "
        f"class and {seconds:g} s of each clip, {scorecard['date'][:10]}; measures with their 95 % "
        "intervals:",
        _table(names, ([_score(line.get(name)) for name in names] for line in lines)),
    ]


def _is_told(value: Any) -> bool:
    return "mean" in value if isinstance(value, Mapping) else not isinstance(value, bool)


def _score(value: Any) -> str:
    if isinstance(value, Mapping):
        interval = f" [{value['low']:.2f}, {value['high']:.2f}]" if value["low"] is not None else ""
        return f"{value['mean']:.2f}{interval}"
    if isinstance(value, float):
        return f"{value:.2f}"
    return "" if value is None else str(value)


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(titles)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
