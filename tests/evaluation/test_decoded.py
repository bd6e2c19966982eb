"""Codecs that somebody else ran: which file is whose, lengths, lags, keys and what is said."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from melcap import audio
from melcap.errors import AudioFileError, InputError
from melcap.evaluation import report, scorecard
from melcap.evaluation.alignment import LONGEST_LAG, Alignment, lag_seconds, lags
from melcap.evaluation.clips import Clip, find_clips
from melcap.evaluation.measures import metrics
from melcap.evaluation.measures.signals import Audio
from melcap.evaluation.peers.decoded import DecodedCodec, DecodedFile
from tests.helpers import examples

RATE = 16000
Put = Callable[..., Path]


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> Audio:
    random = np.random.default_rng(seed)
    return (0.1 * random.standard_normal(round(seconds * rate))).astype(np.float32)


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Return a function that writes a file, by its path, and returns its path."""

    def write(name: str, wave: Audio | None = None, rate: int = RATE) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = noise(0.2) if wave is None else wave
        audio.write(path, np.atleast_2d(wave), rate)
        return path

    return write


# Which file belongs to a clip


def found(tmp_path: Path, clips: list[str], files: list[str], wanted: int | None = None) -> Any:
    """Return the files that belong to the first clips, by their paths in the folder."""
    folder = tmp_path / "decoded"
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    listed = [Clip(Path("data"), name) for name in clips]
    files_of = DecodedCodec("theirs", folder).files(listed[:wanted], listed)
    return {clip.name: path.relative_to(folder).as_posix() for clip, path in files_of.items()}


@pytest.mark.parametrize(
    ("clips", "files"),
    [
        (["a.wav"], ["a.wav"]),
        (["a.wav"], ["a.flac"]),
        (["a.wav"], ["speech/A/a.opus"]),
        (["a.b.wav"], ["a.b.flac"]),
        (["speech/a.wav", "music/a.wav"], ["speech/a.flac", "music/a.wav"]),
        (["/elsewhere/x/a.wav"], ["a.wav"]),
        (["../audio/a.wav"], ["deep/a.wav"]),
        # The suffix tells files apart that have the same path else.
        (["a.wav", "a.flac"], ["a.wav", "a.flac"]),
    ],
)
def test_a_file_is_found_by_path_or_by_name(
    clips: list[str], files: list[str], tmp_path: Path
) -> None:
    others = ["other.wav", "a.txt", ".a.wav"]
    assert found(tmp_path, clips, files + others) == dict(zip(clips, files, strict=True))


@pytest.mark.parametrize(
    ("clips", "files", "said"),
    [
        (["a.wav"], ["a.flac", "a.mp3"], r"both a\.flac and a\.mp3 for the clip a\.wav"),
        (["a.wav"], ["x/a.wav", "y/a.wav"], r"both x/a\.wav and y/a\.wav for the clip a\.wav"),
        (["speech/a.wav", "music/a.wav"], ["a.wav"], "could be the clip speech/a.wav or music/a"),
        (["a.wav", "a.flac"], ["a.mp3"], r"a\.mp3 could be the clip a\.wav or a\.flac"),
    ],
)
def test_a_file_of_two_clips_and_a_clip_of_two_files_are_refused(
    clips: list[str], files: list[str], said: str, tmp_path: Path
) -> None:
    """A clip that is not measured is a rival all the same: only the first is, here."""
    with pytest.raises(InputError, match=said) as caught:
        found(tmp_path, clips, files, wanted=1)
    assert str(tmp_path / "decoded") in str(caught.value)


def test_clips_without_a_file_are_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file for 2 of 3 clips, .* is b\.wav: theirs needs"):
        found(tmp_path, ["a.wav", "b.wav", "c.wav", "d.wav"], ["a.wav"], wanted=3)
    with pytest.raises(InputError, match="nowhere is no folder"):
        DecodedCodec("theirs", tmp_path / "nowhere").files([], [])


# What a file becomes


def of_file(path: Path, clip: Path, seconds: float = 10) -> DecodedFile:
    return DecodedFile("theirs", path, Clip(clip.parent, clip.name), seconds)


