"""Labels, features, probes and the recogniser, on clips and toys whose answers are known."""

from __future__ import annotations

import importlib
import importlib.util
import json
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import melcap
from melcap import audio
from melcap.cli import commands
from melcap.codec import Codec
from melcap.config import CodecConfig, MelSpec
from melcap.errors import InputError
from melcap.evaluation.clips import RATE, find_clips
from melcap.evaluation.probes import classifiers, recogniser
from melcap.evaluation.probes import features as features_module
from melcap.evaluation.probes.classifiers import ProbeJob, predict
from melcap.evaluation.probes.features import FeatureJob, check, dct, patches
from melcap.evaluation.probes.jobs import compute
from melcap.evaluation.probes.labels import check_apart, label_clips, transcribed_clips
from melcap.evaluation.probes.languages import GROUPS, group_of
from melcap.evaluation.probes.recogniser import errors, flat_model, normalise, recognise, unknown
from melcap.evaluation.probes.scores import (
    balanced_accuracy,
    confusions,
    draws_of,
    interval,
    macro_f1,
    rates,
)
from melcap.evaluation.probes.tasks import FEWEST, tasks_of
from melcap.ops import log_mel
from melcap.pretrained import save
from tests.helpers import examples
from tests.model.base.published import TINY, codec_of

DATA = Path(__file__).parents[1] / "data"
SAID = "he might even have been made amiable himself"
BEGINNING = "he might even"
"""The words of the first second."""

needs_eval = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("pocketsphinx", "jiwer"))),
    reason='needs pip install "melcap[eval]"',
)


def clips_in(folder: Path, names: list[str], seconds: float = 0.3) -> Path:
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(index)
        wave = 0.1 * random.standard_normal((1, int(seconds * RATE)))
        audio.write(path, wave.astype(np.float32), RATE)
    return folder


def manifest_of(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# Labels


def test_a_language_has_one_group() -> None:
    codes = [code for members in GROUPS.values() for code in members]
    assert len(codes) == len(set(codes))
    assert [group_of(code) for code in ("en_GB", "pt-BR", "SR@latin", "gl")] == [
        "Germanic",
        "Romance",
        "Slavic",
        "Romance",
    ]
    assert group_of("Klingon") == "Klingon"


def test_a_users_manifest_gives_class_language_and_text(tmp_path: Path) -> None:
    folder = clips_in(tmp_path / "mine", ["a/1.wav", "a/2.wav", "b/3.wav", "b/4.wav", "b/5.wav"])
    manifest = manifest_of(
        tmp_path / "labels.csv",
        "path,class,language,speaker,text,listed\n"
        "a/1.wav,speech,en-US,ann,Good morning.,\nmine/a/2.wav,speech,fr,ben,,\n"
        "b/3.wav,rain,,,,\nb/4.wav,speech,en,ann,one two,yes\n",
    )
    (first, second, third, fourth), left = label_clips([folder], manifest)
    assert left == 1
    assert (first.kind, first.group, first.english, first.package) == (
        "speech",
        "Germanic",
        True,
        "ann",
    )
    assert (first.text, first.listed) == ("Good morning.", False)
    assert (second.group, second.english, second.package) == ("Romance", False, "ben")
    assert (third.kind, third.group, third.language) == ("rain", "", "")
    assert (fourth.text, fourth.listed) == ("one two", True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,kind\na/1.wav,speech\n", "no column class"),
        ("path,class\na/1.wav,speech\na/1.wav,music\n", "names a/1.wav 2 times"),
        ("path,class\nelsewhere/1.wav,speech\n", "names no clip of"),
        ("path,class\n", "names no clip of"),
        ("path,class,package,origin_path\na/1.wav,speech,x,y\n", "has no column language"),
        ('path,class\n"a/1.wav,speech\n', "cannot be read as CSV"),
    ],
)
def test_manifests_that_cannot_be_used_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    folder = clips_in(tmp_path / "mine", ["a/1.wav"])
    with pytest.raises(InputError, match=reason):
        label_clips([folder], manifest_of(tmp_path / "labels.csv", text))


