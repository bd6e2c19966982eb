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
