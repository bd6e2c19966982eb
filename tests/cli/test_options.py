"""Options that commands share, and wrong usage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from melcap.ops import registry
from tests.cli.helpers import Cli, clip, names, refused


class TestOptions:
    def test_no_such_device(self, melcap_cli: Cli, tmp_path: Path) -> None:
        source = clip(tmp_path / "a.wav")
        refused(melcap_cli("encode", source, "--device", "cuda:99"), "cuda:99", "melcap doctor")
        assert names(tmp_path) == ["a.wav"]

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
    def test_no_device_at_all(self, melcap_cli: Cli, tmp_path: Path) -> None:
        refused(melcap_cli("encode", clip(tmp_path / "a.wav"), "--device", "cuda"), "0 CUDA")

    def test_every_reason_against_a_backend(
        self, melcap_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry, "unavailable", lambda name: ["no luck", "no time"])
        result = melcap_cli("encode", clip(tmp_path / "a.wav"), "--backend", "triton")
        refused(result, "triton", "no luck", "no time")
        assert registry.get_backend() == "auto"
        assert names(tmp_path) == ["a.wav"]

    def test_the_backends_are_those_of_the_operations(self) -> None:
        from melcap.cli.options import Backend

        assert tuple(backend.value for backend in Backend) == registry.BACKENDS

    @pytest.mark.parametrize(
        "arguments",
        [
            ["encode"],
            ["encode", "a.wav", "--device", "gpu"],
            ["encode", "a.wav", "--device", "cuda:"],
            ["encode", "a.wav", "--backend", "numpy"],
            ["encode", "a.wav", "--what"],
            ["decode", "a.melcap", "--format", "mp3"],
            ["decode", "a.melcap", "--sample-rate", "0"],
            ["decode", "a.melcap", "--sample-rate", "many"],
            ["transcode", "a.wav"],
            ["transcode", "-", "-o", "-", "--keep"],
            ["transcode", "a.wav", "-o", "b.wav", "--compact"],
            ["plot", "a.wav", "--channel", "0"],
            ["enhance", "a.wav"],
        ],
    )
    def test_wrong_usage(self, melcap_cli: Cli, arguments: list[str]) -> None:
        result = melcap_cli(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "Usage: " in result.stderr

    def test_missing_and_wrong_weights(self, melcap_cli: Cli, tmp_path: Path) -> None:
        source = clip(tmp_path / "a.wav")
        for name in ("nowhere.safetensors", "a.wav"):
            refused(melcap_cli("encode", source, "--weights", tmp_path / name), name, "weights")
        assert names(tmp_path) == ["a.wav"]
