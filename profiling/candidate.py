"""Score weights that were trained against those that ship, and put them in their place.

    python profiling/candidate.py runs/gpu/run --data VALID.tar --out runs/candidate
    python profiling/candidate.py runs/gpu/run --data VALID.tar --out runs/candidate --ship

The script exports the codec of a run, and measures it and the shipped weights on the same clips in
the same run. It writes to OUT: the weights with hash, model card and mel decoder, the scorecard,
comparison.md with the paired differences, and changelog.md. `--ship` then copies the weights into
the package, and adds lines to CHANGELOG.md and to the model card. A run that was stopped goes on
where it was.

A run that trained encoder or codebook has another tokenizer, which needs row tables and a predictor
of its own (profiling/tokenizer_files.py). They are made if `--training` names the training audio.
Without it the comparison says that they are left out, and such weights do not ship.
"""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from paths import ROOT
from tokenizer_files import TokenizerFiles, make

import melcap
from melcap.ablation.table import MEASURES, paired_difference
from melcap.cli.exits import exit_on_errors
from melcap.errors import MelcapError
from melcap.evaluation.report import score
from melcap.evaluation.scorecard import KEY
from melcap.io.files import replacing
from melcap.markdown import table
from melcap.pretrained import DEFAULT
from melcap.training.checkpoint import Checkpoint
from melcap.training.export import ExportOptions, export_weights, trained_codec
from melcap.training.mel_decoder import path_beside

SHIPPED = ROOT / "melcap" / "weights"
NAME = Path(DEFAULT).stem
MORE = ("visqol_speech", "lsd", "mcd", "paper_mel")
"""Measures that are compared beside those of an ablation, where the scorecard has them."""
PREDICTED = ("bits_per_token", "predicted_kbps")
"""Measures of the predictor, which only a tokenizer with one of its own has."""
SMALLER_IS_BETTER = {"mel_l1", "lsd", "mcd", "paper_mel", *PREDICTED}
LEFT_OUT = (
    "Row tables and predictor of the new tokenizer are left out: compact files cannot be made with "
    "these weights, and how predictable their tokens are is not compared. `--training` makes them."
)


def compare(rows: list[dict[str, Any]], candidate: str) -> dict[str, dict[str, float]]:
    """Return the candidate's mean of each measure and its paired difference from what ships."""
    ours = [row for row in rows if row["codec"] == candidate]
    shipped = [row for row in rows if row["codec"] == "melcap"]
    wanted = (*MEASURES, *MORE, *PREDICTED)
    names = [name for name in wanted if any(name in row for row in ours)]
    found = {name: paired_difference(ours, shipped, name) for name in names}
    return {name: row for name, row in found.items() if row is not None}


def better(name: str, row: Mapping[str, float]) -> bool | None:
    """Return whether a measure gained, or None where its interval holds 0.

    Over-smoothing is best at 1, so a gain is a step towards 1.
    """
    if row["low"] <= 0 <= row["high"]:
        return None
    if name == "over_smoothing":
        before = row["mean"] - row["change"]
        return abs(row["mean"] - 1) < abs(before - 1)
    return (row["change"] > 0) != (name in SMALLER_IS_BETTER)


def comparison(found: Mapping[str, Mapping[str, float]]) -> str:
    """Return the comparison as Markdown."""
    titles = ("measure", "shipped", "candidate", "difference, 95 % interval", "")
    rows = []
    words = {True: "better", False: "worse", None: ""}
    for name, row in found.items():
        before = row["mean"] - row["change"]
        change = f"{row['change']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        verdict = words[better(name, row)]
        rows.append((name, f"{before:.3f}", f"{row['mean']:.3f}", change, verdict))
    return table(titles, rows)


def changelog(found: Mapping[str, Mapping[str, float]], model: str, same_tokens: bool) -> str:
    """Return the line for CHANGELOG.md."""
    told = ", ".join(
        f"{name} {row['mean']:.2f} ({row['mean'] - row['change']:.2f})"
        for name, row in found.items()
        if name in MEASURES
    )
    tokens = "the tokens are the same" if same_tokens else "tokens of the earlier weights differ"
    return f"- New weights, {model}: {told} (in brackets the weights before); {tokens}.\n"


def runs(checkpoint: Checkpoint, model: str) -> str:
    """Return a table for the model card, with a row for each run that led to the weights."""
    rows: list[tuple[str, ...]] = []
    for record in checkpoint.records:
        if record["recipe"] == "weights":
            rows.append((f"from {record['model']}", "", "", ""))
            continue
        what = f"{record['recipe']}, batch {record['batch']} x {record['columns']} columns"
        what += f", peak rate {record['rate']:g}"
        if record["discriminators"]:
            what += f", discriminators of {record['discriminators']}"
        rows.append((what, record["device"], f"{record['steps']:,}", f"{record['minutes']:g}"))
    rows.append((f"these are {model}", "", "", ""))
    return table(("recipe", "where", "steps", "minutes"), rows)


