"""Make the files that go with a new tokenizer: its row tables and its predictor.

    python profiling/tokenizer_files.py my.safetensors --training a.tar --data valid.tar --out OUT

Compact `.melcap` files are coded by row tables, and the scorecard measures how predictable tokens
are with a predictor. Both belong to one tokenizer. The script tokenizes the training audio, counts
the tokens and trains the predictor, as docs/measures.md says, in about as long as it takes to
encode the audio and a quarter of an hour. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from paths import ROOT

import melcap
from melcap.cli.exits import exit_on_errors
from melcap.errors import MelcapError
from melcap.evaluation.measures.predictor import RECIPE, SUFFIX
from melcap.io.container.row_tables import SUFFIX as ROW_TABLES
from melcap.io.files import replacing

STEPS = int(str(RECIPE["steps"]))
"""The steps that every predictor is trained for."""


class TokenizerFiles(NamedTuple):
    """The files of a tokenizer, both named by its id."""

    row_tables: Path
    predictor: Path


def make(
    weights: Path, training: Sequence[Path], held_out: Path, out: Path, steps: int = STEPS
) -> TokenizerFiles:
    """Make the files of the tokenizer of some weights.

    Args:
        weights: the weights file.
        training: the training audio: tar shards or folders.
        held_out: audio that is not among it.
        out: the folder for both files. Tokens and checkpoints go to a folder in it that has the
            name of the tokenizer, so that those of two tokenizers are never mixed.
        steps: the steps of the predictor; any but `STEPS` is for tests.

    Raises:
        MelcapError: if one of the commands fails, which has printed the reason.
    """
    name = melcap.load(weights).tokenizer_id
    files = TokenizerFiles(out / f"{name}{ROW_TABLES}", out / f"{name}{SUFFIX}")
    work = out / name
    tokens, unseen, model = work / "tokens", work / "unseen", work / "predictor"
    for sources, target in ((training, tokens), ([held_out], unseen)):
        _melcap("tokenize", *sources, "--weights", weights, "--out", target)
    _melcap("row-tables", tokens, "--valid", unseen, "--out", out)
    if not files.predictor.exists():
        example = ROOT / "examples" / "token_lm.py"
        train = ["train", tokens, "--unseen", unseen, "--weights", weights, "--steps", steps]
        _run(sys.executable, example, *train, "--no-bf16", "--out", model)
        with replacing(files.predictor) as temporary:
            shutil.copyfile(model / "model.safetensors", temporary)
    return files


def _melcap(*words: object) -> None:
    _run(sys.executable, "-m", "melcap", *words)


def _run(*words: object) -> None:
    command = [str(word) for word in words]
    if status := subprocess.run(command, check=False).returncode:
        raise MelcapError(f"{' '.join(command[1:4])} ended with status {status}, see above")


def main(
    weights: Annotated[Path, typer.Argument(help="A weights file.")],
    training: Annotated[list[Path], typer.Option(help="A tar shard or folder; repeatable.")],
    data: Annotated[Path, typer.Option(help="Held-out clips: a folder or tar.")],
    out: Annotated[Path, typer.Option(help="The folder for the files.")],
) -> None:
    """Make row tables and predictor, and print where they are."""
    with exit_on_errors():
        for path in make(weights, training, data, out):
            typer.echo(str(path))


if __name__ == "__main__":
    typer.run(main)
