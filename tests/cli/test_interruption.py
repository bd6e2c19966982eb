"""Commands that are interrupted leave nothing behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melcap import transcode
from melcap.cli import exits
from melcap.codec import Codec
from melcap.io import container
from melcap.streaming import StreamDecoder, StreamEncoder
from tests.cli.helpers import DATA, Cli, names
from tests.forks import start_melcap
from tests.helpers import SMALL


def _ctrl_c() -> None:
    raise KeyboardInterrupt


def _kill() -> None:
    signal.raise_signal(signal.SIGTERM)


class TestInterrupted:
    @pytest.mark.parametrize(("how", "status"), [(_ctrl_c, 130), (_kill, 143)])
    @pytest.mark.parametrize("stage", [StreamEncoder, StreamDecoder])
    def test_nothing_is_left(
        self,
        melcap_cli: Cli,
        tmp_path: Path,
        stage: Any,
        how: Callable[[], None],
        status: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(transcode, "_piece_seconds", lambda _: 1)
        push, pushed = stage.push, []

        def interrupted(self: Any, piece: Any) -> Any:
            pushed.append(piece)
            if len(pushed) == 2:
                how()
            return push(self, piece)

        monkeypatch.setattr(stage, "push", interrupted)
        before = signal.getsignal(signal.SIGTERM)
        exits.prepare_process()
        try:
            out = tmp_path / "out" / "x.wav"
            result = melcap_cli("transcode", DATA / "speech.flac", "-o", out, "--keep")
        finally:
            signal.signal(signal.SIGTERM, before)
        assert len(pushed) == 2
        assert (result.exit_code, result.stdout) == (status, "")
        assert not list(tmp_path.iterdir())

    @pytest.mark.slow
    @pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
    def test_the_program(self, tmp_path: Path, small_weights: Path, codec: Codec) -> None:
        grid = np.random.default_rng(0).integers(0, 300, (1, 3, 400_000))
        samples = grid.shape[2] * SMALL.column_samples
        header = container.Header(
            codec.model, codec.tokenizer_id, 44100, 1, samples, *grid.shape[1:], 9
        )
        container.write(tmp_path / "long.melcap", header, grid)
        words = ("decode", "long.melcap", "--weights", small_weights)
        process = start_melcap(*words, folder=tmp_path, stderr="said")
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".melcap-*")):  # until it writes
            assert process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert process.pid
        os.kill(process.pid, signal.SIGINT)
        process.join(120)
        assert (process.exitcode, (tmp_path / "said").read_text()) == (130, "interrupted\n")
        assert names(tmp_path) == ["long.melcap", "said"]
