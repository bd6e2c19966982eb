"""The training loop: batches ahead, compiling, logs, and the ways in which a run may end."""

from __future__ import annotations

import importlib
import json
import math
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from melcap.errors import MelcapError
from melcap.training import logs
from melcap.training.audio_cache import AudioCache
from melcap.training.checkpoint import Checkpoint
from melcap.training.crops import Batches, CropSampler
from melcap.training.loop import LoopOptions, train
from melcap.training.recipe import Recipe
from melcap.training.stage1 import Stage1
from melcap.training.stage2 import Stage2
from tests.helpers import SMALL
from tests.training.helpers import (
    cache_of_clips,
    files_of,
    flat,
    joint_stage,
    stage_1,
    stage_2,
    states_of,
    tokenizer,
    train_to,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> AudioCache:
    return cache_of_clips(tmp_path_factory.mktemp("data"))


@pytest.mark.slow
@given(st.integers(0, 6), st.integers(1, 5), st.integers(0, 99))
def test_batches_ahead_are_those_of_the_sampler(
    cache: AudioCache, count: int, ahead: int, seed: int
) -> None:
    """The state is that after the last batch given, however many are ready."""
    plain = CropSampler(cache, 500, 2, seed)
    expected = [plain.next() for _ in range(count + 3)]
    sampler = CropSampler(cache, 500, 2, seed)
    with Batches(sampler, "cpu", ahead) as batches:
        found = [batches.next() for _ in range(count)]
        state = batches.state
    resumed = CropSampler(cache, 500, 2, seed + 1)
    resumed.load_state_dict(state)
    with Batches(resumed, "cpu", ahead) as batches:
        found += [batches.next() for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert sampler.state_dict() == state
    assert resumed.state_dict() == plain.state_dict()


def test_what_fails_while_a_batch_is_prepared_is_raised(
    cache: AudioCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = CropSampler(cache, 500, 2, 0)
    monkeypatch.setattr(sampler, "cache", None)
    with Batches(sampler, "cpu") as batches, pytest.raises(AttributeError):
        batches.next()


FEW_LAYERS = replace(
    SMALL,
    tokenizer=replace(
        SMALL.tokenizer, channels=(6, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1)
    ),
    vocoder=replace(SMALL.vocoder, griffin_lim_steps=2),
)
"""A codec that compiles in seconds; it has every kind of layer, too."""


def in_two_pieces(**settings: Any) -> Stage2:
    recipe = stage_2(discriminators=2, **settings)
    recipe.accumulate = 2
    return recipe


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made_of", "backend", "graphs"),
    [
        (partial(stage_1, codebook_warmup=3), "aot_eager", 2),
        # Two discriminators have a graph each for targets, detached outputs and outputs.
        (partial(stage_2, discriminators=2), "eager", 3 + 2 * 3),
        # The codec has one more, for passes without a gradient.
        (in_two_pieces, "eager", 4 + 2 * 3),
        (partial(stage_2, constant_phase=True), "aot_eager", 3),
        # Encoder, mel decoder, vocoder, losses, and the one discriminator as above.
        (
            partial(joint_stage, discriminators=2, discriminator_kind="magnitudes"),
            "aot_eager",
            4 + 3,
        ),
    ],
)
@pytest.mark.usefixtures("few_discriminators", "few_scales")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_compiled_training_is_the_same_training(
    cache: AudioCache, tmp_path: Path, made_of: Callable[..., Recipe], backend: str, graphs: int
) -> None:
    """Figures, names, weights and averages agree, and an uncompiled run is resumed.

    Networks and losses are compiled as a few graphs, not layer by layer, and only once.
    """
    made_of = partial(made_of, codec=FEW_LAYERS, columns=4, warmup=1)
    paths = [tmp_path / name / "run" for name in ("plain", "compiled")]
    train_to(2, made_of(), cache, paths[0], log_every=1)
    shutil.copytree(paths[0].parent, paths[1].parent)
    made: list[int] = []

    def counted(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        made.append(len(graph.graph.nodes))
        compiled: Callable[..., Any] = torch._dynamo.lookup_backend(backend)(graph, inputs)
        return compiled

    for path in paths:
        torch.manual_seed(0)
        recipe = made_of()
        if path == paths[1]:
            torch._dynamo.reset()
            recipe.compile(counted)  # type: ignore[arg-type]
        train_to(4, recipe, cache, path, log_every=1)
    assert len(made) == graphs
    assert not torch._dynamo.utils.counters["graph_break"]
    expected, found = (flat(states_of(path)) for path in paths)
    assert expected.keys() == found.keys()
    assert any(name.startswith(".averages") for name in found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
    plain, compiled = (
        json.loads(path.with_suffix(".jsonl").read_text().splitlines()[-1]) for path in paths
    )
    for name in plain.keys() - {"minutes", "processor_minutes", "audio_seconds_per_second"}:
        assert compiled[name] == pytest.approx(plain[name], rel=1e-4, abs=1e-5), name


def events(folder: Path) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), {"images": 0, "audio": 0, "scalars": 0})
    return found.Reload()


@pytest.mark.slow
def test_tensorboard_goes_on_where_the_run_does(cache: AudioCache, tmp_path: Path) -> None:
    path = tmp_path / "vocoder"
    train_to(4, stage_2(), cache, path, log_every=2, picture_minutes=1e9)
    time.sleep(1)  # TensorBoard sorts its files by the second, then by a number, as words: 10, 9
    train_to(6, stage_2(), cache, path, log_every=2, picture_minutes=1e9)
    found = events(tmp_path / "tensorboard" / "vocoder")
    rows = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    kept = {"rate", "minutes", "audio_seconds_per_second"}
    names = {f"figures/{name}" for name in rows[0].keys() - kept - {"step"}}
    progress = {f"progress/{name}" for name in kept}
    assert {"figures/stft", "figures/mel", "figures/gradient"} <= names
    assert set(found.Tags()["scalars"]) == names | progress
    for name in names | progress:
        scalars = found.Scalars(name)
        assert [scalar.step for scalar in scalars] == [2, 4, 6]
        values = [row[name.partition("/")[2]] for row in rows]
        assert [scalar.value for scalar in scalars] == pytest.approx(values)
    assert 0 < rows[0]["rate"] < rows[2]["rate"] < 1e-3
    assert set(found.Tags()["images"]) == {
        f"{label}/before and after" for label in ("music", "sound", "speech")
    }
    pictures = found.Images("speech/before and after")
    assert [picture.step for picture in pictures] == [1, 4, 5, 6]
    assert pictures[0].height == 2 * logs.MEL.n_mels + 2
    heard = found.Audio("speech/after")
    assert [audio.step for audio in heard] == [1, 4, 5, 6]
    assert heard[0].sample_rate == 44100
    assert heard[0].length_frames == logs.EXAMPLE_COLUMNS * SMALL.column_samples


def test_stage_1_shows_pictures_and_no_audio(cache: AudioCache, tmp_path: Path) -> None:
    train_to(2, stage_1(codebook_warmup=1), cache, tmp_path / "stage1", picture_minutes=9)
    tags = events(tmp_path / "tensorboard" / "stage1").Tags()
    assert len(tags["images"]) == 3
    assert not tags["audio"]


def test_no_pictures_where_none_are_wanted(cache: AudioCache, tmp_path: Path) -> None:
    path = tmp_path / "stage1"
    train_to(2, stage_1(codebook_warmup=1), cache, path, log_every=1, picture_minutes=math.inf)
    tags = events(tmp_path / "tensorboard" / "stage1").Tags()
    assert not tags["images"]
    assert tags["scalars"]


def test_without_tensorboard_there_are_the_lines(
    cache: AudioCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    train_to(2, stage_2(), cache, tmp_path / "vocoder", log_every=1, picture_minutes=0)
    assert not (tmp_path / "tensorboard").exists()
    assert len((tmp_path / "vocoder.jsonl").read_text().splitlines()) == 2
    assert 'pip install "melcap[train]"' in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_was_killed_logs_no_step_twice(cache: AudioCache, tmp_path: Path) -> None:
    path = tmp_path / "vocoder"
    train_to(4, stage_2(), cache, path, log_every=2)
    lines = path.with_suffix(".jsonl")
    written = lines.read_text()
    lines.write_text(written + '{"step": 6, "mel": 1}\n{"step": 8, "m')
    train_to(6, stage_2(), cache, path, log_every=2)
    found = lines.read_text()
    assert found.startswith(written)
    assert [json.loads(line)["step"] for line in found.splitlines()] == [2, 4, 6]


@pytest.mark.parametrize("made_of", [stage_1, stage_2, lambda **s: stage_2(tokenizer(), **s)])
def test_pictures_show_what_is_trained(cache: AudioCache, made_of: Any) -> None:
    """`reconstruct` returns exactly what a step compares, for the same columns."""
    torch.manual_seed(0)
    recipe = made_of(columns=6)
    assert recipe.samples_for(6) == recipe.samples
    wave = CropSampler(cache, recipe.samples, 2, 0).next()
    before, after = recipe.reconstruct(wave, 6)
    assert before.shape == after.shape
    assert not after.requires_grad
    figures = recipe.step(wave)
    if isinstance(recipe, Stage1):
        distance = torch.nn.functional.l1_loss(after, before)
        torch.testing.assert_close(distance, figures["mel_l1"].detach())
    else:
        for name, distance in recipe._spectral(after, before).items():
            torch.testing.assert_close(distance, figures[name].detach())


def test_a_picture_is_loud_where_the_sound_is() -> None:
    time = torch.arange(44100) / 44100
    low, high = (0.5 * torch.sin(2 * math.pi * hertz * time) for hertz in (200, 8000))
    shown = logs.picture(low, high, SMALL.mel).astype(int).sum(-1)
    bins = logs.MEL.n_mels
    assert shown.shape[0] == 2 * bins + 2
    rows = shown[:, 20:-20].mean(1)
    assert bins * 0.8 < rows[:bins].argmax() < bins, "low frequencies lie below"
    assert rows[bins + 2 :].argmax() < bins * 0.4


class Broken(Stage1):
    """A recipe of which a figure, or a weight, is not finite from the third step on."""

    what = "figure"

    def step(self, wave: Tensor) -> dict[str, Tensor]:
        figures = super().step(wave)
        if int(self.ema_codebook.seen) >= 3 and self.what == "figure":
            figures["mel_l1"] = figures["mel_l1"] * float("nan")
        elif int(self.ema_codebook.seen) >= 3:
            with torch.no_grad():
                next(self.decoder.parameters()).view(-1)[0] = float("inf")
        return figures


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "words"),
    [("figure", "mel_l1 became nan"), ("weight", r"decoder\.\S+ is not finite at step 3")],
)
def test_a_run_that_diverges_stops_and_keeps_the_last_checkpoint(
    cache: AudioCache, tmp_path: Path, what: str, words: str
) -> None:
    path = tmp_path / "stage1"
    recipe = Broken(stage_1().config)
    recipe.what = what
    with pytest.raises(MelcapError, match=f"{words}.*nothing was saved before.*lower --rate"):
        train_to(3, recipe, cache, path)
    recipe = Broken(stage_1().config)
    recipe.what = what
    train_to(2, recipe, cache, path)
    saved = files_of(path)
    with pytest.raises(MelcapError, match=f"{words}.*the checkpoint of step 2 is still there"):
        train_to(3, recipe, cache, path)
    assert files_of(path) == saved
    train_to(4, stage_1(), cache, path)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Make writing beyond so many bytes fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_no_checkpoint(
    cache: AudioCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs.TrainingLog, "examples", lambda *_: None)  # would be cut short first
    path = tmp_path / "stage1"
    recipe = stage_1()
    train_to(2, recipe, cache, path)
    saved = files_of(path)
    with (
        files_of_at_most(max(map(len, saved.values())) - 1),
        pytest.raises(
            MelcapError, match=r"stage1: the checkpoint of step 3 cannot be.*of step 2 is still"
        ) as caught,
    ):
        train_to(3, recipe, cache, path)
    assert "\n" not in str(caught.value)
    assert files_of(path) == saved
    assert {file.name for file in tmp_path.iterdir()} == {"stage1", "tensorboard"}


def test_opening_the_log_takes_no_time_of_a_session(
    cache: AudioCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first import of TensorBoard takes longer than a short session lasts."""
    opened = logs.TrainingLog.__init__

    def slowly(self: logs.TrainingLog, *arguments: Any) -> None:
        time.sleep(0.3)
        opened(self, *arguments)

    monkeypatch.setattr(logs.TrainingLog, "__init__", slowly)
    recipe, path = stage_1(), tmp_path / "stage1"
    sampler = CropSampler(cache, recipe.samples, recipe.config.batch, seed=0)
    train(recipe, sampler, path, LoopOptions(minutes=0.2 / 60))
    assert Checkpoint(path).step > 0
