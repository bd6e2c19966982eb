"""Model cards of exported weights begin with what the Hub reads."""

from __future__ import annotations

from pathlib import Path

import yaml

from melcap.codec import Codec
from melcap.hub import front_matter
from melcap.training.card import card
from melcap.training.checkpoint import Checkpoint
from melcap.training.saving import TrainingProgress, save
from melcap.training.start import prepare
from tests.helpers import SMALL


def test_a_card_begins_with_the_front_matter(tmp_path: Path) -> None:
    """It is that of `Codec.save_pretrained`, without a licence."""
    start = prepare(tmp_path, {"stage": 1, "codec": SMALL}, None, batch=1)
    save(start.checkpoint, start.recipe, {}, TrainingProgress(0, 0.0, {}, []))
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"weights")
    text = card(Codec(SMALL), weights, "0" * 64, Checkpoint(start.checkpoint))
    begin, front, rest = text.split("---\n", 2)
    assert not begin
    assert f"---\n{front}---" == front_matter()
    assert yaml.safe_load(front)["library_name"] == "melcap"
    assert rest.startswith("\n# mine: model card\n")


def test_a_card_says_on_how_many_devices_and_in_how_many_pieces(tmp_path: Path) -> None:
    start = prepare(tmp_path, {"stage": 1, "codec": SMALL}, None, batch=1)
    alone = {
        "recipe": "stage1",
        "date": "2026-12-01",
        "hours": {"speech": 1.0},
        "data": "0123",
        "batch": 1024,
        "columns": 48,
        "rate": 3e-3,
        "discriminators": 0,
        "device": "NVIDIA H200",
        "processes": 1,
        "accumulate": 1,
        "bf16": True,
        "torch": "2.11.0",
        "steps": 10,
        "minutes": 1.0,
        "audio_seconds_per_second": 9000.0,
        "figures": {},
    }
    together = {**alone, "processes": 8, "accumulate": 4}
    progress = TrainingProgress(0, 0.0, {}, [alone, together])
    save(start.checkpoint, start.recipe, {}, progress)
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"weights")
    text = card(Codec(SMALL), weights, "0" * 64, Checkpoint(start.checkpoint))
    first, second = (line for line in text.splitlines() if "NVIDIA H200" in line)
    assert "| 1024 x 48 |" in first
    assert "| NVIDIA H200, bfloat16, torch 2.11.0, 2026-12-01 |" in first
    assert "| 1024 x 48, in 4 pieces |" in second
    assert "| 8 x NVIDIA H200, bfloat16, torch 2.11.0, 2026-12-01 |" in second
