"""Training on the command line: from clips to an exported codec, and what the commands refuse."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import melcap
from melcap.cli.commands import app
from melcap.config.named import NAMES, named
from melcap.errors import MelcapError
from melcap.pretrained import load
from melcap.training import run
from melcap.training.audio_cache import AudioCache
from melcap.training.checkpoint import Checkpoint
from melcap.training.config import TrainingConfig
from melcap.training.loop import LoopOptions, train
from melcap.training.stage1 import Stage1
from tests.helpers import SMALL
from tests.training.helpers import (
    CLIPS,
    DATA,
    cache_of_clips,
    files_of,
    stage_1,
    stage_2,
    states_for_stage_2,
    train_to,
)

SCORECARD = DATA.parents[1] / "docs" / "scorecard" / "scorecard.json"


def melcap_(*arguments: object) -> Result:
    """Run `melcap` with these arguments."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def exporting(run: Path, target: Path, *arguments: object) -> Result:
    return melcap_("export", run, "--weights", target, *arguments)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `clips` and the `cache` made of them."""
    folder = tmp_path_factory.mktemp("data")
    cache_of_clips(folder)
    return folder


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a command end three steps after it began, and draw no pictures."""

    def three(recipe: Any, sampler: Any, path: Path, loop: LoopOptions, *others: Any) -> None:
        before = Checkpoint(path).step if path.exists() else 0
        loop = replace(loop, steps=before + 3, log_every=1, picture_minutes=math.inf)
        train(recipe, sampler, path, loop, *others)

    monkeypatch.setattr(run, "train", three)


def settings(folder: Path, **values: Any) -> Path:
    """Write a file of settings for a small codec, and return it."""
    path = folder / "settings.json"
    codec = json.loads(SMALL.to_json())
    path.write_text(json.dumps({"codec": codec, "columns": 6, "batch": 2, "warmup": 1, **values}))
    return path


def training(clips: Path, out: Path, *arguments: object) -> Result:
    common = ("--data", clips / "clips", "--cache", clips / "cache", "--out", out, "--threads", 1)
    return melcap_("train", *common, "--minutes", 9, "--device", "cpu", *arguments)


@pytest.mark.slow
def test_from_clips_to_a_codec_with_its_card(clips: Path, tmp_path: Path) -> None:
    """Settings given once are kept: later commands take the codec from the checkpoints."""
    out = tmp_path / "out"
    file = settings(tmp_path, codebook_warmup=1)
    for arguments in (
        ("--stage", 1, "--config", file),
        ("--stage", 1, "--rate", "1e-4"),
        ("--stage", 2, "--from-mels", "--config", file),
        ("--stage", 2, "--batch", 1, "--columns", 7),
        ("--stage", 2, "--discriminators", 2, "--discriminator-columns", 1),
    ):
        done = training(clips, out, *arguments)
        assert done.exit_code == 0, done.output
        assert "seconds of audio a second" in done.stderr
    last = Checkpoint(out / "stage2")
    assert last.config == TrainingConfig.of(
        stage=2, codec=SMALL, batch=1, columns=7, discriminators=2, discriminator_columns=1
    )
    assert Checkpoint(out / "stage1").config == TrainingConfig.of(
        codec=SMALL, batch=2, columns=6, codebook_warmup=1, warmup=1, rate=1e-4
    )
    kept = [
        (row["recipe"], row["steps"], row["batch"], row["columns"], row["rate"])
        for row in last.records
    ]
    assert kept == [
        ("stage1", 3, 2, 6, 1.5e-3),
        ("stage1", 3, 2, 6, 1e-4),
        ("vocoder", 3, 2, 6, 2e-3),
        ("stage2", 3, 1, 7, 7e-4),
        ("stage2", 3, 1, 7, 7e-4),
    ]
    licences = tmp_path / "data.csv"
    licences.write_text("package,version,licences,minutes\nklettres,1.2-3,GPL-2+ | MIT,7.5\n")
    target = tmp_path / "my.safetensors"
    done = exporting(out, target, "--licences", licences, "--scorecard", SCORECARD)
    assert done.exit_code == 0, done.output
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    assert (tmp_path / "my.sha256").read_text() == f"{digest}  my.safetensors\n"
    codec = melcap.load(target)
    assert codec.config == SMALL
    for key, value in Checkpoint(out / "stage2").exported()["vocoder"].items():
        torch.testing.assert_close(codec.vocoder.state_dict()[key], value, atol=1e-3, rtol=1e-3)
    assert codec.decode(codec.encode(torch.zeros(1, 5000), 44100)).shape == (1, 5000)
    check_card((tmp_path / "my.md").read_text(), last, digest)


