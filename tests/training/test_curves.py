"""Pictures of learning curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from melcap.cli.commands import app
from melcap.training.curves import draw_curves

figure = pytest.importorskip("matplotlib.figure")


def log(folder: Path, recipe: str, **losses: float) -> None:
    folder.mkdir(exist_ok=True)
    rows = [{"minutes": n, **{k: v / n for k, v in losses.items()}} for n in (1, 2, 3)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{recipe}.jsonl").write_text(lines)


def test_a_panel_for_each_recipe_and_a_line_for_each_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(tmp_path / "a", "stage1", mel_l1=1, loudness_l1=2, rate=9)
    log(tmp_path / "b", "stage1", mel_l1=3)
    log(tmp_path / "b", "vocoder", stft=4, mel=5)
    drawn: list[Any] = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, path: drawn.append(self))
    with pytest.raises(OSError, match="No such file"):  # nothing was saved, nothing to rename
        draw_curves([tmp_path / "a", tmp_path / "b"], tmp_path / "c.png")
    panels = {panel.get_title(): panel for panel in drawn[0].axes}
    assert list(panels) == ["stage 1: tokenizer", "stage 2 on true mels: vocoder"]
    found = {
        line.get_label(): list(line.get_ydata()) for line in panels["stage 1: tokenizer"].lines
    }
    assert found == {
        "mel_l1, a": [1, 0.5, 1 / 3],
        "loudness_l1, a": [2, 1, 2 / 3],
        "mel_l1, b": [3, 1.5, 1],
    }
    assert len(panels["stage 2 on true mels: vocoder"].lines) == 2


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    log(tmp_path / "a", "stage2", stft=1)
    target = tmp_path / "c.png"
    result = CliRunner().invoke(app, ["train-curves", str(tmp_path / "a"), "-o", str(target)])
    assert result.exit_code == 0, result.output
    assert target.read_bytes().startswith(b"\x89PNG")

    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(
        app, ["train-curves", str(tmp_path / "empty"), "-o", str(tmp_path / "d.png")]
    )
    assert result.exit_code == 1
    assert "empty: no log of a training run" in result.output
    assert not Path("d.png").exists()
