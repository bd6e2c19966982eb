"""Exit statuses: the same for every command that there is."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from melcap.cli import commands, exits
from melcap.errors import WeightsError

IMPOSSIBLE = {
    "ablate": ["missing.json", "--data", "a.tar", "--valid", "b.tar", "--out", "runs"],
    "bench": ["missing.wav"],
    "convert": ["--stage1", "missing", "--stage2", "missing", "--out", "x.safetensors"],
    "decode": ["missing.melcap"],
    "detokenize": ["missing", "--out", "audio"],
    "doctor": [],
    "encode": ["missing.wav"],
    "evaluate": ["missing"],
    "export": ["missing.safetensors", "--onnx", "graphs"],
    "info": ["missing.melcap"],
    "plot": ["missing.wav"],
    "probe": ["missing-train", "missing-valid", "--out", "probes"],
    "row-tables": ["missing", "--out", "tables"],
    "stats": ["missing"],
    "tokenize": ["missing", "--out", "set"],
    "train": ["missing.tar", "--stage", "1", "--minutes", "1", "--out", "run"],
    "train-curves": ["missing"],
    "train-decode": ["missing.tar", "--out", "cache"],
    "transcode": ["missing.wav", "--out", "x.wav"],
}
"""For every command, arguments that are right in form, for work that cannot be done."""
GROUP: Any = typer.main.get_command(commands.app)

every_command = pytest.mark.parametrize("name", IMPOSSIBLE)


def call(*words: str) -> Result:
    result = CliRunner().invoke(commands.app, [*words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_command_is_here() -> None:
    assert sorted(IMPOSSIBLE) == sorted(GROUP.commands)


@every_command
def test_success_is_0(name: str) -> None:
    result = call(name, "--help")
    assert (result.exit_code, result.stderr) == (0, "")


@every_command
def test_failure_is_1_and_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise WeightsError("the weights are damaged")

    monkeypatch.setattr("melcap.cli.diagnosis.load", broken)
    result = call(name, *IMPOSSIBLE[name])
    assert result.exit_code == exits.FAILURE == 1, result.output
    if name == "doctor":  # its report has the problem
        return
    lines = result.stderr.splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 1, result.stderr


@every_command
def test_usage_is_2(name: str) -> None:
    result = call(name, *IMPOSSIBLE[name], "--no-such-option")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: " in result.stderr


def _ctrl_c() -> None:
    raise KeyboardInterrupt


def _kill() -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def _prepared() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    exits.prepare_process()
    yield
    signal.signal(signal.SIGTERM, before)


@every_command
@pytest.mark.usefixtures("_prepared")
@pytest.mark.parametrize(("how", "status"), [(_ctrl_c, 130), (_kill, 143)])
def test_interrupted_is_130_and_killed_is_143(
    name: str, how: Callable[[], None], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GROUP.commands[name], "callback", lambda **_: how())
    with pytest.raises(SystemExit) as ended:
        GROUP.main([name, *IMPOSSIBLE[name]], prog_name="melcap")
    assert ended.value.code == status


def test_what_is_not_expected_is_not_hidden() -> None:
    """A bug shows its traceback."""
    with pytest.raises(ZeroDivisionError), exits.exit_on_errors():
        raise ZeroDivisionError


def test_the_statuses_are_documented() -> None:
    said, shown = exits.__doc__ or "", call("--help").stdout
    for status in (0, exits.FAILURE, 2, exits.INTERRUPTED, exits.TERMINATED):
        assert f"\n    {status} " in said
        assert f" {status} " in shown.partition("Exit status:")[2]