def test_a_file_of_any_rate_and_channels_is_read_as_clips_are(put: Put) -> None:
    times = np.arange(48000) / 48000
    tone = (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    clip = put("clip.wav", audio.resample(tone[None], 48000, RATE)[0])
    theirs = put("theirs.flac", np.stack([tone + 0.1, tone - 0.1]), 48000)
    wave = Clip(clip.parent, clip.name).read(10, RATE)
    codec = of_file(theirs, clip)
    coded = codec.encode(wave, RATE)
    decoded = codec.decode(coded)
    assert decoded.shape == wave.shape
    assert decoded.dtype == np.float32
    assert decoded[500:-500] == pytest.approx(wave[500:-500], abs=1e-3)
    assert coded.facts["length_difference"] == coded.facts["lag"] == 0
    assert coded.facts.keys() == {"length_difference", "lag", "envelope_lag"}
    assert coded.tokens is None


@pytest.mark.parametrize(("seconds", "cut"), [(3.0, 10), (12.0, 10)])
@pytest.mark.parametrize("difference", [-0.3, -0.02, 0.0, 0.02, 0.3])
def test_lengths_are_aligned_to_the_clip(
    seconds: float, cut: float, difference: float, put: Put
) -> None:
    whole = noise(13)
    clip, theirs = put("a.wav", whole[: int(seconds * RATE)]), round((seconds + difference) * RATE)
    wave = Clip(clip.parent, clip.name).read(cut, RATE)
    if seconds == 3 and abs(difference) == 0.3:
        theirs -= int(np.sign(difference))  # a sample inside the limit of 10 %
    codec = of_file(put("b.wav", whole[:theirs]), clip, cut)
    coded = codec.encode(wave, RATE)
    decoded = codec.decode(coded)
    expected = np.zeros_like(wave)
    expected[: min(theirs, len(wave))] = wave[: min(theirs, len(wave))]
    assert (decoded == expected).all()
    # Only what lies within a second of the part that is measured can be compared.
    compared = 0.0 if seconds > cut + 1 else difference
    assert coded.facts["length_difference"] == pytest.approx(compared, abs=2 / RATE)


@pytest.mark.parametrize(
    ("seconds", "difference", "said"),
    [
        (10.0, 0.51, r"at least 0\.51 s longer .* 0\.50 s"),
        (10.0, -0.51, r"at least 0\.51 s shorter"),
        (10.0, 7.0, r"at least 1\.00 s longer"),
        (3.0, -0.31, r"at least 0\.31 s shorter .* 0\.30 s"),
        (0.5, 0.11, r"at least 0\.11 s longer .* 0\.10 s"),
    ],
)
def test_a_file_of_quite_another_length_is_refused(
    seconds: float, difference: float, said: str, put: Put
) -> None:
    clip, theirs = put("a.wav", noise(seconds)), put("b.wav", noise(seconds + difference))
    with pytest.raises(InputError, match=rf"b\.wav is {said}"):
        of_file(theirs, clip).encode(noise(seconds), RATE)


def test_a_file_is_known_by_its_contents(put: Put) -> None:
    clip, first = put("clip.wav"), put("one/a.wav", noise(0.2, seed=1))
    before = of_file(first, clip).identity
    assert of_file(put("two/a.wav", noise(0.2, seed=1)), clip).identity == before
    assert of_file(put("one/a.wav", noise(0.2, seed=2)), clip).identity != before


# Lags


@given(
    milliseconds=st.floats(-99, 99),
    sign=st.sampled_from([-1, 1]),
    rate=st.sampled_from([8000, 16000, 44100]),
)
@example(milliseconds=-100, sign=1, rate=44100)
@example(milliseconds=100, sign=-1, rate=8000)
@settings(max_examples=examples(25))
def test_a_known_lag_is_found_to_the_sample(milliseconds: float, sign: int, rate: int) -> None:
    samples = round(milliseconds / 1000 * rate)
    wave = noise(1, rate=rate)
    later = sign * np.pad(wave, (max(samples, 0), max(-samples, 0)))
    later = later[: len(wave)] if samples > 0 else later[len(later) - len(wave) :]
    disturbed = later + 0.5 * noise(1, seed=7, rate=rate)
    assert lag_seconds(wave, disturbed, rate) == samples / rate


def test_silence_and_snippets_have_a_lag_that_means_nothing() -> None:
    wave = noise(0.3)
    assert lag_seconds(wave, np.zeros_like(wave), RATE) is None
    assert lag_seconds(np.zeros_like(wave), wave, RATE) is None
    assert lag_seconds(wave[:1], wave[:1], RATE) == 0
    assert abs(lag_seconds(wave, np.roll(wave, 2000), RATE) or 0) <= LONGEST_LAG


def test_a_codec_that_makes_up_phases_has_a_lag_of_its_loudness() -> None:
    random = np.random.default_rng(0)
    loudness = np.repeat(random.uniform(0, 1, 40), RATE // 20)
    wave, other = (loudness * noise(2, seed) for seed in (1, 2))
    rows = [
        {"length_difference": 0.0, **lags(wave, np.pad(other, (late, 0))[: len(wave)], RATE)}
        for late in (160, 160, 150, 170)
    ]
    assert all(abs(row["envelope_lag"] - 0.01) < 0.003 for row in rows)
    for row in rows:
        row["lag"] = float(random.uniform(-0.1, 0.1))
    assert Alignment.of(rows).lag == pytest.approx(0.01, abs=0.002)
    # Where the waves agree, their lag counts: it is exact.
    assert Alignment.of([row | {"lag": 0.0125} for row in rows]).lag == 0.0125


def lines(lags: list[float | None], differences: list[float]) -> list[dict[str, Any]]:
    return [
        {"lag": lag, "envelope_lag": 2 * (lag or 0), "length_difference": difference}
        for lag, difference in zip(lags, differences, strict=True)
    ]


def test_a_constant_lag_is_warned_of_and_chance_is_not() -> None:
    late = Alignment.of(lines([0.0125, 0.0125, 0.012, -0.09, None], [0.0, 0.0005, -0.02, 0.01, 0]))
    assert late == Alignment(clips=5, differing=2, longest_difference=0.02, lag=0.01225)
    assert "2 of 5 files differ from their clips in length, by at most 20 ms" in late.note("x")
    assert "its lag is 12.2 ms" in late.note("x")
    assert str(late.warning("x")).startswith("x is 12.2 ms late (median over 5 clips)")
    early = Alignment.of(lines([-0.003, -0.003], [0, 0]))
    assert "its 2 files are as long as their clips" in early.note("x")
    assert "x is 3.0 ms early" in str(early.warning("x"))
    assert Alignment.of(lines([0.002, 0.002], [0, 0])).warning("x") is None
    by_chance = Alignment.of(lines([0.05, 0.02, -0.03, 0.08], [0] * 4))
    assert by_chance.lag is None
    assert by_chance.warning("x") is None
    assert "its lag is not known, because the clips agree on none" in by_chance.note("x")


# In the scorecard


@pytest.fixture
def data(put: Put) -> Path:
    """Two clips of speech and one of music, and the files of two codecs for them."""
    for seed, name in enumerate(("speech/a_01", "speech/b_01", "music/c_01")):
        wave = noise(0.5, seed)
        folder = put(f"data/{name}.wav", wave).parents[1]
        put(f"on time/{Path(name).name}.wav", 0.9 * wave)
        put(f"late/{name}.flac", np.pad(wave, (80, 0)))
    return folder


def no_measures(*_: object, speech: bool) -> dict[str, float]:
    return {"visqol_speech": 3.0} | ({"stoi": 0.5} if speech else {})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(metrics, "measure", no_measures)
    monkeypatch.setattr(report, "MODULES", ())


def score(data: Path, out: Path, *decoded: DecodedCodec, **options: Any) -> dict[str, Any]:
    names = options.pop("names", ["original"])
    options = {"processes": 1, "sample_rate": RATE, "decoded": decoded} | options
    return report.score(data, names, out, **options)


@pytest.mark.usefixtures("quick")
def test_decoded_files_have_rows_rates_and_notes_but_no_speed(data: Path, tmp_path: Path) -> None:
    near, late = tmp_path / "on time", tmp_path / "late"
    summary = score(
        data,
        tmp_path / "out",
        DecodedCodec("near", near, 3.0),
        DecodedCodec("late", late),
    )
    assert summary["failures"] == []
    assert summary["sample_rate"] == RATE
    table = {(line["codec"], line["class"]): line for line in summary["table"]}
    assert [*dict.fromkeys(codec for codec, _ in table)] == ["original", "near", "late"]
    assert table["near", "mean"]["n"] == 3
    assert [table[name, "mean"]["kbps"] for name in ("original", "near", "late")] == [256, 3, None]
    assert [table[name, "mean"]["from_files"] for name in ("original", "near")] == [False, True]
    for what in ("encode_speed", "decode_speed", "codebook"):
        assert table["near", "speech"][what] is None
    described = summary["decoded"]
    assert described["near"] == {
        "folder": "on time",
        "stated_kbps": 3.0,
        "clips": 3,
        "differing": 0,
        "longest_difference": 0.0,
        "lag": 0.0,
    }
    assert described["late"]["differing"] == 3
    assert described["late"]["lag"] == 0.005
    assert [note.partition(":")[0] for note in summary["notes"]] == ["near", "late"]
    assert summary["notes"][0].endswith("Its rate is 3 kbps as stated.")
    assert summary["notes"][1].endswith("Its rate is not known.")
    (warning,) = summary["warnings"]
    assert warning.startswith("late is 5.0 ms late")
    written = (tmp_path / "out" / "scorecard.md").read_text()
    for sentence in (*summary["notes"], warning):
        assert f"\n- {sentence}\n" in written
    assert "| late | mean | 3 |  | 3.00 " in written
    assert "ViSQOL speech" in written
    assert (tmp_path / "out" / "quality.png").is_file()


@pytest.mark.usefixtures("quick")
def test_results_are_those_of_the_contents_at_the_rate(
    data: Path, tmp_path: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, out = DecodedCodec("theirs", tmp_path / "on time"), tmp_path / "out"
    measured: list[int] = []

    def counted(reference: Audio, decoded: Audio, rate: int, **options: Any) -> dict[str, float]:
        measured.append(rate)
        return no_measures(**options)

    monkeypatch.setattr(metrics, "measure", counted)

    def again(**options: Any) -> list[int]:
        measured.clear()
        assert not score(data, out, theirs, names=[], **options)["failures"]
        return measured.copy()

    assert again() == [RATE] * 3
    assert again() == []
    put("on time/b_01.wav", noise(0.5, seed=9))
    assert again() == [RATE]
    assert again(sample_rate=44100) == [44100] * 3
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert len(rows) == 7
    assert [row["seconds"] for row in rows] == [0.5] * 7
    assert {row["bytes"] for row in rows} == {None}
    # The rate of the codec is not part of a result: another one needs no measuring.
    faster = DecodedCodec("theirs", theirs.folder, 9.5)
    measured.clear()
    summary = score(data, out, faster, names=[], sample_rate=44100)
    assert not measured
    assert {line["kbps"] for line in summary["table"]} == {9.5}


@pytest.mark.usefixtures("quick")
def test_bad_files_are_failures_that_name_clip_and_file(
    data: Path, tmp_path: Path, put: Put
) -> None:
    bad = put("on time/a_01.wav", noise(0.7))
    (tmp_path / "on time" / "c_01.wav").write_bytes(b"RIFF")
    summary = score(data, tmp_path / "out", DecodedCodec("theirs", tmp_path / "on time"))
    assert len(summary["failures"]) == 2
    broken, longer = summary["failures"]
    assert broken.startswith("theirs, music/c_01.wav: ")
    assert "c_01.wav" in broken.partition(": ")[2]
    assert longer.startswith(f"theirs, speech/a_01.wav: {bad} is at least 0.20 s longer")
    assert summary["decoded"]["theirs"]["clips"] == 1
    with pytest.raises(AudioFileError):
        of_file(tmp_path / "on time" / "c_01.wav", bad).encode(noise(1), RATE)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["opus-6"], "opus-6 is the name of a codec that runs here"),
        (["opus-7"], "opus-7 is the name"),
        (["opus"], "opus is the name"),
        (["original"], "original is the name"),
        (["w.safetensors"], "is the name"),
        (["run/stage2"], "is the name"),
        (["a", "b", "a"], "two folders are given for a"),
    ],
)
def test_a_name_stands_for_one_codec(
    names: list[str], said: str, data: Path, tmp_path: Path
) -> None:
    decoded = [DecodedCodec(name, tmp_path / "on time") for name in names]
    with pytest.raises(InputError, match=said):
        score(data, tmp_path / "out", *decoded, names=["run/stage2"])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_lacks_clips_is_refused_before_the_work(data: Path, tmp_path: Path) -> None:
    (tmp_path / "on time" / "b_01.wav").unlink()
    with pytest.raises(InputError, match=r"no file for 1 of 3 clips, .* speech/b_01\.wav"):
        score(data, tmp_path / "out", DecodedCodec("theirs", tmp_path / "on time"))
    assert not (tmp_path / "out").exists()


def test_a_worker_process_gets_the_file_with_the_job(data: Path, tmp_path: Path) -> None:
    clips = find_clips(data)
    files: Mapping[Clip, Path] = DecodedCodec("x", tmp_path / "late").files(clips, clips)
    jobs = scorecard.jobs_for([], clips, 1.0, sample_rate=RATE, decoded={"x": files})
    assert [job.decoded for job in jobs] == [files[clip] for clip in clips]
    for job in jobs:
        sent = pickle.loads(pickle.dumps(job))
        assert sent == job
        assert isinstance(sent.peer, DecodedFile)
        assert sent.key() == job.key()
