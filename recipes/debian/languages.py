"""Write a manifest with the languages and words of clips made from Debian packages.

    python -m recipes.debian.languages data/manifest.csv --prompts PROMPTS --out labels.csv

The new manifest has all columns of the old one, and `language`, `text` and `listed`, which
`melcap probe --manifest labels.csv` reads. PROMPTS is core-sounds-en.txt.gz of the package
asterisk-core-sounds-en, in usr/share/doc; without it the clips of that package have no text.

Languages and words follow from the names of packages and files, by the rules below, and never from
listening. Where the names state no language, a clip has none: for example the game voices of 0ad
and openarena, and nearly all of hedgewars.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from melcap.cli.exits import exit_on_errors, prepare_process
from melcap.errors import InputError
from melcap.io.files import replacing

RULES = (
    (r"^asterisk-core-sounds-(?P<code>[a-z]{2})-", None),
    (r"^festvox-(?P<code>[a-z]{2})/", None),
    (r"^fillets-ng-data-[a-z]{2}/.*/(?P<code>[a-z]{2})/[^/]+$", None),
    (r"^klettres-data/.*/klettres/(?P<code>[a-z]{2,3})(_[A-Z]{2})?/", None),
    (r"^ktuberling-data/.*/sounds/(?P<code>[a-z]{2,3})(@\w+)?/", None),
    (r"^qabcs-data/.*/abcs/(?P<code>[a-z]{2})/", None),
    (r"^hedgewars-data/.*/voices/Default_(?P<code>[a-z]{2})/", None),
    (r"^tuxpaint-stamps-default/.*_desc_(?P<code>[a-z]{2,3})(_[A-Z]{2})?\.\w+$", None),
    (r"^tuxpaint-stamps-default/.*_desc\.\w+$", "en"),
    (r"^gcin-voice/", "zh"),
)
"""Patterns of PACKAGE/PATH, and the language: the code in the match, or the one given here."""

SPELLED = (
    r"^qabcs-data/.*/abcs/en/sounds/(?:words|alpha)/(?P<word>[^/]+)\.\w+$",
    r"^klettres-data/.*/klettres/en(?:_GB)?/(?:alpha|syllab)/(?P<word>[^/]+)\.\w+$",
)
"""Patterns of English files that are named after the spoken word or letter."""

PROMPTS = r"^asterisk-core-sounds-en-\w+/.*/sounds/en_US_f_Allison/(?P<name>.+)\.\w+$"
"""The pattern of files whose text is in the package's core-sounds-en.txt, under this name."""

NEEDED = ("path", "class", "package", "origin_path")
ADDED = ("language", "text", "listed")

Row = dict[str, str]


def main(
    manifest: Annotated[Path, typer.Argument(help="manifest.csv of a set made by recipes.debian")],
    out: Annotated[Path, typer.Option(help="the CSV file to write")],
    prompts: Annotated[
        Path | None,
        typer.Option(help='lines "NAME: text" for prompts: core-sounds-en.txt or .txt.gz'),
    ] = None,
) -> None:
    """Write a manifest with the columns language, text and listed."""
    with exit_on_errors():
        columns, rows = read_manifest(manifest)
        texts = read_prompts(prompts) if prompts else {}
        labelled = [row | labels_of(row, texts) for row in rows]
        with replacing(out) as temporary:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                names = [*columns, *(name for name in ADDED if name not in columns)]
                writer = csv.DictWriter(file, names, lineterminator="\n")
                writer.writeheader()
                writer.writerows(labelled)
    known = sum(bool(row["language"]) for row in labelled)
    typer.echo(f"{out}: {known} of {len(labelled)} clips have a language")


def labels_of(row: Mapping[str, str], prompts: Mapping[str, str]) -> Row:
    """Return language, text and listed of a clip; the last is "yes" for single words, else ""."""
    package, paths = row["package"], origins(row)
    spelled = words_spelled(package, paths)
    return {
        "language": language_of(package, paths),
        "text": spelled or words_prompted(package, paths, prompts),
        "listed": "yes" if spelled else "",
    }


def language_of(package: str, paths: Sequence[str]) -> str:
    """Return the language of a clip, or "" where its files do not all state the same one."""
    found = {_code(f"{package}/{path}") for path in paths}
    return found.pop() if len(found) == 1 else ""


def words_spelled(package: str, paths: Sequence[str]) -> str:
    """Return the words that a clip's files are named after, or "" where one is not."""
    found = [_first(SPELLED, f"{package}/{path}") for path in paths]
    if not all(found):
        return ""
    return " ".join(match["word"].replace("_", " ").lower() for match in found if match)


def words_prompted(package: str, paths: Sequence[str], prompts: Mapping[str, str]) -> str:
    """Return the text of a clip that is joined of prompts, or "" where one has no text."""
    found = [_first((PROMPTS,), f"{package}/{path}") for path in paths]
    texts = [prompts.get(match["name"], "") if match else "" for match in found]
    return " ".join(texts) if all(texts) else ""


def origins(row: Mapping[str, str]) -> list[str]:
    """Return the files that a clip is joined of, in their order."""
    return [str(PurePosixPath(path)) for path in row["origin_path"].split(";") if path]


def read_manifest(path: Path) -> tuple[list[str], list[Row]]:
    """Read the columns and the rows of a manifest.

    Raises:
        InputError: for a file that cannot be read, or lacks one of the columns `NEEDED`.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            rows = [{key: value or "" for key, value in row.items() if key} for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from error
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise InputError(
            f"{path} has no column {' and no '.join(missing)}: give the manifest.csv of a set that "
            "recipes.debian made"
        )
    return columns, rows


def read_prompts(path: Path) -> Row:
    """Read the text of each prompt from lines "NAME: text"; lines with ; are comments.

    Raises:
        InputError: for a file that cannot be read.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeError) as error:
        raise InputError(f"{path} cannot be read as text: {error}") from error
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith(";"))
    return {name.strip(): said.strip() for name, colon, said in lines if colon}


def _code(path: str) -> str:
    for pattern, code in RULES:
        if match := re.search(pattern, path):
            return code or match["code"]
    return ""


def _first(patterns: Sequence[str], path: str) -> re.Match[str] | None:
    return next(filter(None, (re.search(pattern, path) for pattern in patterns)), None)


if __name__ == "__main__":
    prepare_process()
    typer.run(main)
