"""Test bits per token under a fixed predictor: which file counts, and what it gives."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from melcap.codec import Codec
from melcap.errors import InputError, WeightsError
from melcap.evaluation import scorecard
from melcap.evaluation.clips import Clip
from melcap.evaluation.measures import metrics, predictor
from melcap.evaluation.peers.registry import peer
from melcap.evaluation.table import markdown, markdown_in_full, summarise
from melcap.io.container.row_tables import find as find_row_tables
from melcap.lm import ContextModel

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def trained(codec: Codec, tmp_path: Path) -> Path:
    """A predictor, with random weights, for the tokens of the small codec."""
    path = tmp_path / "small.predictor.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ContextModel.of(codec, width=8, history_width=8)
    model.training_settings = dict(predictor.RECIPE)
    model.save(path)
    return path


def test_the_shipped_tokenizer_has_a_predictor(lite: Codec) -> None:
    """Whoever ships another tokenizer trains one for it, as docs/measures.md says."""
    file = predictor.find(lite.tokenizer_id)
    assert file is not None
    assert predictor.tokenizer_of(file) == lite.tokenizer_id


@pytest.mark.parametrize("name", ["speech", "music"])
def test_the_shipped_predictor_foresees_more_than_frequencies_do(lite: Codec, name: str) -> None:
    from melcap import audio

    wave, rate = audio.read(DATA / f"{name}.flac")
    tokens = lite.encode(wave[0], rate).numpy()
    frequencies = find_row_tables(lite.tokenizer_id).frequencies / 2**18
    unigram = -np.log2(np.take_along_axis(frequencies, tokens, axis=1)).mean()
    file = predictor.find(lite.tokenizer_id)
    assert file is not None
    figures = predictor.predict(file, tokens, 3.0)
    assert figures["bits_per_token"] < unigram - 0.5
    kbps = figures["bits_per_token"] * tokens.size / 3 / 1000
    assert figures["predicted_kbps"] == pytest.approx(kbps)


def test_the_given_file_counts_for_its_own_tokenizer(
    codec: Codec, lite: Codec, trained: Path, small_weights: Path
) -> None:
    assert predictor.find(codec.tokenizer_id) is None
    assert predictor.find(codec.tokenizer_id, trained) == trained
    shipped = predictor.find(lite.tokenizer_id)
    assert shipped == predictor.find(lite.tokenizer_id, trained) != trained
    assert predictor.find(None, trained) is None
    with pytest.raises(WeightsError, match="this is not a context model"):
        predictor.find(codec.tokenizer_id, small_weights)


@pytest.mark.parametrize("other", [{"steps": 2999}, {"minutes": 5.0}, {"bf16": True}])
def test_a_model_that_was_trained_in_another_way_is_refused(
    codec: Codec, tmp_path: Path, other: dict[str, Any]
) -> None:
    path = tmp_path / "model.safetensors"
    model = ContextModel.of(codec, width=8, history_width=8)
    model.training_settings = predictor.RECIPE | other
    model.save(path)
    with pytest.raises(InputError, match="no fixed predictor: it was trained with"):
        predictor.find(codec.tokenizer_id, path)


def test_a_clip_without_tokens_is_refused(trained: Path) -> None:
    with pytest.raises(InputError, match="without tokens"):
        predictor.predict(trained, np.zeros((3, 0), np.int32), 1.0)


def test_a_row_of_the_scorecard_has_the_bits(
    codec: Codec, small_weights: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "measure", lambda *_, **__: {})
    clip = Clip(DATA, "speech.flac")
    plain = scorecard.ScoreJob(str(small_weights), clip, 1.0)
    predicted = scorecard.ScoreJob(str(small_weights), clip, 1.0, trained)
    other = scorecard.ScoreJob("original", clip, 1.0, trained)
    keys = [job.key()["predictor"] for job in (plain, predicted, other)]
    assert keys == [None, predictor.fingerprint(trained), None]
    assert len(str(keys[1])) == 16
    row = predicted.run()
    tokens = peer(str(small_weights)).encode(clip.read(1.0), 44100).tokens
    assert tokens is not None
    with torch.no_grad():
        bits = ContextModel.load(trained).bits(tokens[None])
    assert row["bits_per_token"] == pytest.approx(float(bits.mean()), abs=1e-4)
    assert row["bits_by_row"] == pytest.approx(bits[0].mean(dim=1).tolist(), abs=1e-4)
    assert row["predicted_kbps"] == pytest.approx(float(bits.sum()) / 1000, abs=1e-4)
    assert not predictor.TITLES.keys() & (plain.run().keys() | other.run().keys())


def test_a_predictor_for_none_of_the_codecs_is_refused(small_weights: Path, trained: Path) -> None:
    clips = [Clip(DATA, "speech.flac", "speech")]
    names = ["original", str(small_weights)]
    jobs = scorecard.jobs_for(names, clips, 1.0, trained)
    assert [job.predictor for job in jobs] == [trained, trained]
    with pytest.raises(InputError, match=r"is for the tokens of none of these codecs"):
        scorecard.jobs_for(["original"], clips, 1.0, trained)


def test_the_full_table_has_the_bits_and_the_short_one_has_not() -> None:
    rows: list[dict[str, Any]] = [
        {"codec": codec, "class": "music", "seconds": 2.0, "bytes": 500, "visqol": 3.0} | more
        for codec, more in (
            ("x", {"bits_per_token": 9.5, "predicted_kbps": 2.4}),
            ("y", {}),
        )
    ]
    lines = json.loads(json.dumps(summarise(rows)))
    assert math.isclose(lines[0]["bits_per_token"]["mean"], 9.5)
    titles, _, ours, _, theirs, _ = (
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in markdown_in_full(lines).splitlines()
    )
    at = titles.index("bits/token")
    assert titles[at + 1] == "predicted kbps"
    assert ours[at : at + 2] == ["9.50", "2.40"]
    assert theirs[at : at + 2] == ["", ""]
    assert "bits/token" not in markdown(lines)
