"""Both stages train, resume exactly, and export a codec that works."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from melcap.codec import Codec
from melcap.model.layers import Down2d, Up2d
from melcap.model.quantizer import Codebook
from melcap.training.audio_cache import AudioCache
from melcap.training.checkpoint import Checkpoint
from melcap.training.crops import CropSampler
from melcap.training.ema_codebook import EmaCodebook
from melcap.training.recipe import Recipe
from melcap.training.run import RunOptions, run_session
from melcap.training.stage1 import Stage1
from tests.helpers import SMALL, noise
from tests.training.helpers import (
    DATA,
    cache_of_clips,
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


def steps(recipe: Recipe, cache: AudioCache, count: int) -> list[dict[str, float]]:
    sampler = CropSampler(cache, recipe.samples, 2, seed=0)
    for optimiser in recipe.optimisers().values():
        for group in optimiser.param_groups:
            group["lr"] = 1e-2
    rows = [recipe.step(sampler.next()) for _ in range(count)]
    return [{name: float(value.detach()) for name, value in row.items()} for row in rows]


def mean(rows: list[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


@pytest.mark.slow
def test_stage_1_learns(cache: AudioCache) -> None:
    torch.manual_seed(0)
    recipe = stage_1(codebook_warmup=10)
    rows = steps(recipe, cache, 50)
    assert mean(rows[-5:], "loudness_l1") < 0.7 * mean(rows[:5], "loudness_l1")
    assert rows[9]["codes_in_batch"] == 0
    assert rows[-1]["codes_in_batch"] > 16
    before = recipe.encoder[2].conv.weight.clone()
    steps(recipe, cache, 1)
    assert not torch.equal(before, recipe.encoder[2].conv.weight), "no gradient passes the codebook"


@pytest.mark.slow
@pytest.mark.usefixtures("few_scales")
def test_stage_2_learns_from_mels_and_from_tokens(cache: AudioCache) -> None:
    torch.manual_seed(0)
    for recipe in (stage_2(columns=2), stage_2(tokenizer(), columns=2)):
        rows = steps(recipe, cache, 20)
        again = steps(recipe, cache, 5)  # the same crops as at first
        before, after = (mean(part, "stft") + mean(part, "mel") for part in (rows[:5], again))
        assert after < 0.85 * before


SPECTRAL = ("stft_weight", "mel_weight", "texture_weight", "complex_weight", "phase_weight")


@pytest.mark.parametrize("alone", [*SPECTRAL, None])
def test_each_spectral_loss_of_stage_2_counts(alone: str | None) -> None:
    weights = dict.fromkeys(SPECTRAL, 0.0)
    recipe = stage_2(**(weights | ({alone: 1.0} if alone else {})))
    gradient = recipe.step(noise(2, recipe.samples))["gradient"]
    assert (gradient > 0) == (alone is not None)


def test_stage_1_learns_texture_and_from_a_discriminator(cache: AudioCache) -> None:
    """Each of them moves the encoder in its own direction; the discriminator is trained."""
    moved = []
    for settings in ({}, {"texture_weight": 1.0}, {"discriminators": 2, "columns": 16}):
        torch.manual_seed(0)
        recipe = stage_1(**{"columns": 16, "codebook_warmup": 0, **settings})
        discriminators = recipe.modules().get("discriminators")
        before = [value.clone() for value in discriminators.parameters()] if discriminators else []
        figures = recipe.step(noise(2, recipe.samples))
        moved.append(torch.cat([value.flatten() for value in recipe.encoder.parameters()]))
        assert ("texture" in figures) == ("texture_weight" in settings)
        if discriminators:
            assert {"discriminator", "adversarial", "features"} <= figures.keys()
            assert any(
                not torch.equal(a, b)
                for a, b in zip(discriminators.parameters(), before, strict=True)
            )
    assert not torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[0], moved[2])


def test_unit_latents_and_their_codes_are_directions(cache: AudioCache) -> None:
    codec = replace(SMALL, tokenizer=replace(SMALL.tokenizer, unit_latents=True))
    for warmup in (0, 2):  # codes drawn at random, or by k-means
        torch.manual_seed(0)
        recipe = stage_1(codec=codec, codebook_warmup=warmup)
        steps(recipe, cache, 4)
        with torch.no_grad():
            latents = recipe.encoder(recipe.front(noise(1, recipe.samples)))
        lengths = torch.cat([latents.square().mean(1).flatten(), lengths_of_codes(recipe)])
        assert (lengths - 1).abs().max() < 1e-5


def lengths_of_codes(recipe: Stage1) -> Tensor:
    return recipe.codebook.vectors.square().mean(1)


@pytest.mark.slow
@pytest.mark.usefixtures("few_discriminators", "few_scales")
def test_stage_2_leaves_encoder_and_codebook_alone(cache: AudioCache) -> None:
    torch.manual_seed(0)
    recipe = stage_2(tokenizer(), discriminators=4)
    frozen = {
        name: value.clone()
        for part in ("encoder", "codebook")
        for name, value in recipe.modules()[part].state_dict(prefix=f"{part}.").items()
    }
    moving = {k: v.clone() for k, v in recipe.modules()["decoder"].state_dict().items()}
    discriminators = {
        k: v.clone() for k, v in recipe.modules()["discriminators"].state_dict().items()
    }
    rows = steps(recipe, cache, 2)
    assert {"discriminator", "adversarial", "features"} <= rows[-1].keys()
    for name, value in frozen.items():
        part, _, key = name.partition(".")
        assert torch.equal(recipe.modules()[part].state_dict()[key], value), name
    for before, part in ((moving, "decoder"), (discriminators, "discriminators")):
        after = recipe.modules()[part].state_dict()
        assert any(not torch.equal(after[key], value) for key, value in before.items()), part


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_a_run_starts_from_trained_weights(
    small_weights: Path, codec: Codec, tmp_path: Path, stage: int
) -> None:
    options = RunOptions(
        sources=[DATA],
        out=tmp_path,
        settings={"stage": stage},
        minutes=0,
        weights=str(small_weights),
    )
    run_session(options)
    found = Checkpoint(tmp_path / f"stage{stage}").modules
    tokenizer = found["ema_codebook"] if stage == 1 else found["codebook"]
    assert torch.equal(
        tokenizer["codebook.vectors" if stage == 1 else "vectors"], codec.codebook.vectors
    )
    for name in ("encoder", "decoder") if stage == 1 else ("encoder", "decoder", "vocoder"):
        for key, value in codec.get_submodule(name).state_dict().items():
            assert torch.equal(found[name][key], value), (name, key)


def moved(quantiser: EmaCodebook, latents: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Quantise latents and move the codebook; return both results and the tokens."""
    quantised, commitment, coded = quantiser(latents)
    quantiser.move([coded])
    return quantised, commitment, coded.tokens