def check_card(card: str, last: Checkpoint, digest: str) -> None:
    assert f"SHA-256 `{digest}`" in card
    assert "one codebook of 300 vectors of 8 numbers, 3 tokens for every 1024 samples" in card
    assert r"| klettres | 1.2-3 | GPL-2+ \| MIT | 7.5 |" in card
    hours = last.records[-1]["hours"]
    seconds = {clip: melcap.audio.read(DATA / f"{clip}.flac")[0].shape[1] / 44100 for clip in CLIPS}
    assert hours == pytest.approx({name: value / 3600 for name, value in seconds.items()}, rel=1e-3)
    assert "| data | music, hours | sound, hours | speech, hours | all |" in card
    rows = [line for line in card.splitlines() if "CPU, 1 threads" in line]
    assert [row.split(" | ")[0] for row in rows] == [
        *["| stage 1"] * 2,
        "| stage 2 on true mels",
        *["| stage 2 on tokens"] * 2,
    ]
    figures = last.records[-1]["figures"]
    assert f"discriminator {figures['discriminator']:g}, stft {figures['stft']:g}" in rows[-1]
    assert f"torch {torch.__version__}" in rows[-1]
    speeds = "encode_speed | decode_speed"
    assert f"| codec | class | n | seconds | kbps | {speeds} | visqol |" in card
    for line in json.loads(SCORECARD.read_text())["table"]:
        visqol = "{mean:.2f} [{low:.2f}, {high:.2f}]".format_map(line["visqol"])
        (row,) = (r for r in card.splitlines() if f"| {line['codec']} | {line['class']} |" in r)
        assert f" | {visqol} | " in row
    assert (
        json.loads(card.partition("```json\n")[2].partition("```")[0])["discriminator_columns"] == 1
    )


@pytest.mark.slow
def test_a_run_from_trained_weights_says_so(
    clips: Path, tmp_path: Path, small_weights: Path
) -> None:
    done = training(clips, tmp_path, "--stage", 2, "--weights", small_weights, "--columns", 6)
    assert done.exit_code == 0, done.output
    first, second = Checkpoint(tmp_path / "stage2").records
    assert first == {"recipe": "weights", "model": load(small_weights).model}
    assert second["recipe"] == "stage2"
    assert exporting(tmp_path, tmp_path / "w.safetensors").exit_code == 0
    assert f"| started from {first['model']} |" in (tmp_path / "w.md").read_text()


