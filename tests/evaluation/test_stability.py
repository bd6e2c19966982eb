"""Test the stability of tokens: what is changed, what is compared, and how it is summarised."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from melcap.evaluation import scorecard
from melcap.evaluation.clips import Clip
from melcap.evaluation.measures import metrics
from melcap.evaluation.measures.signals import Wave
from melcap.evaluation.peers.base import Audio, Coded, Peer
from melcap.evaluation.peers.registry import peer
from melcap.evaluation.stability import COLUMNS, EDGE, HEADLINE, stability
from melcap.evaluation.table import markdown, markdown_in_full, summarise
from melcap.evaluation.tokens import (
    markdown_of_tokens,
    picture_of_tokens,
    summarise_tokens,
)

RATE = 44100
DATA = Path(__file__).parents[1] / "data"


class Levels(Peer):
    """A codec with one row: the token of a column is the level of its first sample, in 32nds."""

    codebook = np.arange(33, dtype=np.float32)[:, None] / 32
    codebook_size = 33
    column_seconds = 100 / RATE

    def __init__(self) -> None:
        self.waves: list[Audio] = []

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        self.waves.append(wave)
        tokens = np.rint(32 * np.abs(wave[::100])).astype(np.int32)[None]
        return Coded(None, 0, len(wave), sample_rate, tokens)

    def decode(self, coded: Coded) -> Audio:
        raise AssertionError("nothing is decoded again")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["speech", "music"])
def test_tokens_are_those_of_the_whole_clip(name: str, request: pytest.FixtureRequest) -> None:
    """Checked against the offset of AudioCodecBench, which rolls a whole clip by 2 ms."""
    wave: Wave = request.getfixturevalue(name).astype(np.float32)
    codec = peer("melcap")
    rolled = torch.roll(torch.from_numpy(wave), shifts=int(RATE * 2 / 1000))
    rolled[: int(RATE * 2 / 1000)] = 0
    first, second = (codec.encode(each, RATE).tokens for each in (wave, rolled.numpy()))
    assert first is not None
    assert second is not None
    columns = len(wave) // 2048
    middle = slice((columns - COLUMNS) // 2, (columns - COLUMNS) // 2 + COLUMNS)
    found = stability(codec, wave, wave, RATE, "a")
    same = (first == second)[:, middle].sum(axis=1)
    assert found["changes"]["columns"] == COLUMNS
    assert found["changes"]["same"][HEADLINE] == same.tolist()
    assert found["stability"] == same.sum() / (12 * COLUMNS)


@pytest.mark.slow
def test_a_delay_by_a_column_changes_nothing_and_larger_changes_more(music: Wave) -> None:
    wave = music.astype(np.float32)
    found = stability(peer("melcap"), wave, wave, RATE, "a")["changes"]
    shares = {change: sum(same) for change, same in found["same"].items()}
    everything = 12 * COLUMNS
    for change in ("a column later", "decoded"):
        assert found["same"][change] == [COLUMNS] * 12
        assert found["distance"][change] == [0] * 12
    assert everything > shares["1 sample later"] > shares["16 samples later"] > shares[HEADLINE]
    assert shares[HEADLINE] > shares["half a column later"]
    assert everything > shares["-1 dB"] > shares["-3 dB"] > shares["-6 dB"]
    noisy = [shares[f"noise at {level} dB"] for level in (-60, -40, -30)]
    assert everything > noisy[0] > noisy[1] > noisy[2] > 0


def test_tokens_are_counted_and_distances_added_up() -> None:
    codec, wave = Levels(), np.full(40 * 100, 0.5, np.float32)
    found = stability(codec, wave, 0 * wave, RATE, "a")["changes"]
    spread = np.sqrt(2 * np.var(codec.codebook))
    # Half a column later, the first column of the part is silent, and that is not compared.
    assert found["same"]["half a column later"] == [COLUMNS]
    assert found["distance"]["half a column later"] == [0]
    assert found["same"]["decoded"] == [0]
    assert found["distance"]["decoded"] == pytest.approx([COLUMNS * 0.5 / spread], abs=1e-3)
    # -6 dB is 0.251, which is 8 of 32 instead of 16.
    assert found["same"]["-6 dB"] == [0]
    assert found["distance"]["-6 dB"] == pytest.approx([COLUMNS * 0.25 / spread], abs=1e-3)
    assert len(codec.waves[0]) == (COLUMNS + 2 * EDGE) * 100


def test_noise_has_its_level_and_is_drawn_from_the_name() -> None:
    wave = np.concatenate([np.full(3000, 0.1), np.zeros(5000)]).astype(np.float32)
    drawn: dict[str, list[Audio]] = {}
    for name in ("a", "b"):
        for turn in "12":
            codec = Levels()
            stability(codec, wave, wave, RATE, name)
            assert len(codec.waves) == 14
            drawn[name + turn] = [each - codec.waves[0] for each in codec.waves[10:13]]
    for noise, decibels in zip(drawn["a1"], (-60, -40, -30), strict=True):
        level = np.sqrt(np.square(noise).mean() / np.square(wave).mean())
        assert 20 * np.log10(level) == pytest.approx(decibels, abs=0.3)
    assert all((x == y).all() for x, y in zip(drawn["a1"], drawn["a2"], strict=True))
    assert not any((x == y).any() for x, y in zip(drawn["a1"], drawn["b1"], strict=True))


def test_louder_audio_is_clamped_to_full_scale() -> None:
    codec, wave = Levels(), np.linspace(-1, 1, 4000, dtype=np.float32)
    stability(codec, wave, wave, RATE, "a")
    louder = codec.waves[9]
    assert louder.min() == -1
    assert louder.max() == 1
    assert louder.dtype == np.float32


@pytest.mark.parametrize("columns", [0, 2 * EDGE, 2 * EDGE + 1])
def test_a_short_clip_has_no_figure(columns: int) -> None:
    wave = np.full(columns * 100 + 99, 0.5, np.float32)
    found = stability(Levels(), wave, wave, RATE, "a")
    assert found.get("changes", {}).get("columns", 0) == max(0, columns - 2 * EDGE)


def test_a_codec_without_tokens_has_no_figure() -> None:
    wave = np.zeros(2 * RATE, np.float32)
    assert stability(peer("original"), wave, wave, RATE, "a") == {}


# In the scorecard


def test_old_lines_are_used_again_for_codecs_without_tokens_alone(
    small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "measure", lambda *_, **__: {})
    names = ["original", str(small_weights)]
    jobs = scorecard.jobs_for(names, [Clip(DATA, "speech.flac")], 1.0)
    path = tmp_path / "scores.jsonl"
    old = [job.key() | {"seconds": 1.0, "bytes": 1, "old": True} for job in jobs]
    for row in old:
        del row["token_changes"]
    path.write_text("".join(json.dumps(row) + "\n" for row in old))
    (bound, own), failures = scorecard.compute(jobs, path, 1)
    assert not failures
    assert "old" in bound
    assert "old" not in own
    assert 0 <= own["stability"] <= 1
    again, _ = scorecard.compute(jobs, path, 1)
    assert again == [bound, own]


def measured(kind: str, columns: int, same: list[int], **more: Any) -> dict[str, Any]:
    """A line of scores.jsonl with two rows of tokens, of which those that move move by 0.5."""
    changes = (HEADLINE, "-1 dB", "noise at -40 dB", "decoded")
    distance = [0.5 * (columns - kept) for kept in same]
    return {
        "codec": "x",
        "class": kind,
        "seconds": 2.0,
        "bytes": 500,
        "codes": None,
        "stability": sum(same) / columns / 2,
        "changes": {
            "columns": columns,
            "same": dict.fromkeys(changes, same),
            "distance": dict.fromkeys(changes, distance),
        },
    } | more


ROWS = [
    measured("music", 10, [10, 0], bits_by_row=[1.0, 2.0]),
    measured("music", 4, [4, 4], bits_by_row=[3.0, 4.0]),
    measured("speech", 10, [10, 5], bits_by_row=[7.0, 8.0]),
]


def test_means_are_over_clips_and_then_over_classes() -> None:
    music, speech, mean = summarise_tokens(json.loads(json.dumps(ROWS)))
    assert [line["class"] for line in (music, speech, mean)] == ["music", "speech", "mean"]
    assert music["changes"]["decoded"] == {
        "same": 0.75,
        "distance": 0.5,
        "same_by_row": [1.0, 0.5],
        "distance_by_row": [None, 0.5],
    }
    assert mean["changes"]["decoded"]["same"] == 0.75
    assert mean["changes"]["decoded"]["same_by_row"] == [1.0, 0.5]
    assert (music["bits_by_row"], mean["bits_by_row"]) == ([2.0, 3.0], [4.5, 5.5])


def test_the_mean_of_classes_weighs_each_alike() -> None:
    rows = [measured("music", 8, [8, 8])] * 3 + [measured("speech", 8, [0, 4])]
    rows[3]["changes"] = rows[3]["changes"] | {"distance": {HEADLINE: [8.0, 1.0]}}
    rows[3]["changes"]["same"] = {HEADLINE: [0, 4]}
    for row in rows[:3]:
        row["changes"] = row["changes"] | {"same": {HEADLINE: [8, 8]}}
    *_, mean = summarise_tokens(rows)
    assert mean["changes"][HEADLINE]["same"] == 0.625
    # No token of music moves, so music says nothing about how far tokens move.
    assert mean["changes"][HEADLINE]["distance"] == 0.75
    assert mean["changes"][HEADLINE]["distance_by_row"] == [1.0, 0.25]
    assert mean["bits_by_row"] is None


def test_tokens_md_has_both_tables() -> None:
    still = [measured("music", 4, [4, 4])]
    lines = summarise_tokens(ROWS + [row | {"codec": "y"} for row in still])
    text = markdown_of_tokens(lines)
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    by_class, by_row = tables
    assert by_class[0] == "| codec | change | music | speech | mean |"
    assert by_class[2] == "| x | 2 ms later | 75.0% (0.50) | 75.0% (0.50) | 75.0% (0.50) |"
    assert by_class[6] == "| y | 2 ms later | 100.0% |  | 100.0% |"
    assert by_row[0].startswith("| codec | row | 2 ms later | -1 dB | noise at -40 dB | decoded |")
    assert by_row[2] == "| x | 0 | 100.0% | 100.0% | 100.0% | 100.0% | 4.50 |"
    assert by_row[3] == "| x | 1 | 50.0% | 50.0% | 50.0% | 50.0% | 5.50 |"
    assert by_row[4].endswith("| 100.0% |  |")


def test_clips_that_are_too_short_still_have_bits() -> None:
    row = {"codec": "x", "class": "music", "codes": None, "bits_by_row": [1.0, 2.0]}
    (music, mean) = summarise_tokens([row])
    assert (music["changes"], music["bits_by_row"]) == ({}, [1.0, 2.0])
    assert mean["bits_by_row"] == [1.0, 2.0]
    assert "| x |" not in markdown_of_tokens([music, mean])
    assert summarise_tokens([{"codec": "opus-12", "class": "music"}]) == []


def test_the_headline_is_a_column_of_the_full_table() -> None:
    lines = summarise([row | {"codes": "", "visqol": 3.0} for row in ROWS])
    titles, _, music, *_ = (
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in markdown_in_full(lines).splitlines()
    )
    assert music[titles.index("stability")].startswith("0.75 [0.50, 1.00]")
    assert "stability" not in markdown(lines)


@pytest.mark.slow
def test_the_rows_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from melcap.evaluation import tokens

    kept: list[Any] = []
    new: Callable[..., Any] = tokens.new_figure
    monkeypatch.setattr(tokens, "new_figure", lambda *a: kept.append(new(*a)) or kept[-1])
    for rows, curves in ((ROWS, 3), ([measured("music", 4, [4, 4])], 0)):
        picture_of_tokens(tmp_path / "a.png", summarise_tokens(rows))
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
        stable, bits = kept[-1].axes
        assert stable.lines[0].get_label() == HEADLINE
        assert len(stable.lines) == 4
        assert len(bits.lines) == curves
    first = kept[0].axes[0].lines[0]
    assert first.get_ydata() == pytest.approx([1.0, 0.5])