def test_a_package_on_both_sides_is_refused(tmp_path: Path) -> None:
    left = clips_in(tmp_path / "left", ["music/one_0001.wav", "music/two_0001.wav"])
    right = clips_in(tmp_path / "right", ["music/two_0002.wav", "music/three_0001.wav"])
    (train, _), (valid, _) = label_clips([left]), label_clips([right])
    check_apart(train[:1], valid)
    with pytest.raises(InputError, match=r"1 packages have clips in both TRAIN and VALID \(two\)"):
        check_apart(train, valid)


def test_classes_with_too_few_clips_are_left_out_and_named(tmp_path: Path) -> None:
    names = [f"{kind}/{i}.wav" for kind in "ab" for i in range(FEWEST)]
    few = clips_in(tmp_path / "few", [*names, *(f"c/{i}.wav" for i in range(FEWEST - 1))], 0.01)
    all_of, _ = label_clips([few])
    (task,), notes = tasks_of(all_of, all_of, 100)
    assert (task.name, task.classes) == ("class", ("a", "b"))
    assert len(task.train) == len(task.valid) == 2 * FEWEST
    assert task.answers(task.train) == (0,) * FEWEST + (1,) * FEWEST
    assert any(f"class: c is left out, with {FEWEST - 1} clips" in note for note in notes)
    assert any("language group: no probe" in note for note in notes)
    (smaller,), _ = tasks_of(all_of, all_of, 2)
    assert len(smaller.train) == 4
    assert set(smaller.train) <= set(task.train)


# Features