def ship(out: Path, lines: str, history: str, files: TokenizerFiles | None) -> None:
    """Copy the weights into the package; add to the changelog and to the model card.

    Args:
        out: the folder of the weights.
        lines: the lines for the changelog.
        history: the lines for the model card.
        files: the files of a new tokenizer, which replace those of the one before.
    """
    source = out / f"{NAME}.safetensors"
    for path in (source, source.with_suffix(".sha256"), path_beside(source)):
        if path.exists():
            with replacing(SHIPPED / path.name) as temporary:
                shutil.copyfile(path, temporary)
        else:  # the mel decoder of another tokenizer must not stay
            (SHIPPED / path.name).unlink(missing_ok=True)
    for path in files or ():
        for old in SHIPPED.glob(f"*{path.name[path.name.index('.') :]}"):
            old.unlink()
        shutil.copyfile(path, SHIPPED / path.name)
    if files:
        history += f"\nTheir tokenizer is another one. `{files.row_tables.name}` and "
        history += f"`{files.predictor.name}` are of it, and what is said above of such files is "
        history += "of the one before.\n"
    _add_to_unreleased(ROOT / "CHANGELOG.md", lines)
    title = "## Runs since then\n"
    card = SHIPPED / "README.md"
    head = "" if title in card.read_text(encoding="utf-8") else f"\n{title}\n"
    head += f"{datetime.date.today().isoformat()}, by `profiling/candidate.py`:\n\n"
    _append(card, f"\n{head}{history}" if title not in head else f"{head}{history}")


def _add_to_unreleased(path: Path, lines: str) -> None:
    """Add lines to the end of the changelog's section of what is not released yet."""
    head, title, rest = path.read_text(encoding="utf-8").partition("## Unreleased\n")
    if not title:
        raise MelcapError(f"{path}: has no section Unreleased to add {lines.strip()!r} to")
    section, divider, older = rest.partition("\n## ")
    section = section.rstrip("\n") + "\n"
    _write(path, head + title + section + lines + divider + older)


def _append(path: Path, text: str) -> None:
    _write(path, path.read_text(encoding="utf-8").rstrip("\n") + "\n" + text)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(
    run: Annotated[
        Path, typer.Argument(help="The folder of a training run that has a joint stage or stage 2.")
    ],
    data: Annotated[Path, typer.Option(help="Held-out clips: a folder, tar or CSV.")],
    out: Annotated[Path, typer.Option(help="The folder for weights, scorecard and comparison.")],
    clips_per_class: Annotated[int, typer.Option(help="Clips of each class, at most.", min=1)] = 8,
    seconds: Annotated[float, typer.Option(help="Seconds of each clip, at most.")] = 10.0,
    processes: Annotated[int, typer.Option(min=1, help="Processes that measure.")] = 2,
    training: Annotated[
        list[Path] | None,
        typer.Option(help="Training audio, for the files of a new tokenizer; repeatable."),
    ] = None,
    shipping: Annotated[
        bool, typer.Option("--ship", help="Put the weights and the lines into the repository.")
    ] = False,
) -> None:
    """Export, measure, compare and, with --ship, replace what ships."""
    with exit_on_errors():
        out.mkdir(parents=True, exist_ok=True)
        weights = out / f"{NAME}.safetensors"
        export_weights(run, weights, ExportOptions(force=True))
        made, before = melcap.load(weights), melcap.load()
        same = made.tokenizer_id == before.tokenizer_id
        if shipping and not same and not training:
            raise MelcapError(
                "these weights have another tokenizer than those that ship, and compact files need "
                "its row tables: give --training with the training audio, which makes them"
            )
        files = make(weights, training, data, out) if training and not same else None
        summary = score(
            data,
            ["melcap", str(weights)],
            out,
            clips_per_class=clips_per_class,
            seconds=seconds,
            processes=processes,
            predictor=files and files.predictor,
        )
        if summary["failures"]:
            raise MelcapError(f"not compared: {summary['failures'][0]}")
        lines = (out / "scores.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        # A file of scores may hold those of earlier candidates.
        known = (before.model, made.model)
        rows = [row for row in rows if row[KEY[1]] in known]
        found = compare(rows, str(weights))
        checkpoint = trained_codec(run)
        text = f"# {made.model} against {before.model}\n\n{summary['clips_per_class']} clips of "
        text += f"each class of {summary['data']}, at most, {summary['date'][:10]}. Tokens: "
        text += f"{'the same' if same else 'others'}.\n\n{comparison(found)}"
        text += "" if same or files else f"\n{LEFT_OUT}\n"
        with replacing(out / "comparison.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        line = changelog(found, made.model, same)
        with replacing(out / "changelog.md") as temporary:
            temporary.write_text(line, encoding="utf-8")
        if shipping:
            ship(out, line, runs(checkpoint, made.model), files)
    typer.echo(text)
    typer.echo(line)


if __name__ == "__main__":
    typer.run(main)
