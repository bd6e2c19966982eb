"""`melcap doctor`: findings about this installation, with advice."""

from __future__ import annotations

import json

import pytest
import torch

import melcap
from melcap.errors import WeightsError
from melcap.ops import registry
from tests.cli.helpers import Cli


class TestDoctor:
    @pytest.mark.slow
    def test_every_reason_has_an_advice(self, melcap_cli: Cli) -> None:
        result = melcap_cli("doctor", "--json")
        assert result.exit_code == 0
        data = json.loads(result.stdout)
        assert data["problems"] == []
        assert data["weights"]["model"] == melcap.load().model
        assert data["threads"] == torch.get_num_threads()
        advice = {note["what"]: note["do"] for note in data["notes"]}
        text = melcap_cli("doctor").stdout
        for name, reasons in data["backends"]["available"].items():
            for reason in reasons:
                assert advice[f"the {name} backend cannot run: {reason}"]
                assert reason in text
        for note in data["notes"]:
            assert f"note: {note['what']}\n    {note['do']}\n" in text

    def test_who_runs_which_layer(self, melcap_cli: Cli) -> None:
        pytest.importorskip("triton")
        rows = json.loads(melcap_cli("doctor", "--json").stdout)["backends"]["layers"]
        by = {(row["layer"], row["dtype"]): row["by"] for row in rows["upsample_conv1d"]}
        text = melcap_cli("doctor").stdout
        assert by["1024 to 512", "float16"] == "cuDNN"
        for (layer, dtype), code in by.items():
            (line,) = [row for row in text.splitlines() if row.startswith(f"  {layer} ")]
            assert f"{dtype} {code}" in line

    def test_each_known_reason_is_one_that_the_registry_gives(
        self, melcap_cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from melcap.cli.diagnosis import ADVICE

        monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        reasons = registry.unavailable("triton")
        assert len(reasons) == len(ADVICE)
        for reason, known in zip(reasons, ADVICE, strict=True):
            assert known in reason

    def test_broken_weights_are_a_problem(
        self, melcap_cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken() -> None:
            raise WeightsError("the weights are damaged")

        monkeypatch.setattr("melcap.cli.diagnosis.load", broken)
        result = melcap_cli("doctor")
        assert result.exit_code == 1
        assert "problem: the weights are damaged\n    install melcap again" in result.stdout
