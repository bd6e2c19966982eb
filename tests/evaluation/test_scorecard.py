"""Tests of the choice of clips, and of the scorecard's bookkeeping, tables and pictures."""

from __future__ import annotations

import csv
import json
import math
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melcap import audio
from melcap.codec import Codec
from melcap.errors import AudioFileError, InputError, MelcapError
from melcap.evaluation import plots, report, scorecard
from melcap.evaluation.clips import Clip, choose_clips, find_clips
from melcap.evaluation.measures import metrics, predictor
from melcap.evaluation.measures.codebook import count_tokens, pack_counts, unpack_counts
from melcap.evaluation.measures.signals import Wave
from melcap.evaluation.peers.registry import peer
from melcap.evaluation.table import markdown, markdown_in_full, summarise
from melcap.lm import ContextModel

RATE = 44100


def noise(seconds: float, scale: float = 0.1, seed: int = 0) -> Wave:
    return scale * np.random.default_rng(seed).standard_normal(int(seconds * RATE))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clips of speech and one of music, the shortest that ViSQOL takes."""
    for name, seed in (("speech/a_0001", 1), ("speech/b_0001", 2), ("music/a_0001", 3)):
        path = tmp_path / "data" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, noise(1.01, seed=seed)[None].astype(np.float32), RATE)
    return tmp_path / "data"


clip_names = st.lists(
    st.builds(
        "{}/{}_{:04}.wav".format,
        st.sampled_from(["speech", "music"]),
        st.sampled_from("abcd"),
        st.integers(0, 30),
    ),
    unique=True,
    max_size=40,
)


@given(clip_names, st.integers(1, 12))
def test_the_choice_is_spread_stable_and_nested(names: list[str], count: int) -> None:
    clips = [Clip(Path("shard.tar"), name) for name in names]
    chosen = choose_clips(clips, count)
    assert chosen == choose_clips(reversed(clips), count)
    assert set(chosen) <= set(choose_clips(clips, count + 1))
    for kind in ("speech", "music"):
        there = [clip for clip in clips if clip.kind == kind]
        taken = [clip.package for clip in chosen if clip.kind == kind]
        assert len(taken) == min(count, len(there))
        for package in {clip.package for clip in there}:
            left = sum(clip.package == package for clip in there) - taken.count(package)
            # A package with clips left over has had its turn as often as any other.
            assert not left or taken.count(package) >= max(map(taken.count, taken)) - 1


def test_clips_come_from_a_tar_as_from_a_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "README.txt").write_text("no audio")
    with tarfile.open(tmp_path / "valid.tar", "w") as shard:
        shard.add(folder, "valid")
    inside, packed = find_clips(folder), find_clips(tmp_path / "valid.tar")
    assert [f"valid/{clip.name}" for clip in inside] == [clip.name for clip in packed]
    assert [clip.kind for clip in packed] == ["music", "speech", "speech"]
    for one, other in zip(inside, packed, strict=True):
        wave = one.read(10)
        assert wave.shape == (int(1.01 * RATE),)
        assert (wave == other.read(10)).all()
        assert (one.read(0.5) == wave[: RATE // 2]).all()


def test_a_clip_is_mixed_clamped_and_resampled(tmp_path: Path) -> None:
    stereo = np.stack([np.full(48000, 0.5), np.full(48000, 0.1)]).astype(np.float32)
    audio.write(tmp_path / "a.wav", stereo, 48000, subtype="FLOAT")
    audio.write(tmp_path / "b.wav", 5 * stereo, 48000, subtype="FLOAT")
    soft, loud = (Clip(tmp_path, name).read(10) for name in ("a.wav", "b.wav"))
    assert soft.shape == loud.shape == (RATE,)
    assert soft[1000:-1000] == pytest.approx(0.3, abs=1e-3)
    assert loud.max() == 1


def test_data_without_clips_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(InputError, match="no audio file"):
        find_clips(tmp_path)
    with pytest.raises(InputError, match="neither a folder nor a tar or"):
        find_clips(tmp_path / "notes.txt")
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioFileError, match=r"broken\.wav"):
        Clip(tmp_path, "broken.wav").read(10)


def manifest(path: Path, *rows: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_a_manifest_names_clips_and_their_classes(folder: Path, tmp_path: Path) -> None:
    absolute = str(folder / "speech" / "b_0001.wav")
    listed = manifest(
        tmp_path / "list.csv",
        ["class", "path", "licence"],
        ["voices", "data/speech/a_0001.wav", "MIT"],
        ["", "data/music/a_0001.wav", "MIT"],
        ["speech", absolute, "MIT"],
    )
    clips = find_clips(listed)
    assert {clip.name: clip.kind for clip in clips} == {
        "data/speech/a_0001.wav": "voices",
        "data/music/a_0001.wav": "music",
        Path(absolute).as_posix(): "speech",
    }
    for clip in clips:
        assert clip.read(10).shape == (int(1.01 * RATE),)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["file"], ["a.wav"]], "no column named path"),
        ([["path"]], "lists no clip"),
        ([["path"], ["a.wav"], ["gone.wav"]], r"lists gone\.wav, which is not there; 1 of 2"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    rows: list[list[str]], said: str, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=said):
        find_clips(manifest(tmp_path / "list.csv", *rows))
    (tmp_path / "list.csv").write_bytes(b"path\n\xff.wav\n")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        find_clips(tmp_path / "list.csv")


def test_codecs_for_speech_run_on_speech_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(peer("original")), "speech_only", True)
    clips = find_clips(folder)
    jobs = scorecard.jobs_for(["original", "opus-12"], clips, 1.0)
    kinds: dict[str, list[str]] = {"original": [], "opus-12": []}
    for job in jobs:
        kinds[job.codec].append(job.clip.kind)
    assert kinds == {"original": ["speech", "speech"], "opus-12": ["music", "speech", "speech"]}
    with pytest.raises(InputError, match=r"original is for speech, and no clip here .* are music"):
        scorecard.jobs_for(["original"], clips[:1], 1.0)
    with pytest.raises(InputError, match="no codec to measure"):
        scorecard.jobs_for([], clips, 1.0)


def test_a_row_has_times_and_the_counts_of_its_tokens(
    folder: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    monkeypatch.setattr(metrics, "measure", lambda *_, **__: {"lsd": 0.5, "stoi": math.nan})
    clip = find_clips(folder)[0]
    own = peer(str(small_weights))
    encode = own.encode

    def watched(wave: Any, rate: int) -> Any:
        threads.append(torch.get_num_threads())
        return encode(wave, rate)

    monkeypatch.setattr(own, "encode", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    row = scorecard.ScoreJob(str(small_weights), clip, 1.0).run()
    assert threads == [1] * 15  # the clip, and a part of it as it is and after 13 changes
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    assert row["encode_seconds"] > 0
    assert row["decode_seconds"] > 0
    assert (row["seconds"], row["lsd"], row["stoi"]) == (1.0, 0.5, None)
    assert 0 < row["stability"] < 1
    coded = encode(clip.read(1.0), RATE)
    assert (unpack_counts(row["codes"]) == count_tokens(coded.tokens, 300)).all()
    assert row["bytes"] == coded.size
    bound = scorecard.ScoreJob("original", clip, 0.5).run()
    assert not {"encode_seconds", "decode_seconds", "codes", "stability"} & bound.keys()


def test_whatever_changes_a_result_is_in_its_key(folder: Path, monkeypatch: Any) -> None:
    clip, other = find_clips(folder)[:2]
    keys = [
        scorecard.ScoreJob(codec, which, seconds).key()
        for codec in ("original", "opus-12")
        for which in (clip, other)
        for seconds in (1.0, 2.0)
    ]
    monkeypatch.setattr(metrics, "DEFINITIONS", metrics.DEFINITIONS + 1)
    keys.append(scorecard.ScoreJob("original", clip, 1.0).key())
    keys.append(scorecard.ScoreJob("original", Clip(clip.source, clip.name, "another"), 1.0).key())
    keys.append(scorecard.ScoreJob("original", clip, 1.0, sample_rate=16000).key())
    monkeypatch.setattr(scorecard, "installed_version", lambda package: "0")
    keys.append(scorecard.ScoreJob("original", clip, 1.0).key())
    assert len({json.dumps(key) for key in keys}) == 12
    assert all(tuple(key) == scorecard.KEY for key in keys)


def test_scores_that_are_none_are_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text("not json\n")
    with pytest.raises(MelcapError, match="is not a file of scores"):
        scorecard.compute([], path, 1)


def test_a_line_that_a_stopped_run_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text('{"codec": "x"}\n{"codec": "y", "cl')
    assert scorecard.compute([], path, 1) == ([], [])
    assert path.read_text() == '{"codec": "x"}\n'


def rows_of(kind: str, values: list[float], **other: float) -> list[dict[str, Any]]:
    common = {"codec": "x", "class": kind, "seconds": 2.0, "bytes": 500}
    return [common | {"visqol": value} | other for value in values]


def test_the_mean_is_over_classes_and_lies_in_its_interval() -> None:
    rows = rows_of("music", [1, 1, 1, 2, 2, 2]) + rows_of("speech", [4, 5], stoi=0.9)
    music, speech, mean = summarise(rows)
    assert (music["class"], speech["class"], mean["class"]) == ("music", "speech", "mean")
    assert (music["n"], mean["n"], mean["seconds"], mean["kbps"]) == (6, 8, 16, 2)
    assert music["visqol"]["mean"] == 1.5
    assert mean["visqol"]["mean"] == 3
    # The mean of six fair coins is at most 5/6 away with 1 - 2 / 64: so is 95 % of the draws.
    assert music["visqol"]["low"] == pytest.approx(1.5 - 1 / 3, abs=0.01)
    assert music["visqol"]["high"] == pytest.approx(1.5 + 1 / 3, abs=0.01)
    assert 2.5 < mean["visqol"]["low"] < 3 < mean["visqol"]["high"] < 3.5
    assert music["stoi"] is None
    assert mean["stoi"]["mean"] == pytest.approx(0.9)


def test_one_clip_has_no_interval_and_an_undefined_measure_no_part() -> None:
    (line, _) = summarise(rows_of("sound", [3.0], lsd=1.0, mcd=None))
    assert line["visqol"] == {"mean": 3.0, "low": None, "high": None}
    assert line["mcd"] is None
    text = markdown([line])
    assert text.splitlines()[2] == "| x | sound | 1 | 2.00 | 3.00 |  |  |  | 1.00 |  |"


def test_the_short_table_is_part_of_the_full_one() -> None:
    lines = summarise(rows_of("music", [1.0, 2.0], mcd=4.0) + rows_of("speech", [3.0], stoi=0.8))

    def cells(line: str) -> list[str]:
        return [cell.strip() for cell in line.strip("|").split("|")]

    short, full = markdown(lines).splitlines(), markdown_in_full(lines).splitlines()
    names, titles = cells(short[0]), cells(full[0])
    assert set(metrics.TITLES.values()) < set(titles)
    for line, whole in zip(short[2:], full[2:], strict=True):
        values = dict(zip(titles, cells(whole), strict=True))
        assert cells(line) == [values[name] for name in names]


def test_a_codec_for_speech_says_so_in_its_mean() -> None:
    mixed = summarise(rows_of("music", [1.0]) + rows_of("speech", [3.0]))
    alone = summarise(rows_of("speech", [3.0]))
    assert "| mean |" in markdown(mixed)
    assert "| mean (speech only) |" in markdown(alone)
    assert [line["speech_only"] for line in (*mixed, *alone)] == [False] * 3 + [True] * 2


def test_speeds_are_medians_over_clips() -> None:
    rows = rows_of("music", [1.0, 1.0, 1.0])
    for row, took in zip(rows, (0.1, 1.0, 0.02), strict=True):
        row |= {"encode_seconds": took, "decode_seconds": 2 * took}
    line, _ = summarise(rows)
    assert line["encode_speed"] == pytest.approx(2.0 / 0.1)
    assert line["decode_speed"] == pytest.approx(2.0 / 0.2)
    assert summarise(rows_of("music", [1.0]))[0]["encode_speed"] is None


def test_the_codebook_is_that_of_all_clips_together() -> None:
    rows = rows_of("music", [1.0, 1.0]) + rows_of("speech", [1.0])
    for row, tokens in zip(rows, ([0, 1], [1, 1], [2, 2, 2, 2]), strict=True):
        row["codes"] = pack_counts(count_tokens(np.array(tokens), 8))
    music, speech, mean = (line["codebook"] for line in summarise(rows))
    assert (music["usage"], speech["usage"], mean["usage"]) == (2 / 8, 1 / 8, 3 / 8)
    assert (music["tokens"], speech["tokens"], mean["tokens"]) == (4, 4, 8)
    assert speech["entropy"] == 0
    assert music["entropy"] == pytest.approx(2 - 0.75 * math.log2(3))
    assert mean["entropy"] == pytest.approx(0.5 + 0.125 * 3 + 0.375 * math.log2(8 / 3))
    assert mean["size"] == 8
    assert summarise(rows_of("music", [1.0]))[0]["codebook"] is None


@pytest.mark.parametrize("count", [16, 64, 256])
def test_intervals_have_the_width_that_the_clips_support(count: int) -> None:
    line, _ = summarise(rows_of("music", [0.0, 1.0] * (count // 2)))
    width = line["visqol"]["high"] - line["visqol"]["low"]
    assert width == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(count), rel=0.15)


# Pictures


def rated(codec: str, kbps: float, speed: float | None, *kinds: str) -> list[dict[str, Any]]:
    rows = []
    for kind in kinds:
        for row in rows_of(kind, [2.0 + kbps / 10, 3.0 + kbps / 10], stoi=0.9, pesq=2.0):
            row |= {"codec": codec, "bytes": kbps * 250}
            rows.append(row if speed is None else row | {"encode_seconds": 2.0 / speed})
    return rows


def test_quality_is_drawn_against_the_rate() -> None:
    pytest.importorskip("matplotlib")
    lines = summarise(
        rated("opus-6", 6, 50, "music", "speech")
        + rated("opus-16", 16, 50, "music", "speech")
        + rated("codec2-3200", 3.2, 50, "speech")
        + rated("original", 705, None, "music", "speech")
    )
    figure = plots.quality_figure(lines)
    mean, speech, *_ = figure.axes
    drawn = [{bar.get_label(): bar for bar in panel.containers} for panel in (mean, speech)]
    # A codec for speech has no place beside means over classes.
    assert drawn[0].keys() == {"opus"}
    assert drawn[1].keys() == {"opus", "codec2"}
    points, _, (bars,) = drawn[0]["opus"].lines
    assert points.get_xydata() == pytest.approx(np.array([[6, 3.1], [16, 4.1]]))
    ends = [(line["visqol"]["low"], line["visqol"]["high"]) for line in lines[2:6:3]]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [
        pytest.approx(pair) for pair in ends
    ]
    assert mean.get_xlim()[1] < 100
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert sorted(names) == ["codec2", "opus", "original (no codec)"]
    assert all(panel.get_title(loc="left") for panel in figure.axes)


def test_a_codec_of_files_is_drawn_where_its_rate_is_stated() -> None:
    pytest.importorskip("matplotlib")
    rows = rated("opus-6", 6, 50, "music", "speech")
    for codec in ("encodec-3", "encodec-6", "unknown"):
        theirs = rated(codec, 1, None, "music", "speech")
        rows += [row | {"bytes": None} for row in theirs]
    lines = summarise(rows, {"encodec-3": 3.0, "encodec-6": 6.0})
    figure = plots.quality_figure(lines)
    mean, *_ = figure.axes
    drawn = {bar.get_label(): bar for bar in mean.containers}
    assert drawn.keys() == {"opus", "encodec"}
    points, *_ = drawn["encodec"].lines
    assert points.get_xdata().tolist() == [3, 6]
    assert "--" not in {line.get_linestyle() for line in mean.get_lines()}  # that is for bounds
    (legend,) = figure.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == ["encodec", "opus"]
    assert figure.axes[2].get_xlabel().endswith("of real bytes, or as stated")


def test_families_differ_in_colour_or_marker() -> None:
    lines = summarise(row for kind in range(20) for row in rated(f"codec{kind}", 3, 50, "music"))
    styles = plots._styles(lines).values()
    assert len({(style["color"], style["marker"]) for style in styles}) == 20


def test_speech_mode_stands_for_quality_where_audio_mode_is_not_measured() -> None:
    pytest.importorskip("matplotlib")
    rows = rated("opus-6", 6, 50, "music", "speech")
    for row in rows:
        row["visqol_speech"] = row["visqol"] - 1
    both = summarise(rows)
    assert "| ViSQOL |" in markdown(both)
    for row in rows:
        del row["visqol"]
    speech_alone = summarise(rows)
    assert "| ViSQOL speech |" in markdown(speech_alone)
    assert "| ViSQOL |" not in markdown(speech_alone)
    figure = plots.quality_figure(speech_alone)
    assert figure.axes[0].get_title(loc="left") == "ViSQOL speech, mean over classes"
    points, *_ = figure.axes[0].containers[0].lines
    assert points.get_xydata().tolist() == [[6, pytest.approx(2.1)]]


@pytest.mark.slow
def test_a_scorecard_is_written_in_full(
    folder: Path,
    tmp_path: Path,
    codec: Codec,
    small_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("matplotlib")
    quality = iter([3.0, 2.0, 4.0] * 2)

    def measured(*_: object, speech: bool) -> dict[str, float]:
        return {"visqol": next(quality)} | ({"stoi": 0.5, "pesq": 1.5} if speech else {})

    titles = {}

    def drawn(path: Path, *arguments: Any, **_: Any) -> None:
        path.touch()
        titles[path.name] = arguments[-1]

    monkeypatch.setattr(metrics, "measure", measured)
    monkeypatch.setattr(report, "MODULES", ())
    monkeypatch.setattr(plots, "write_picture", drawn)
    own, out = str(small_weights), tmp_path / "new" / "out"
    trained = tmp_path / "model.safetensors"
    model = ContextModel.of(codec, width=8)
    model.training_settings = dict(predictor.RECIPE)
    model.save(trained)
    summary = report.score(
        folder, [own, "original"], out, processes=1, seconds=1.0, predictor=trained
    )
    assert {path.name for path in out.iterdir()} == {
        "scores.jsonl",
        "scorecard.json",
        "scorecard.md",
        "scorecard-full.md",
        "quality.png",
        "tokens.md",
        "tokens-small.png",
        "best-small.png",
        "worst-small.png",
    }
    assert json.loads((out / "scorecard.json").read_text()) == summary
    assert summary["predictors"] == {own: predictor.fingerprint(trained)}
    bits = summary["table"][0]["bits_per_token"]["mean"]
    assert bits > 1
    assert {line["codec"] for line in summary["tokens"]} == {own}
    assert np.mean(summary["tokens"][0]["bits_by_row"]) == pytest.approx(bits, abs=1e-3)
    assert f"| {own} | decoded |" in (out / "tokens.md").read_text()
    assert (out / "quality.png").read_bytes().startswith(b"\x89PNG")
    scores = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    of_own = {row["clip"]: row["visqol"] for row in scores if row["codec"] == own}
    for which, pick in (("worst", min), ("best", max)):
        clip = pick(of_own, key=of_own.__getitem__)
        assert clip in titles[f"{which}-small.png"]
        assert f"ViSQOL {of_own[clip]:.2f}" in titles[f"{which}-small.png"]
