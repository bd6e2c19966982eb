"""Codecs, tokens and commands that tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import melcap
from melcap.cli import commands as cli
from melcap.codec import Codec
from tests.cli.helpers import DATA


@pytest.fixture(scope="module")
def tokens(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "speech.melcap"
    melcap.encode_file(DATA / "speech.flac", path, codec)
    return path


@pytest.fixture(scope="module")
def melcap_cli(small_weights: Path) -> Callable[..., Result]:
    """Return a function that calls a command, with the small weights if it takes any."""

    def call(*arguments: object) -> Result:
        words = [str(argument) for argument in arguments]
        if words[0] in ("encode", "decode", "transcode", "plot") and "--weights" not in words:
            words += ["--weights", str(small_weights)]
        result = CliRunner().invoke(cli.app, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call