def test_a_trained_codebook_needs_no_warm_up() -> None:
    vectors = noise(64, 4, amplitude=5)
    quantiser = EmaCodebook(Codebook(64, 4), warmup=10)
    quantiser.start_from(vectors)
    points = vectors[torch.arange(256) % 64] + 0.01
    _, commitment, codes = moved(quantiser, points.T.reshape(1, 4, 16, 16))
    assert codes is not None
    assert codes.tolist() == [index % 64 for index in range(256)]
    assert float(commitment) < 1e-3
    assert float((quantiser.codebook.vectors - vectors).abs().max()) < 0.01


def test_a_codebook_goes_on_from_the_state_that_it_is_given() -> None:
    trained, fresh = (EmaCodebook(Codebook(8, 4), warmup=2) for _ in range(2))
    latents = noise(1, 4, 16, 16)
    for quantiser, batches in ((trained, 3), (fresh, 1)):
        for _ in range(batches):
            moved(quantiser, latents)
    fresh.load_state_dict(trained.state_dict())
    _, _, codes = moved(fresh, latents)
    assert codes is not None, "it warmed up anew"
    fresh.start_from(trained.codebook.vectors)
    assert moved(fresh, latents)[2] is not None
    early = EmaCodebook(Codebook(8, 4), warmup=2)
    fresh.load_state_dict(early.state_dict())
    assert moved(fresh, latents)[2] is None, "it did not warm up"


