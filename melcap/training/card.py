"""The model card of exported weights: the codec, its training data, its training, its scores."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from melcap.codec import Codec
from melcap.errors import InputError
from melcap.hub import front_matter
from melcap.markdown import table
from melcap.training.checkpoint import Checkpoint, Record
from melcap.training.mel_decoder import stored_tokenizer_id

_NAMES: dict[str, str] = {
    "stage1": "stage 1",
    "vocoder": "stage 2 on true mels",
    "stage2": "stage 2 on tokens",
    "joint": "joint stage",
}
ANOTHER_TOKENIZER = (
    "the joint stage made another tokenizer: these weights cannot read tokens from before it, and "
    "compact files and the measure of predictability need row tables and a predictor of their own "
    "(melcap row-tables, examples/token_lm.py)"
)


def card(
    codec: Codec,
    weights: Path,
    digest: str,
    checkpoint: Checkpoint,
    licences: Sequence[Mapping[str, str]] = (),
    scorecard: Mapping[str, Any] | None = None,
) -> str:
    """Return a model card in Markdown, with the front matter that the Hub reads.

    The front matter names no licence: the owner of the weights chooses one, and adds it.

    Args:
        codec: the codec that was exported.
        weights: its weights file.
        digest: the SHA-256 of that file.
        checkpoint: the checkpoint that it is from, whose records say how it was trained.
        licences: the packages of the data and their licences, see `read_licences`.
        scorecard: the scores, see `read_scorecard`; None for a card without scores.
    """
    records = checkpoint.records
    parts = [
        front_matter(),
        f"# {weights.stem}: model card",
        _codec(codec, weights, digest),
        *([f"T{ANOTHER_TOKENIZER[1:]}."] if checkpoint.recipe == "joint" else []),
        "## Training data",
        _data(records),
        *_packages(licences),
        "## Training",
        _training(records),
    ]
    parts += ["Settings of the last session:", f"```json\n{checkpoint.config.to_json()}\n```"]
    if scorecard is not None:
        parts += ["## Scores", *_scores(scorecard)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def read_licences(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file with the columns package and licences, and any others.

    Raises:
        InputError: if the file cannot be read or is not such a table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot read the licences: {error}") from error
    found = rows[0].keys() if rows else set[str]()
    if "package" not in found or not {"licence", "licences"} & found:
        raise InputError(f"{path}: a table is needed, with columns called package and licences")
    if any(None in row or None in row.values() for row in rows):
        raise InputError(f"{path}: each row must have as many cells as the first line has names")
    return rows


def read_scorecard(path: Path) -> dict[str, Any]:
    """Return the contents of a scorecard.json that `melcap evaluate` wrote.

    Raises:
        InputError: if the file cannot be read or is no scorecard.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _scores(found)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot read the scorecard: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a scorecard.json of melcap evaluate") from error
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
        f"tokenizer is `{stored_tokenizer_id(codec)}`, its configuration is in the file (`melcap "
        "info`)."
    )


def _data(records: Iterable[Record]) -> str:
    """Return the hours of each class, once for each set of data."""
    sets = {record["data"]: record["hours"] for record in records if "hours" in record}
    if not sets:
        return "The hours of audio are not on record."
    classes = sorted({label for hours in sets.values() for label in hours})
    rows = [
        [key, *(f"{hours.get(label, 0):.2f}" for label in classes), f"{sum(hours.values()):.2f}"]
        for key, hours in sets.items()
    ]
    return table(["data", *(f"{label}, hours" for label in classes), "all"], rows)


def _packages(licences: Sequence[Mapping[str, str]]) -> list[str]:
    if not licences:
        return []
    rows = table([*licences[0].keys()], [[*row.values()] for row in licences])
    return ["The packages that the data is from, and their licences:", rows]


def _training(records: Iterable[Record]) -> str:
    """Return a table with a row for each session, and for weights that training began with."""
    titles = [
        "recipe",
        "steps",
        "minutes",
        "crops x columns",
        "peak rate",
        "discriminators",
        "seconds of audio a second",
        "on",
        "data",
        "figures at the end",
    ]
    return table(titles, [_session(record, len(titles)) for record in records])


def _session(record: Record, cells: int) -> list[str]:
    if record["recipe"] == "weights":
        return [f"started from {record['model']}"] + [""] * (cells - 1)
    recipe = str(record["recipe"])
    together = f"{record['processes']} x " if record.get("processes", 1) > 1 else ""
    machine = f"{together}{record['device']}{', bfloat16' if record['bf16'] else ''}"
    pieces = f", in {record['accumulate']} pieces" if record.get("accumulate", 1) > 1 else ""
    return [
        _NAMES.get(recipe, recipe),
        str(record["steps"]),
        f"{record['minutes']:.1f}",
        f"{record['batch']} x {record['columns']}{pieces}",
        f"{record['rate']:g}",
        _discriminators(record),
        f"{record['audio_seconds_per_second']:g}",
        f"{machine}, torch {record['torch']}, {record['date']}",
        record["data"],
        ", ".join(f"{name} {value:g}" for name, value in record["figures"].items()),
    ]


def _discriminators(record: Record) -> str:
    """Return the width of a session's discriminators, with their kind where it is not the usual."""
    kind = record.get("discriminator_kind", "waves")
    width = record["discriminators"]
    return f"{width} ({kind})" if width and kind != "waves" else str(width or "")


def _scores(scorecard: Mapping[str, Any]) -> list[str]:
    """Return a heading and the table of all measures, without flags and figures of a codebook."""
    lines: list[dict[str, Any]] = scorecard["table"]
    names = [
        name
        for name in dict.fromkeys(name for line in lines for name in line)
        if all(_is_shown(line.get(name)) for line in lines)
    ]
    clips, seconds = scorecard["clips_per_class"], scorecard["seconds_at_most"]
    return [
        f"`melcap evaluate` on {scorecard['data']}, at most {clips} clips of each class and "
        f"{seconds:g} s of each clip, {scorecard['date'][:10]}. Measures have their 95 % intervals "
        "in brackets.",
        table(names, [[_score(line.get(name)) for name in names] for line in lines]),
    ]


def _is_shown(value: Any) -> bool:
    return "mean" in value if isinstance(value, Mapping) else not isinstance(value, bool)


def _score(value: Any) -> str:
    if isinstance(value, Mapping):
        interval = f" [{value['low']:.2f}, {value['high']:.2f}]" if value["low"] is not None else ""
        return f"{value['mean']:.2f}{interval}"
    if isinstance(value, float):
        return f"{value:.2f}"
    return "" if value is None else str(value)
