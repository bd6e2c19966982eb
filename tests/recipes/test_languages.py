"""Languages and words that the names of Debian packages and files state."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from recipes.debian import languages
from recipes.debian.languages import language_of, words_prompted, words_spelled


@pytest.mark.parametrize(
    ("package", "path", "language"),
    [
        ("asterisk-core-sounds-fr-g722", "usr/share/asterisk/sounds/fr_CA_f_June/hours.g722", "fr"),
        ("festvox-ru", "usr/share/festival/voices/russian/wav/ru_0200.wav", "ru"),
        ("fillets-ng-data-nl", "usr/share/games/fillets-ng/sound/gems/nl/zav-v-zaval.ogg", "nl"),
        ("klettres-data", "usr/share/klettres/pt_BR/syllab/no.ogg", "pt"),
        ("klettres-data", "usr/share/klettres/nds/syllab/pann.ogg", "nds"),
        ("ktuberling-data", "usr/share/ktuberling/sounds/sr@latin/nos.ogg", "sr"),
        ("tuxpaint-stamps-default", "usr/share/tuxpaint/stamps/animals/cow_desc_nl.ogg", "nl"),
        ("tuxpaint-stamps-default", "usr/share/tuxpaint/stamps/animals/goat_desc.ogg", "en"),
        ("qabcs-data", "usr/share/qabcs/abcs/en/sounds/words/kite.ogg", "en"),
        ("gcin-voice", "usr/share/gcin-voice/ogg/3.ogg", "zh"),
        (
            "hedgewars-data",
            "usr/share/games/hedgewars/Data/Sounds/voices/Default_pl/Oops.ogg",
            "pl",
        ),
        ("hedgewars-data", "usr/share/games/hedgewars/Data/Sounds/voices/Pirate/Oops.ogg", ""),
        ("0ad-data", "audio/voice/latin/civ/civ_male_heal_1.ogg", ""),
    ],
)
def test_packages_say_their_language(package: str, path: str, language: str) -> None:
    assert language_of(package, [path]) == language


def test_files_in_two_languages_have_none() -> None:
    paths = [f"usr/share/klettres/{code}/syllab/no.ogg" for code in ("es", "it")]
    assert [language_of("klettres-data", [path]) for path in paths] == ["es", "it"]
    assert language_of("klettres-data", paths) == ""
    assert language_of("klettres-data", []) == ""


def test_words_come_from_names_only_where_all_say_them() -> None:
    words = "usr/share/qabcs/abcs/en/sounds/words/"
    assert words_spelled("qabcs-data", [words + "hot_dog.ogg", words + "owl.ogg"]) == "hot dog owl"
    assert words_spelled("qabcs-data", [words + "owl.ogg", "abcs/all/sounds/cheering.ogg"]) == ""
    package, folder = "asterisk-core-sounds-en-g722", "usr/share/sounds/en_US_f_Allison/"
    paths = [folder + "digits/1.g722", folder + "vm-and.g722"]
    prompts = {"digits/1": "one", "vm-and": "and"}
    assert words_prompted(package, paths, prompts) == "one and"
    assert words_prompted(package, paths, {"vm-and": "and"}) == ""


def run(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(languages.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_manifest_gets_languages_and_words(tmp_path: Path) -> None:
    words, prompts = "usr/abcs/en/sounds", "usr/share/asterisk/sounds/en_US_f_Allison"
    rows = [
        ["path", "class", "speaker", "package", "origin_path"],
        ["a.wav", "speech", "", "qabcs-data", f"{words}/words/hot_dog.ogg;{words}/alpha/x.ogg"],
        ["b.wav", "speech", "may", "asterisk-core-sounds-en-g722", f"{prompts}/vm-and.g722"],
        ["c.wav", "music", "", "0ad-data", "audio/music/a.ogg"],
    ]
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (tmp_path / "prompts.txt.gz").write_bytes(gzip.compress(b"; sounds\nvm-and: and: so on\n"))
    out, manifest = tmp_path / "labels.csv", tmp_path / "manifest.csv"
    done = run(manifest, "--out", out, "--prompts", tmp_path / "prompts.txt.gz")
    assert done.exit_code == 0, done.output
    with out.open(newline="") as file:
        spelled, prompted, music = csv.DictReader(file)
    assert {key: spelled[key] for key in rows[0]} == dict(zip(rows[0], rows[1], strict=True))
    assert (spelled["language"], spelled["text"], spelled["listed"]) == ("en", "hot dog x", "yes")
    assert (prompted["language"], prompted["text"], prompted["listed"]) == ("en", "and: so on", "")
    assert (music["language"], music["text"], music["listed"]) == ("", "", "")


@pytest.mark.parametrize(
    ("manifest", "prompts", "reason"),
    [
        (None, b"", "cannot be read as CSV"),
        (b"path,class\na.wav,speech\n", b"", "no column package and no origin_path"),
        (b"path,class,package,origin_path\n", b"not gzip", "cannot be read as text"),
    ],
)
def test_files_that_cannot_be_used_are_refused(
    tmp_path: Path, manifest: bytes | None, prompts: bytes, reason: str
) -> None:
    if manifest is not None:
        (tmp_path / "manifest.csv").write_bytes(manifest)
    (tmp_path / "prompts.gz").write_bytes(prompts)
    arguments = (tmp_path / "manifest.csv", "--prompts", tmp_path / "prompts.gz")
    done = run(*arguments, "--out", tmp_path / "labels.csv")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert reason in done.stderr
    assert not (tmp_path / "labels.csv").exists()