@pytest.mark.slow
def test_a_joint_stage_follows_the_others(clips: Path, trained: Path, tmp_path: Path) -> None:
    """It resumes, is what the run is exported as, and says that its tokens are others."""
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    kind = ("--discriminators", 2, "--discriminator-kind", "magnitudes")
    for arguments in (("--batch", 1, "--columns", 6), (*kind, "--discriminator-columns", 2)):
        done = training(clips, out, "--joint", *arguments)
        assert done.exit_code == 0, done.output
    last = Checkpoint(out / "joint")
    assert last.step == 6
    assert last.config == TrainingConfig.of(
        joint=True,
        codec=SMALL,
        batch=1,
        columns=6,
        discriminators=2,
        discriminator_kind="magnitudes",
        discriminator_columns=2,
    )
    assert [row["recipe"] for row in last.records] == ["stage2", "joint", "joint"]
    done = exporting(out, tmp_path / "joint.safetensors", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout).keys() == {"weights", "sha256"}
    assert "the joint stage made another tokenizer" in done.stderr
    card = (tmp_path / "joint.md").read_text()
    assert "| joint stage | 3 | " in card
    assert "| 2 (magnitudes) | " in card
    done = exporting(out / "stage2", tmp_path / "stage2.safetensors", "--quiet")
    assert done.exit_code == 0, done.output
    assert not done.stderr
    codecs = [melcap.load(tmp_path / f"{name}.safetensors") for name in ("joint", "stage2")]
    assert codecs[0].tokenizer_id != codecs[1].tokenizer_id
    codes = codecs[1].encode(torch.zeros(1, 5000), 44100)
    with pytest.raises(MelcapError, match="tokenizer"):
        codecs[0].decode(codes)
    assert not exporting(out, tmp_path / "x.safetensors", "--quiet").stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_codec_by_its_name(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recipes: list[Any] = []
    monkeypatch.setattr(run, "train", lambda *given: recipes.append(given[0]))
    arguments = ("--stage", 1, "--codec", name, "--batch", 1, "--columns", 2)
    done = training(clips, tmp_path / name, *arguments)
    assert done.exit_code == 0, done.output
    assert recipes[0].config.codec == named(name)
    assert name in melcap_("train", "--help").stdout


@pytest.mark.slow
def test_data_after_one_flag_or_many_or_none(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name / name).mkdir(parents=True)
        (tmp_path / name / name / "clip.flac").write_bytes((DATA / "sound.flac").read_bytes())
    a, b, c = (tmp_path / name for name in "abc")
    keys = set()
    for arguments in (
        ("--data", a, b, c),
        ("--data", c, "--data", b, "--data", a),
        (b, a, c),
        ("--data", b, c, "--minutes", 0, "--data", a),
    ):
        common = ("--stage", 1, "--minutes", 0, "--out", tmp_path / "out", "--threads", 1)
        done = melcap_("train", *common, "--config", settings(tmp_path), *arguments)
        assert done.exit_code == 0, done.output
        assert "classes a, b, c" in done.stderr
        keys.add((tmp_path / "out" / "audio" / "index.json").read_text())
    assert len(keys) == 1, "the order of the shards is no other data"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--stage", 1, "--minutes", 1), "--data: give tar shards or folders"),
        (("a.tar", "--minutes", 1), "--stage: 1 or 2 must be given, or --joint"),
        (("a.tar", "--minutes", 1, "--stage", 3), "--stage"),
        (("a.tar", "--minutes", -1, "--stage", 1), "--minutes"),
        (("a.tar", "--minutes", 1, "--stage", 1, "--batch", 0), "--batch"),
        (("a.tar", "--stage", 1), "--minutes"),
        (("a.tar", "--minutes", 1, "--stage", 1, "--device", "tpu"), "is not one of cpu, cuda"),
    ],
)
def test_wrong_usage(arguments: tuple[object, ...], words: str) -> None:
    done = melcap_("train", *arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.replace("│", "").replace("'", "").split())