def test_patches_are_the_low_terms_of_the_log_mel() -> None:
    wave = audio.read(DATA / "speech.flac")[0][0, :RATE]
    found = patches(wave)
    columns = -(-len(wave) // 2048)
    assert found.shape == (32, 12, columns)
    padded = torch.zeros(1, columns * 2048)
    padded[0, : len(wave)] = torch.from_numpy(wave)
    mel = log_mel(padded, MelSpec())[0].numpy()
    mean = mel.reshape(12, 8, columns, 8).mean((1, 3))
    assert found[0] == pytest.approx(8 * mean, abs=1e-4)
    # Orthonormal: what is kept has no more energy than the picture, and here nearly all of it.
    share = np.square(found).sum() / np.square(mel).sum()
    assert 0.95 < share <= 1 + 1e-6
    assert dct(8) @ dct(8).T == pytest.approx(np.eye(8), abs=1e-6)


@pytest.mark.slow
def test_features_are_the_codecs_own(tmp_path: Path, lite: Codec) -> None:
    clip = next(clip for clip in find_clips(DATA) if clip.name == "speech.flac")
    kept = {}
    for name in ("tokens", "mel", "mel-32", "mel-pooled", "mel:opus-12"):
        check(name)
        job = FeatureJob(name, clip, 1.0, tmp_path)
        assert compute([job], 1) == {}
        kept[name] = job.load()
    assert len([*tmp_path.iterdir()]) == 3  # one log-mel for three features
    wave = clip.read(1.0)
    latents = lite.codebook.latents(lite.encode(wave, RATE).tokens[None])[0].numpy()
    assert (kept["tokens"] == latents).all()
    assert kept["mel"].shape == latents.shape == kept["mel:opus-12"].shape
    assert kept["mel-32"] == pytest.approx(patches(wave), rel=1e-3, abs=1e-3)
    assert (kept["mel"] == kept["mel-32"][: len(latents)]).all()
    pooled = np.zeros(latents.shape[-1] * 2048, np.float32)
    pooled[: len(wave)] = wave
    mel = log_mel(torch.from_numpy(pooled)[None], MelSpec())[0].numpy()
    mean = mel.reshape(12, 8, -1, 8).mean(3).swapaxes(0, 1)
    assert kept["mel-pooled"] == pytest.approx(mean, abs=0.02)
    assert not np.allclose(kept["mel"], kept["mel:opus-12"], atol=0.1)


def test_tokens_of_a_base_codec(tmp_path: Path) -> None:
    base = codec_of(TINY[0])
    save(base, tmp_path / "base.safetensors")
    clip = next(clip for clip in find_clips(DATA) if clip.name == "speech.flac")
    feature = f"tokens:{tmp_path / 'base.safetensors'}"
    check(feature)
    job = FeatureJob(feature, clip, 1.0, tmp_path / "kept")
    assert compute([job], 1) == {}
    tokens = base.encode(clip.read(1.0), RATE).tokens
    assert (job.load() == base.codebook.latents(tokens[None])[0].numpy()).all()
    assert job.load().shape == (16, *patches(clip.read(1.0)).shape[1:])


def test_tokens_on_another_grid_are_refused(small_weights: Path) -> None:
    with pytest.raises(InputError, match=r"grid of 12 rows .* small-.* have 3 rows and columns of"):
        check(f"tokens:{small_weights}")


def test_whatever_changes_a_feature_is_in_its_name(tmp_path: Path, monkeypatch: Any) -> None:
    one, other = find_clips(DATA)[:2]
    paths = [
        FeatureJob(name, clip, seconds, tmp_path).path
        for name in ("tokens", "mel", "mel:opus-6", "mel:opus-12")
        for clip in (one, other)
        for seconds in (1.0, 2.0)
    ]
    monkeypatch.setattr(features_module, "DEFINITIONS", features_module.DEFINITIONS + 1)
    paths.append(FeatureJob("mel", one, 1.0, tmp_path).path)
    monkeypatch.setattr(features_module, "identity", lambda name, find_peer: "other weights")
    paths.append(FeatureJob("mel", one, 1.0, tmp_path).path)
    assert len(set(paths)) == 18


@pytest.mark.parametrize("name", ["", "token", "mel:", "tokens:", "mel:mp3", "mel:opus-1"])
def test_unknown_features_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        check(name)


@dataclass(frozen=True)
class Number:
    """Writes a number, or fails."""

    value: int
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / f"{self.value}.txt"

    def write(self, path: Path) -> None:
        path.write_text("begun")
        if self.value < 0:
            raise ValueError("negative")
        path.write_text(str(self.value))


def test_results_are_kept_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    jobs, calls = [Number(value, tmp_path / "kept") for value in (1, -2, 3)], []
    assert compute(jobs, 1, lambda: calls.append(1)) == {jobs[1].path: "negative"}
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["1.txt", "3.txt"]
    jobs[0].path.write_text("marked")
    compute(jobs, 1, lambda: calls.append(1))
    assert jobs[0].path.read_text() == "marked"
    assert len(calls) == 6


# Probes


def toy(count: int, seed: int, separable: bool) -> tuple[list[Any], np.ndarray[Any, Any]]:
    """Clips of noise [4, 3, 70]; of the second class one number is higher."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    clips = [random.standard_normal((4, 3, 70)).astype(np.float32) for _ in labels]
    for clip, label in zip(clips, labels, strict=True):
        clip[2, 1] += 2.0 * label * separable
    return clips, labels


@pytest.mark.slow
@pytest.mark.parametrize("probe", classifiers.STEPS)
def test_probes_learn_what_can_be_learnt_and_nothing_else(
    probe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "STEPS", {"linear": 300, "convolutional": 30})
    clips, labels = toy(60, 0, True)
    asked, answers = toy(100, 1, True)
    assert (predict(probe, clips, labels, asked, 2, seed=0) == answers).mean() > 0.95
    # Labels that have nothing to do with the clips: half are guessed, give or take 4 deviations.
    shuffled = np.random.default_rng(5).permutation(labels)
    noise, _ = toy(60, 2, False)
    others, _ = toy(400, 3, False)
    chance = (predict(probe, noise, shuffled, others, 2, seed=0) == np.arange(400) % 2).mean()
    assert abs(chance - 0.5) < 0.1


@cache
def toys(side: int) -> list[Any]:
    return toy(60, side, True)[0]


@dataclass(frozen=True)
class Toy:
    """Stands for a feature on disk."""

    clip: int
    side: int
    feature: str = "toy"

    @property
    def path(self) -> Path:
        return Path(f"{self.side}-{self.clip}.npy")

    def load(self) -> Any:
        return toys(self.side)[self.clip]


@pytest.mark.slow
def test_shuffled_labels_are_learnt_to_no_avail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(classifiers.STEPS, "linear", 400)
    train, valid = (tuple(Toy(clip, side) for clip in range(60)) for side in (0, 1))
    labels = tuple(clip % 2 for clip in range(60))
    right = {}
    for shuffled in (False, True):
        job = ProbeJob("linear", train, labels, valid, 2, 2, tmp_path, shuffled)  # type: ignore[arg-type]
        assert compute([job], 1) == {}
        assert job.load().shape == (2, 60)
        right[shuffled] = (job.load() == labels).mean()
    assert right[False] > 0.95
    assert abs(right[True] - 0.5) < 0.25


@pytest.mark.slow
@pytest.mark.parametrize("probe", classifiers.STEPS)
def test_a_guess_depends_on_the_clip_and_on_train_alone(probe: str, monkeypatch: Any) -> None:
    monkeypatch.setitem(classifiers.STEPS, probe, 20)
    clips, labels = toy(20, 0, True)
    asked, _ = toy(12, 1, True)
    loud = [*asked, *(1000 * clip for clip in asked)]
    alone = predict(probe, clips, labels, asked, 2, seed=3)
    assert (predict(probe, clips, labels, asked, 2, seed=3) == alone).all()
    assert (predict(probe, clips, labels, loud, 2, seed=3)[:12] == alone).all()
    before = torch.random.get_rng_state()
    short = [clip[..., :1] for clip in clips[:2]] + [clip[..., :7] for clip in clips[2:]]
    assert predict(probe, short, labels, [*asked[:1], asked[0][..., :1]], 2, seed=0).shape == (2,)
    assert (torch.random.get_rng_state() == before).all()


@pytest.mark.slow
def test_rare_classes_weigh_as_much_as_common_ones() -> None:
    random = np.random.default_rng(0)
    labels = np.array([0] * 90 + [1] * 10)
    clips = [(random.standard_normal((1, 1, 5)) + label).astype(np.float32) for label in labels]
    shape = np.array([-1.5, -0.5, 0, 0.5, 1.5], np.float32)[None, None]  # mean 0, deviation 1
    asked = [shape + np.float32(value) for value in (0.3, 0.7)]
    assert predict("linear", clips, labels, asked, 2, seed=0).tolist() == [0, 1]


# Figures


def test_figures_of_known_confusions() -> None:
    answers = np.array([0, 0, 0, 0, 1, 1])
    guesses = np.array([[0, 0, 0, 1, 1, 0], answers])
    table = confusions(answers, guesses, np.ones((1, 6)), 2)
    assert table[0, 0].tolist() == [[3, 1], [1, 1]]
    assert balanced_accuracy(table)[0].tolist() == [pytest.approx((3 / 4 + 1 / 2) / 2), 1]
    assert macro_f1(table)[0].tolist() == [pytest.approx((6 / 8 + 2 / 4) / 2), 1]


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("vwx")), min_size=1, max_size=12))
@settings(max_examples=examples(10))
def test_a_draw_holds_whole_voices_of_each_class(clips: list[tuple[int, str]]) -> None:
    answers, voices = np.array([label for label, _ in clips]), [voice for _, voice in clips]
    times = draws_of(answers, voices)
    assert (times[0] == 1).all()
    for label in set(answers.tolist()):
        there = {v for a, v in clips if a == label}
        sizes = {v: clips.count((label, v)) for v in there}
        drawn = times[1:, answers == label].sum(1)
        assert drawn.min() >= len(there) * min(sizes.values())
        assert drawn.max() <= len(there) * max(sizes.values())


@pytest.mark.slow
def test_intervals_are_wider_where_clips_share_a_voice() -> None:
    answers, guesses = np.zeros(64, int), np.repeat([[0, 1] * 4], 8, 1)
    widths = []
    for voices in ([str(clip) for clip in range(64)], [str(clip // 8) for clip in range(64)]):
        table = confusions(answers, guesses, draws_of(answers, voices), 2)[..., :1, :]
        found = interval(table[:, 0, 0, 0] / table[:, 0, 0].sum(-1))
        widths.append(found["high"] - found["low"])  # type: ignore[operator]
    # Half of 64 independent clips are right: 2 x 1.96 x 0.5 / 8; of 8 voices, / sqrt(8).
    assert widths[0] == pytest.approx(0.245, rel=0.15)
    assert widths[1] == pytest.approx(0.69, rel=0.15)


def test_rates_weigh_clips_by_their_words() -> None:
    assert interval(rates([1, 0], [1, 9]))["mean"] == 0.1
    assert interval(rates([3], [4])) == {"mean": 0.75, "low": None, "high": None}
    several = interval(rates([1, 0, 2, 0], [5, 5, 5, 5]))
    assert several["low"] < several["mean"] == 0.15 < several["high"]  # type: ignore[operator]


# Words


@needs_eval
@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Press 3, followed by the # key.", "press three followed by the pound key"),
        ("[beep] party's 'last' name: re-entered", "party's last name re entered"),
        ("H.323", "h three two three"),
        ("...", ""),
    ],
)
def test_texts_are_compared_by_their_words(text: str, normal: str) -> None:
    assert normalise(text) == normal
    assert normalise(normal) == normal


@needs_eval
def test_errors_are_counted_against_the_reference() -> None:
    assert errors("one two three four", "one two three four") == (0, 4)
    assert errors("one two three four", "one too three") == (2, 4)
    assert errors("one two", "") == (2, 2)
    assert errors("one", "one and two") == (2, 1)


@pytest.mark.slow
@needs_eval
def test_the_recogniser_understands_english_and_noise_disturbs_it() -> None:
    wave, said = audio.read(DATA / "english.flac")[0][0, :16000], BEGINNING
    transcript = recognise(wave, 16000, "sentences")
    wrong, words = errors(said, transcript)
    assert words == 3
    assert wrong <= 1
    noise = 0.3 * np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)
    assert errors(said, recognise(wave + noise, 16000, "sentences"))[0] > wrong
    # The clip in between leaves no trace.
    assert recognise(wave, 16000, "sentences") == transcript


@pytest.mark.slow
@needs_eval
def test_a_list_and_phones_are_searched_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = audio.read(DATA / "english.flac")[0][0]
    vocabulary = (*SAID.split(), "kite", "grasshopper", "xylophone", "zurna")
    pocketsphinx = importlib.import_module("pocketsphinx")
    whole = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
    lines = whole.read_text(encoding="utf-8").splitlines(keepends=True)
    short = tmp_path / "short.dict"  # with all words, a search for a list takes 10 s to start
    short.write_text("".join(line for line in lines if line.split()[0] in vocabulary))
    monkeypatch.setattr(pocketsphinx, "Decoder", partial(pocketsphinx.Decoder, dict=str(short)))
    monkeypatch.setattr(recogniser, "_decoder", cache(recogniser._decoder.__wrapped__))
    assert unknown(vocabulary) == ["zurna"]
    transcript = recognise(wave, 16000, "list", vocabulary)
    assert set(transcript.split()) <= set(vocabulary)
    assert errors(SAID, transcript)[0] <= 3
    phones = recognise(wave, 16000, "phones").split()
    assert len(phones) > 20
    assert {"HH", "IY", "M"} <= set(phones)
    assert "SIL" not in phones
    assert flat_model(["a", "b"]).count("-0.4771") == 3
    with pytest.raises(InputError, match="none of the words"):
        recognise(wave, 16000, "list", ("zurna",))


def test_texts_stand_beside_the_clips(tmp_path: Path) -> None:
    clips_in(tmp_path, ["a.wav", "b.wav"])
    (tmp_path / "a.txt").write_text("Good morning.")
    first, second = transcribed_clips(tmp_path)
    assert (first.text, second.text) == ("Good morning.", "")
    assert first.english
    assert second.english
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match=r"b\.txt cannot be read"):
        transcribed_clips(tmp_path)


# The command


def run(*arguments: object) -> Any:
    return CliRunner().invoke(commands.app, ["probe", *map(str, arguments)])


@pytest.mark.slow
@needs_eval
def test_a_run_goes_on_where_it_was_and_passes_over_a_bad_clip(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(classifiers, "STEPS", {"linear": 5, "convolutional": 5})
    names = [f"{kind}/{side}{i}_0.wav" for kind in ("x", "y") for i in range(5) for side in "tv"]
    for side in "tv":
        clips_in(tmp_path / side, [name for name in names if f"/{side}" in name], 0.1)
    speech = tmp_path / "speech"
    speech.mkdir()
    audio.write(speech / "a.wav", audio.read(DATA / "english.flac")[0][:, :16000], 16000)
    (speech / "a.txt").write_text(BEGINNING)
    out = tmp_path / "out"
    options = (
        *(tmp_path / "t", tmp_path / "v", "--out", out, "--speech", speech, "--processes", 1),
        "--features",
        "tokens,mel",
        "--codecs",
        "opus-12",
        "--seeds",
        2,
        "--seconds",
        1,
    )
    bad = tmp_path / "t" / "x" / "t9_0.wav"
    bad.write_bytes(b"RIFF")
    first = run(*options)
    assert first.exit_code == 1
    assert first.stderr.count("t9_0.wav") >= 2  # once for each feature
    summary = json.loads((out / "probes.json").read_text())
    (task,) = summary["tasks"]
    assert (task["task"], task["chance"]) == ("class", 0.5)
    assert task["classes"]["train"] == {name: {"clips": 5, "voices": 5} for name in "xy"}
    assert [(row["features"], row["labels"], row["probe"]) for row in task["probes"]] == [
        ("tokens", "true", "linear"),
        ("tokens", "shuffled", "linear"),
        ("tokens", "true", "convolutional"),
        ("tokens", "shuffled", "convolutional"),
        ("mel", "true", "linear"),
        ("mel", "true", "convolutional"),
    ]
    linear = [row for row in task["probes"] if row["probe"] == "linear"]
    numbers = CodecConfig().tokenizer.codebook_dim  # in a cell, of either feature
    assert {row["parameters"] for row in linear} == {2 * (2 * numbers * 12 + 1)}
    assert summary["identities"]["tokens"] == melcap.load().model
    original, opus = summary["speech"]
    assert (original["codec"], opus["codec"]) == ("original", "opus-12")
    assert original["error_rate_words"] == 3
    assert original["disagreement"] is None
    assert opus["disagreement"]["mean"] >= 0
    assert opus["kbps"] < 20

    bad.unlink()
    made = {path: path.stat().st_mtime_ns for path in (out / "cache").rglob("*.*")}
    second = run(*options)
    assert second.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "cache").rglob("*.*")} == made
    assert second.stdout == (out / "probes.md").read_text() + "\n"
    assert json.loads((out / "probes.json").read_text())["tasks"] == summary["tasks"]


@pytest.mark.slow
@needs_eval
def test_what_cannot_be_done_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    left = clips_in(tmp_path / "left", ["x/one_0001.wav"])
    right = clips_in(tmp_path / "right", ["x/one_0002.wav"])
    for arguments, reason in (
        ((left, right), "both TRAIN and VALID"),
        ((left, tmp_path / "none"), "does not exist"),
        ((left, right, "--features", "token"), "unknown feature"),
        ((left, right, "--codecs", "mp3"), "unknown codec"),
        ((left, right, "--manifest", tmp_path / "none.csv"), "cannot be read"),
    ):
        done = run(*arguments, "--out", tmp_path / "out")
        assert done.exit_code == 1
        assert reason in " ".join(done.stderr.split())
        assert "Traceback" not in done.output
    assert run(left, right, "--seeds", "1", "--out", tmp_path / "out").exit_code == 2
    assert not (tmp_path / "out").exists()
