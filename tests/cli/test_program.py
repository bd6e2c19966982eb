"""The program `melcap`: terminals, odd file names, and quick help."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import melcap
from melcap.cli import exits
from tests.cli.helpers import Cli, clip, environment, names
from tests.forks import start_melcap


@pytest.fixture(scope="module")
def on_a_terminal(
    tmp_path_factory: pytest.TempPathFactory, small_weights: Path
) -> tuple[bytes, bytes, list[str]]:
    """Stdout (a pipe), stderr (a terminal) and the files of one process, for several tests."""
    pty = pytest.importorskip("pty")
    folder = tmp_path_factory.mktemp("program")
    ours, theirs = pty.openpty()
    for name in ("caf\udce9.wav", "ü [b].wav"):
        source = clip(folder / "plain.wav", seconds=2)
        with suppress(OSError):  # where a name must be UTF-8, which the first one is not
            source.rename(folder / name)
    process = start_melcap(
        "encode",
        ".",
        "--weights",
        small_weights,
        folder=folder,
        stdout=folder / "said.txt",
        stderr=os.ttyname(theirs),
    )
    while not (folder / "said.txt").exists():  # until the process has the terminal
        time.sleep(0.01)
    os.close(theirs)
    shown = b""
    # At its end Linux raises an error, other systems give nothing.
    with suppress(OSError):
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    process.join()
    return (folder / "said.txt").read_bytes(), shown, names(folder)


class TestProgram:
    def test_any_file_name(self, on_a_terminal: tuple[bytes, bytes, list[str]]) -> None:
        stdout, shown, files = on_a_terminal
        assert "ü [b].melcap" in files
        assert "ü [b].wav -> ü [b].melcap: 2.00 s".encode() in stdout
        assert b"Traceback" not in shown

    def test_results_with_any_file_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", stdout)
        before = signal.getsignal(signal.SIGTERM)
        exits.prepare_process()
        signal.signal(signal.SIGTERM, before)
        print("caf\udce9 ü", file=stdout, flush=True)
        assert stdout.buffer.getvalue() == b"caf\\udce9 \\xfc\n"  # type: ignore[attr-defined]

    def test_the_bar_is_on_stderr_alone(
        self, on_a_terminal: tuple[bytes, bytes, list[str]]
    ) -> None:
        stdout, shown, _ = on_a_terminal
        assert "2/2 ü [b].wav".encode() in shown
        assert b"\x1b" not in stdout
        assert b"real time" not in shown

    @pytest.mark.slow
    def test_help_needs_nothing_heavy(self) -> None:
        heavy = {"torch", "numpy", "soundfile", "soxr", "av", "matplotlib", "triton", "scipy"}
        script = (
            "import sys, melcap.cli.commands\n"
            "try: melcap.cli.commands.app(['encode', '--help'])\n"
            f"finally: print('loaded:', sorted({heavy} & set(sys.modules)))"
        )
        result = subprocess.run(
            [sys.executable, "-c", script], env=environment(), capture_output=True, text=True
        )
        assert result.returncode == 0
        for option in ("--out", "--device", "--backend", "--weights", "--force", "--json"):
            assert option in result.stdout
        assert "loaded: []" in result.stdout

    def test_version(self, melcap_cli: Cli) -> None:
        assert melcap_cli("--version").stdout == f"melcap {melcap.__version__}\n"