@pytest.mark.parametrize(
    ("arguments", "minutes"),
    [
        (("--deadline", 1000 + 64), 1.0),
        (("--deadline", 1000 + 64, "--minutes", 0.5), 0.5),
        (("--deadline", 1000 + 64, "--minutes", 9), 1.0),
        (("--minutes", 9), 9.0),
    ],
)
def test_a_deadline_leaves_time_to_save(
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[object, ...],
    minutes: float,
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(run, "train", lambda *given: asked.append(given[3].minutes))
    monkeypatch.setattr(run.time, "time", lambda: 1000.0)
    common = ("--data", clips / "clips", "--cache", clips / "cache", "--out", tmp_path)
    file = settings(tmp_path)
    done = melcap_("train", *common, "--stage", 1, "--config", file, "--device", "cpu", *arguments)
    assert done.exit_code == 0, done.output
    assert asked == [pytest.approx(minutes)]
    late = ("--stage", 1, "--config", file, "--device", "cpu", "--deadline", 1003)
    assert "the deadline leaves no time to train: it is 3 s away" in refusal(
        melcap_("train", *common, *late)
    )


@pytest.mark.slow
def test_audio_that_was_decoded_beforehand(clips: Path, tmp_path: Path) -> None:
    """`melcap train-decode` makes the cache that a run with the same sources takes as it is."""
    cache = tmp_path / "cache"
    done = melcap_("train-decode", clips / "clips", "--out", cache, "--workers", 1)
    assert done.exit_code == 0, done.output
    assert "hours of audio, classes music, sound, speech" in done.output
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    again = training(
        clips, tmp_path, "--stage", 1, "--config", settings(tmp_path), "--cache", cache
    )
    assert again.exit_code == 0, again.output
    assert before == {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert "does not exist" in refusal(melcap_("train-decode", tmp_path / "none", "--out", cache))


def test_decoding_imports_no_torch() -> None:
    """Its worker processes import what the command does, and there may be many of them."""
    code = (
        "import sys, melcap.cli.commands, melcap.training.decoding; print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def refusal(done: Result) -> str:
    """Return the one sentence that a command ended with."""
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), done.exception
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    return line


@pytest.fixture(scope="module")
def trained(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with checkpoints of a small codec, of all recipes, after one step."""
    out = tmp_path_factory.mktemp("trained")
    cache = AudioCache(clips / "cache")
    first = stage_1(codebook_warmup=0)
    train_to(1, first, cache, out / "stage1")
    train_to(1, stage_2(), cache, out / "vocoder")
    train_to(
        1, stage_2(states_for_stage_2(first), muon=False, discriminators=2), cache, out / "stage2"
    )
    return out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--stage", 1, "--seed", 1), "stage1: this run has seed 0, not 1"),
        (("--stage", 1, "--joint"), "joint is stage 2 on tokens: it goes neither with stage 1"),
        (("--joint", "--weights", "default"), "stage2: the joint stage begins either with it or"),
        (("--stage", 2, "--discriminator-kind", "x"), "it must be waves or magnitudes"),
        (("--stage", 1, "--codec", "half"), "nor a codec of that name, which are lite, half-rate"),
        (("--stage", 2, "--discriminators", 4), "this run has discriminators 2, not 4"),
        (("--stage", 2, "--discriminators", 0), "this run has discriminators 2, not 0"),
        (("--stage", 1, "--weights", "default"), "a codec whose mel.n_fft is 1024, not 512"),
        (("--stage", 2, "--weights", "none.safetensors"), "none.safetensors: cannot read"),
        (("--stage", 1, "--config", "none.json"), "none.json: cannot read the settings"),
        (("--stage", 1, "--codec", "none.json"), "none.json: cannot read the settings"),
        (("--stage", 1, "none.tar"), "none.tar does not exist"),
        (("--stage", 1, "--device", "cuda:77"), "no device cuda:77 here"),
    ],
)
def test_what_a_run_refuses_in_a_sentence(
    clips: Path, trained: Path, arguments: tuple[object, ...], words: str
) -> None:
    before = files_of(trained)
    assert words in refusal(training(clips, trained, *arguments))
    assert before == files_of(trained)


@pytest.mark.slow
def test_another_codec_is_refused(clips: Path, trained: Path, tmp_path: Path) -> None:
    """Another codec is refused, but stage 2 may give an old tokenizer a new vocoder."""
    file = tmp_path / "codec.json"
    file.write_text(replace(SMALL, vocoder=replace(SMALL.vocoder, dim=20)).to_json())
    said = refusal(training(clips, trained, "--stage", 2, "--codec", file))
    assert "stage2: is of a codec whose vocoder.dim is 16, not 20" in said
    said = refusal(training(clips, trained, "--stage", 1, "--codec", file))
    assert "stage1: this run has codec.vocoder.dim 16, not 20" in said
    shutil.copytree(trained / "stage1", tmp_path / "stage1")
    done = training(clips, tmp_path, "--stage", 2, "--codec", file, "--columns", 6)
    assert done.exit_code == 0, done.output
    assert Checkpoint(tmp_path / "stage2").codec.vocoder.dim == 20
    shutil.rmtree(tmp_path / "stage2")
    file.write_text(replace(SMALL, tokenizer=replace(SMALL.tokenizer, codebook_dim=9)).to_json())
    said = refusal(training(clips, tmp_path, "--stage", 2, "--codec", file))
    assert "stage1: is of a codec whose tokenizer.codebook_dim is 8, not 9" in said


def test_a_vocoder_of_another_codec_is_refused(clips: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "stage1", tmp_path / "stage1")
    other = stage_2(codec=replace(SMALL, vocoder=replace(SMALL.vocoder, dim=20)))
    train_to(0, other, AudioCache(clips / "cache"), tmp_path / "vocoder")
    said = refusal(training(clips, tmp_path, "--stage", 2))
    assert "vocoder: is of a codec whose vocoder.dim is 20, not 16" in said


@pytest.mark.slow
def test_checkpoints_that_are_none_of_this_run(clips: Path, trained: Path, tmp_path: Path) -> None:
    assert "run --stage 1 first" in refusal(training(clips, tmp_path, "--stage", 2))
    shutil.copytree(trained / "vocoder", tmp_path / "stage2")
    said = refusal(training(clips, tmp_path, "--stage", 2))
    assert "stage2: a checkpoint of another stage: vocoder, not stage2" in said
    assert "vocoder, not stage2" in refusal(exporting(tmp_path, tmp_path / "x.safetensors"))
    shutil.copytree(trained / "stage2", tmp_path / "stage1")
    said = refusal(training(clips, tmp_path, "--stage", 1))
    assert "stage1: a checkpoint of another stage: stage2, not stage1" in said
    shutil.rmtree(tmp_path / "stage2")
    assert "stage2, not stage1" in refusal(training(clips, tmp_path, "--stage", 2))
    shutil.rmtree(tmp_path / "stage1")
    shutil.copytree(trained / "stage1", tmp_path / "stage1")
    index = tmp_path / "stage1" / "checkpoint.json"
    whole = index.read_text()
    for text in (whole[:-99], "words", "[1, 2]", "{}", whole.replace('"format": 1', '"format": 9')):
        index.write_text(text)
        said = refusal(training(clips, tmp_path, "--stage", 1))
        assert "stage1: " in said
        assert "not a checkpoint" in said or "another version" in said


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_saves_first(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    step = Stage1.step

    def stopped(recipe: Stage1, *arguments: Any) -> Any:
        if int(recipe.ema_codebook.seen) == 1:
            signal.raise_signal(number)
        return step(recipe, *arguments)

    monkeypatch.setattr(Stage1, "step", stopped)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    done = training(clips, tmp_path, "--stage", 1, "--config", settings(tmp_path))
    assert done.exit_code == status, done.output
    assert "the same command resumes it" in done.stderr
    assert Checkpoint(tmp_path / "stage1").step == 2
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize(
    ("option", "content", "words"),
    [
        ("--licences", "", "a table is needed, with columns called package and licences"),
        ("--licences", "package,version\na,1\n", "a table is needed, with columns"),
        ("--licences", "package,licences\na\n", "each row must have as many cells"),
        ("--licences", "package,licences\na,b,c\n", "each row must have as many cells"),
        ("--scorecard", "{", "cannot read the scorecard"),
        ("--scorecard", "[]", "not a scorecard.json"),
        ("--scorecard", '{"table": []}', "not a scorecard.json"),
    ],
)
def test_tables_that_no_card_can_be_made_of(
    trained: Path, tmp_path: Path, option: str, content: str, words: str
) -> None:
    file = tmp_path / "table"
    file.write_text(content)
    target = tmp_path / "x.safetensors"
    for wrong in (file, tmp_path / "absent"):
        said = refusal(exporting(trained, target, option, wrong))
        assert f"error: {wrong}: " in said
        assert words in said or "cannot read the" in said
    assert list(tmp_path.iterdir()) == [file]


def test_what_an_export_refuses(trained: Path, tmp_path: Path) -> None:
    said = refusal(exporting(tmp_path, tmp_path / "x.safetensors"))
    assert "stage2: cannot read the checkpoint" in said
    assert "must end in .safetensors" in refusal(exporting(trained, tmp_path / "x"))
    assert not list(tmp_path.iterdir())


def test_an_export_replaces_nothing_unless_told(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    assert exporting(trained, target).exit_code == 0
    before = files_of(tmp_path)
    assert "a.safetensors exists: use --force" in refusal(exporting(trained, target))
    assert before == files_of(tmp_path)
    card = tmp_path / "b.md"
    card.write_text("written by hand")
    assert "b.md exists: use --force" in refusal(exporting(trained, tmp_path / "b.safetensors"))
    assert before | {"b.md": card.read_bytes()} == files_of(tmp_path)
    done = exporting(trained, target, "--force", "--json")
    assert done.exit_code == 0, done.output
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    assert json.loads(done.stdout) == {"weights": str(target), "sha256": digest}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give either --onnx or --weights"),
        (("--onnx", "graphs", "--weights", "a.safetensors"), "give either --onnx or --weights"),
        (("--weights", "a.safetensors"), "give the folder of a training run"),
        (("RUN", "--weights", "a.safetensors", "--ort"), "--ort goes with --onnx"),
        (("--onnx", "graphs", "--griffin-lim-steps", 0), "go with --weights"),
    ],
)
def test_wrong_usage_of_export(arguments: tuple[object, ...], words: str) -> None:
    done = melcap_("export", *arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.replace("│", "").split())


@pytest.mark.slow
def test_more_griffin_lim_steps_than_in_training(trained: Path, tmp_path: Path) -> None:
    """The weights are the same, and only the configuration differs."""
    codecs = []
    for name, more in (("a", ()), ("b", ("--griffin-lim-steps", 7))):
        done = exporting(trained, tmp_path / f"{name}.safetensors", *more)
        assert done.exit_code == 0, done.output
        codecs.append(melcap.load(tmp_path / f"{name}.safetensors"))
    as_trained, longer = codecs
    assert as_trained.config == SMALL
    assert longer.config == replace(SMALL, vocoder=replace(SMALL.vocoder, griffin_lim_steps=7))
    for (name, value), (other, found) in zip(
        as_trained.state_dict().items(), longer.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(value, found)


@pytest.mark.slow
def test_training_goes_on_with_as_many_steps_as_it_always_had(
    trained: Path, clips: Path, tmp_path: Path
) -> None:
    """The number of Griffin-Lim steps is no part of the weights.

    With constant phase training runs through all of them.
    """
    weights = tmp_path / "a.safetensors"
    assert exporting(trained, weights, "--griffin-lim-steps", 9).exit_code == 0
    for stage, steps in (("--from-mels", 4), ("--no-from-mels", 4), ("--constant-phase", 9)):
        out = tmp_path / f"out{stage}"
        done = training(clips, out, "--stage", 2, "--weights", weights, "--columns", 6, stage)
        assert done.exit_code == 0, done.output
        (path,) = (index.parent for index in out.glob("*/checkpoint.json"))
        vocoder = replace(SMALL.vocoder, griffin_lim_steps=steps)
        assert Checkpoint(path).codec == replace(SMALL, vocoder=vocoder)