@pytest.mark.slow
@pytest.mark.usefixtures("few_discriminators", "few_scales")
def test_discriminators_see_a_part_that_moves(
    cache: AudioCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = stage_2(columns=6, discriminators=2, discriminator_columns=2)
    seen: list[tuple[Tensor, Tensor]] = []
    assert recipe.adversarial is not None
    update = recipe.adversarial.discriminator_step

    def watched(pieces: Iterable[tuple[Tensor, Tensor]], bf16: bool) -> Tensor:
        (piece,) = pieces
        seen.append(piece)
        return update([piece], bf16)

    monkeypatch.setattr(recipe.adversarial, "discriminator_step", watched)
    sampler = CropSampler(cache, recipe.samples, 2, seed=0)
    batches = [sampler.next() for _ in range(3)]
    torch.manual_seed(0)
    for wave in batches:
        recipe.step(wave)
    starts = []
    for wave, (made, target) in zip(batches, seen, strict=True):
        assert made.shape == target.shape == (2, 2 * SMALL.column_samples)
        windows = wave[0, recipe._target].unfold(0, target.shape[1], 1)
        starts.append(int((windows == target[0]).all(1).nonzero()[0, 0]))
    assert len(set(starts)) == 3


def middle_of_what_it_sees(output: Tensor, wave: Tensor) -> float:
    """Return the centre of the samples that `output` depends on."""
    (gradient,) = torch.autograd.grad(output.sum(), wave, retain_graph=True)
    seen = gradient.abs().sum(0).nonzero()
    return float(seen[0] + seen[-1]) / 2


def test_output_and_target_of_stage_1_stand_for_the_same_frames() -> None:
    torch.manual_seed(0)
    recipe = stage_1()
    wave = torch.randn(1, recipe.samples, requires_grad=True)
    mel = recipe.front(wave)
    made = recipe.decoder(recipe.encoder(mel))[..., recipe._output]
    target = mel[..., recipe._target]
    assert made.shape == target.shape
    patch = SMALL.tokenizer.patch_frames
    for first in (0, 3 * patch):
        part = slice(first, first + patch)
        seen = middle_of_what_it_sees(made[..., part], wave)
        assert abs(seen - middle_of_what_it_sees(target[..., part], wave)) <= 2


def test_output_and_target_of_stage_2_are_the_same_samples() -> None:
    torch.manual_seed(0)
    recipe = stage_2()
    wave = torch.randn(1, recipe.samples, requires_grad=True)
    made = recipe.vocoder(recipe.front(wave))[..., recipe._output]
    target = wave[..., recipe._target]
    assert made.shape == target.shape
    column = SMALL.column_samples
    for first in (0, column):
        part = slice(first, first + column)
        seen = middle_of_what_it_sees(made[..., part], wave)
        assert abs(seen - middle_of_what_it_sees(target[..., part], wave)) <= 2


def first_stage() -> Recipe:
    return stage_1(codebook_warmup=3, warmup=2)  # the averages begin with the third step


def second_stage() -> Recipe:
    return stage_2(tokenizer(), discriminators=2, warmup=1)


def last_stage() -> Recipe:
    return joint_stage(discriminators=2, discriminator_kind="magnitudes", warmup=1)


@pytest.mark.slow
@pytest.mark.usefixtures("few_discriminators", "few_scales")
@pytest.mark.parametrize(
    ("stage", "stops", "end"),
    [(first_stage, (1, 3, 4), 6), (second_stage, (2,), 4), (last_stage, (2,), 4)],
    ids=["first_stage", "second_stage", "last_stage"],
)
def test_training_resumes_exactly(
    cache: AudioCache,
    tmp_path: Path,
    stage: Callable[[], Recipe],
    stops: tuple[int, ...],
    end: int,
) -> None:
    """Weights, averages and optimisers come back to the bit, wherever a run was stopped.

    That is during the warm-up of the codebook, just before its start and after it, and between two
    steps of a GAN. Pictures in one of the two runs alone change nothing, and the batches that were
    ready when it stopped come again.
    """

    def run(folder: str, ends: tuple[int, ...]) -> dict[str, Tensor]:
        path = tmp_path / folder / "stage"
        path.parent.mkdir()
        for count in ends:
            torch.manual_seed(0)
            recipe = stage()
            shown = 0.0 if folder == "whole" else math.inf
            train_to(count, recipe, cache, path, picture_minutes=shown)
        return flat(states_of(path))

    whole, parts = run("whole", (end,)), run("parts", (*stops, end))
    assert whole.keys() == parts.keys()
    assert any("averages" in name and name.endswith("weight") for name in whole)
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


@pytest.mark.slow
@pytest.mark.usefixtures("few_discriminators", "few_scales")
def test_discriminators_join_a_run_later(cache: AudioCache, tmp_path: Path) -> None:
    path, vocoders = tmp_path / "vocoder", []
    for width, steps in ((0, 3), (2, 3), (2, 4)):
        recipe = stage_2(discriminators=width)
        train_to(steps, recipe, cache, path)
        vocoders.append(recipe.vocoder.state_dict())
    assert all(torch.equal(vocoders[1][key], value) for key, value in vocoders[0].items())
    assert "discriminators" in states_of(path)["optimisers"]


@pytest.mark.slow
def test_what_is_exported_is_the_average(cache: AudioCache, tmp_path: Path) -> None:
    recipe, path = stage_2(warmup=2, average=0.2), tmp_path / "vocoder"
    seen = []
    for steps in range(1, 6):
        train_to(steps, recipe, cache, path)
        seen.append(Checkpoint(path).modules["vocoder"])
        if steps <= 2:
            found = Checkpoint(path).exported()["vocoder"]
            assert all(torch.equal(found[key], value) for key, value in seen[-1].items())
    found = Checkpoint(path).exported()["vocoder"]
    for key, first in seen[2].items():
        second = first + (seen[3][key] - first) * 9 / 11  # two of eleven: it has just begun
        expected = 0.2 * second + 0.8 * seen[4][key]
        torch.testing.assert_close(found[key], expected)
    assert not torch.equal(found["0.conv.weight"], seen[-1]["0.conv.weight"])


@pytest.mark.slow
@pytest.mark.usefixtures("few_discriminators")
@pytest.mark.parametrize("stage", [first_stage, second_stage, last_stage])
def test_a_step_in_bfloat16(cache: AudioCache, stage: Callable[[], Recipe]) -> None:
    """The figures are near those of float32, and gradients reach all that is trained."""
    figures = []
    for bf16 in (False, True):
        torch.manual_seed(0)
        recipe = stage()
        recipe.bf16 = bf16
        dtypes: set[torch.dtype] = set()
        for module in recipe.averaged().values():
            kinds = (Down2d, Up2d, nn.Conv1d)
            layer = next(part for part in module.modules() if isinstance(part, kinds))
            layer.register_forward_hook(lambda *call, into=dtypes: into.add(call[2].dtype))
        figures.append(steps(recipe, cache, 1)[0])
        assert dtypes == {torch.bfloat16 if bf16 else torch.float32}
        for module in recipe.averaged().values():
            for name, parameter in module.named_parameters():
                assert parameter.dtype == torch.float32
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name
    assert figures[0].keys() == figures[1].keys()
    for name in {"mel_l1", "stft", "mel", "discriminator"} & figures[0].keys():
        assert figures[1][name] == pytest.approx(figures[0][name], rel=0.03), name


@pytest.mark.slow
def test_the_log_is_a_line_of_json_each_time(cache: AudioCache, tmp_path: Path) -> None:
    train_to(4, stage_2(), cache, tmp_path / "vocoder", log_every=2)
    rows = [json.loads(line) for line in (tmp_path / "vocoder.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[0]["audio_seconds_per_second"] > 0


@pytest.mark.slow
def test_codebook_follows_clusters_and_restarts_dead_codes() -> None:
    torch.manual_seed(0)
    centres = torch.randn(16, 4) * 5
    quantiser = EmaCodebook(Codebook(64, 4), warmup=2)

    def batch() -> Tensor:
        points = centres[torch.randint(16, (256,))] + 0.01 * torch.randn(256, 4)
        return points.T.reshape(1, 4, 16, 16)

    for _ in range(2):
        passed, commitment, codes = moved(quantiser, batch())
        assert codes is None
        assert float(commitment) == 0
    moved(quantiser, batch())
    for part in (quantiser.codebook.vectors, quantiser.total):
        part[5] = 1e3
    for _ in range(500):
        passed, commitment, codes = moved(quantiser, batch())
    assert codes is not None
    assert float(quantiser.codebook.vectors.abs().max()) < 100, "a dead code was never restarted"
    assert float(torch.cdist(centres, quantiser.codebook.vectors).amin(1).max()) < 0.1
    assert float(commitment) < 1e-3
    assert passed.shape == (1, 4, 16, 16)
