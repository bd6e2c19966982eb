"""The joint stage trains every part of a codec, slowly where tokens are made."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from melcap.codec import Codec
from melcap.errors import InputError
from melcap.model.stages import run
from melcap.pretrained import load
from melcap.training.audio_cache import AudioCache
from melcap.training.checkpoint import Checkpoint
from melcap.training.export import export_weights, trained_codec
from melcap.training.joint import Joint
from melcap.training.start import prepare
from tests.helpers import HALF, SMALL, noise
from tests.training.helpers import (
    cache_of_clips,
    flat,
    joint_stage,
    stage_1,
    stage_2,
    states_for_stage_2,
    states_of,
    tokenizer,
    train_to,
)
from tests.training.test_stages import middle_of_what_it_sees


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> AudioCache:
    return cache_of_clips(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(cache: AudioCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with a stage 1 and a stage 2 of its tokenizer."""
    out = tmp_path_factory.mktemp("trained")
    first = stage_1(codebook_warmup=0)
    train_to(2, first, cache, out / "stage1")
    train_to(2, stage_2(states_for_stage_2(first), warmup=1), cache, out / "stage2")
    return out


def parts_of(recipe: Joint) -> dict[str, Tensor]:
    return {
        "codebook": recipe.codebook.vectors.clone(),
        **{
            name: torch.cat([value.detach().flatten() for value in part.parameters()])
            for name, part in recipe.averaged().items()
        },
    }


def gradient_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.flatten()


def test_a_step_moves_every_part() -> None:
    torch.manual_seed(0)
    recipe = joint_stage()
    before = parts_of(recipe)
    assert before.keys() == {"codebook", "encoder", "decoder", "vocoder"}
    figures = recipe.step(noise(2, recipe.samples))
    assert {"stft", "mel", "texture", "commitment", "codes_in_batch", "gradient"} == figures.keys()
    assert figures["codes_in_batch"] >= 1
    for name, value in parts_of(recipe).items():
        assert not torch.equal(value, before[name]), name


def test_the_losses_of_the_wave_reach_the_encoder() -> None:
    """They do so without the commitment loss, which is the other one that does."""
    moved = {}
    for weight in (0.0, 1.0):
        for commitment in (0.0, 1.0):
            torch.manual_seed(0)
            spectral = dict.fromkeys(("stft_weight", "mel_weight", "texture_weight"), weight)
            recipe = joint_stage(commitment=commitment, **spectral)
            recipe.step(noise(2, recipe.samples))
            gradients = [gradient_of(value) for value in recipe.encoder.parameters()]
            moved[weight, commitment] = bool(torch.cat(gradients).any())
    assert moved == {(0.0, 0.0): False, (0.0, 1.0): True, (1.0, 0.0): True, (1.0, 1.0): True}


@pytest.mark.slow
@pytest.mark.parametrize("muon", [True, False])
def test_the_encoder_has_a_rate_of_its_own(cache: AudioCache, tmp_path: Path, muon: bool) -> None:
    """A share of 0 leaves it where it is, in a run that resumes too."""
    for share in (0.0, 0.25):
        path = tmp_path / f"{share}" / "joint"
        for step in (1, 2):
            torch.manual_seed(0)
            recipe = joint_stage(encoder_rate=share, muon=muon)
            before = parts_of(recipe)
            train_to(step, recipe, cache, path)
        after = parts_of(recipe)
        assert torch.equal(after["encoder"], before["encoder"]) == (share == 0)
        assert not torch.equal(after["decoder"], before["decoder"])
        rates = {
            name: {group["lr"] for group in optimiser.param_groups}
            for name, optimiser in recipe.optimisers().items()
        }
        kinds = ["", " matrices"] if muon else [""]
        assert len(rates) == 2 * len(kinds)
        for kind in kinds:
            (own,), (rest,) = rates[f"encoder{kind}"], rates[f"generator{kind}"]
            assert own == share * rest
    with pytest.raises(InputError, match=r"this run has encoder_rate 0\.25, not 0\.5"):
        train_to(3, joint_stage(encoder_rate=0.5, muon=muon), cache, path)


@pytest.mark.parametrize("codec", [SMALL, HALF])
def test_the_output_is_that_of_the_codec(codec: Any) -> None:
    """Crops have the layout of stage 2, and what they become is what the codec makes of them."""
    torch.manual_seed(0)
    states = states_for_stage_2(stage_1(codec=codec, codebook_warmup=0))
    recipe = joint_stage(codec=codec)
    recipe.encoder.load_state_dict(states["encoder"])
    frozen = stage_2(states, codec=codec, constant_phase=True)
    frozen.decoder.load_state_dict(recipe.decoder.state_dict())
    frozen.vocoder.load_state_dict(recipe.vocoder.state_dict())
    frozen.codebook.load_state_dict(recipe.codebook.state_dict())
    assert (recipe.samples, recipe._target, recipe._output) == (
        frozen.samples,
        frozen._target,
        frozen._output,
    )
    wave = noise(2, recipe.samples)
    target, made = recipe.reconstruct(wave, 6)
    assert target.shape == made.shape == (2, 6 * codec.column_samples)
    assert torch.equal(made, frozen.reconstruct(wave, 6)[1])
    with torch.no_grad():  # before the codebook moves
        found = recipe._made(wave)
    torch.testing.assert_close(found.wave, made, atol=1e-4, rtol=0)


@pytest.mark.parametrize("codec", [SMALL, HALF])
def test_picture_and_mel_stand_for_the_same_frames(codec: Any) -> None:
    torch.manual_seed(0)
    recipe = joint_stage(codec=codec, picture_weight=1.0)
    wave = torch.randn(1, recipe.samples, requires_grad=True)
    mel = recipe.front(wave)
    made = run(recipe._to_picture, recipe.encoder(mel))[..., recipe._picture]
    target = mel[..., recipe._mel]
    patch = codec.tokenizer.patch_frames
    assert made.shape == target.shape == (1, codec.mel.n_mels, 6 * patch)
    for first in (0, 5 * patch):
        part = slice(first, first + patch)
        seen = middle_of_what_it_sees(made[..., part], wave)
        assert abs(seen - middle_of_what_it_sees(target[..., part], wave)) <= 2


def test_the_loss_of_the_picture_counts_where_it_is_asked_for() -> None:
    found = []
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        recipe = joint_stage(picture_weight=weight)
        figures = recipe.step(noise(2, recipe.samples))
        assert ("picture" in figures) == bool(weight)
        found.append(parts_of(recipe))
    assert not torch.equal(found[0]["decoder"], found[1]["decoder"])


def test_the_codebook_begins_where_it_was_and_moves_slowly() -> None:
    torch.manual_seed(0)
    states = tokenizer()
    config = joint_stage().config
    recipe = Joint(config, states)
    assert torch.equal(recipe.codebook.vectors, states["codebook"]["vectors"])
    assert recipe.codebook is recipe.ema_codebook.codebook
    recipe.step(noise(2, recipe.samples))
    moved = (recipe.codebook.vectors - states["codebook"]["vectors"]).norm(dim=1)
    assert moved.max() > 1e-4
    assert (moved > 1e-5).float().mean() < 0.5, "entries that nothing is near to stay"
    never = Joint(replace(config, codebook_dead=0.0), states)
    never.step(noise(2, never.samples))
    assert never.codebook.vectors.isfinite().all()


def test_it_starts_from_stage_2_or_from_weights(
    trained: Path, small_weights: Path, codec: Codec, tmp_path: Path
) -> None:
    before = Checkpoint(trained / "stage2")
    start = prepare(trained, {"joint": True}, None, batch=3)
    recipe: Any = start.recipe
    assert start.checkpoint == trained / "joint"
    assert (recipe.config.batch, recipe.config.codec) == (3, SMALL)
    assert recipe.config.constant_phase
    assert start.history == before.records
    for part, state in before.exported().items():
        module = recipe.codebook if part == "codebook" else recipe.modules()[part]
        for name, value in state.items():
            assert torch.equal(module.state_dict()[name], value), (part, name)
    assert torch.equal(recipe.ema_codebook.codebook.vectors, before.modules["codebook"]["vectors"])

    start = prepare(tmp_path, {"joint": True}, str(small_weights), batch=3)
    recipe = start.recipe
    assert start.history == [{"recipe": "weights", "model": codec.model}]
    for part in ("encoder", "decoder", "vocoder"):
        for name, value in codec.get_submodule(part).state_dict().items():
            assert torch.equal(recipe.modules()[part].state_dict()[name], value), (part, name)
    assert torch.equal(recipe.codebook.vectors, codec.codebook.vectors)

    with pytest.raises(InputError, match="stage2: the joint stage begins either with it or with"):
        prepare(trained, {"joint": True}, str(small_weights), batch=3)
    with pytest.raises(InputError, match=r"stage2: does not exist; run --stage 2 first, or give"):
        prepare(tmp_path, {"joint": True}, None, batch=3)


def test_it_keeps_the_griffin_lim_steps_of_weights(tmp_path: Path) -> None:
    """Constant phase is the default here, so nothing is lost by all sixteen steps."""
    start = prepare(tmp_path, {"joint": True}, "default", batch=1)
    assert start.recipe.config.codec.vocoder.griffin_lim_steps == 16
    start = prepare(tmp_path, {"joint": True, "constant_phase": False}, "default", batch=1)
    assert start.recipe.config.codec.vocoder.griffin_lim_steps == 4


@pytest.mark.slow
def test_from_a_run_to_weights(
    cache: AudioCache, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The export is another tokenizer, says so, and reads its own tokens."""
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    export_weights(out, tmp_path / "before.safetensors")
    assert (tmp_path / "before.mel-decoder.safetensors").exists()
    assert "another tokenizer" not in capsys.readouterr().err
    settings = {"joint": True, "columns": 6, "warmup": 1, "rate": 1e-3}
    train_to(3, prepare(out, settings, None, batch=2).recipe, cache, out / "joint")
    assert trained_codec(out).recipe == "joint"
    assert trained_codec(out / "stage2").recipe == "stage2"
    with pytest.raises(InputError, match="stage1: a checkpoint of stage1, which is no whole codec"):
        trained_codec(out / "stage1")
    export_weights(out, tmp_path / "after.safetensors")
    said = capsys.readouterr().err
    assert "the joint stage made another tokenizer: these weights cannot read tokens from" in said
    assert not (tmp_path / "after.mel-decoder.safetensors").exists()
    before, after = (load(tmp_path / f"{name}.safetensors") for name in ("before", "after"))
    assert before.tokenizer_id != after.tokenizer_id
    card = (tmp_path / "after.md").read_text()
    assert "\n\nThe joint stage made another tokenizer:" in card
    assert f"`{after.tokenizer_id}`" in card
    assert "| joint stage | 3 | " in card
    assert "another tokenizer" not in (tmp_path / "before.md").read_text()
    state = Checkpoint(out / "joint").exported()
    vectors = state["ema_codebook"]["codebook.vectors"]
    torch.testing.assert_close(after.codebook.vectors, vectors, atol=1e-3, rtol=1e-3)
    for part in ("encoder", "decoder", "vocoder"):
        for name, value in after.get_submodule(part).state_dict().items():
            torch.testing.assert_close(value, state[part][name], atol=1e-3, rtol=1e-3)
    codes = after.encode(noise(1, 9000), 44100)
    assert after.decode(codes).shape == (1, 9000)


@pytest.mark.slow
def test_a_stage_2_that_went_on_is_told(cache: AudioCache, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    start = prepare(out, {"joint": True}, None, batch=2)
    train_to(1, start.recipe, cache, start.checkpoint, start.history)
    assert not prepare(out, {"joint": True}, None, batch=2).notes
    train_to(3, prepare(out, {"stage": 2}, None, batch=2).recipe, cache, out / "stage2")
    (note,) = prepare(out, {"joint": True}, None, batch=2).notes
    assert "joint goes on from what it began with" in note
    assert "stage2 is something else by now" in note


@pytest.mark.slow
@pytest.mark.usefixtures("few_discriminators", "few_scales")
@pytest.mark.parametrize("kind", ["waves", "magnitudes"])
@pytest.mark.parametrize("made_of", [joint_stage, stage_2])
def test_discriminators_of_either_kind_join_later(
    cache: AudioCache, tmp_path: Path, kind: str, made_of: Any
) -> None:
    """They do so with constant phase, and everything stays finite."""
    path = tmp_path / "run"
    train_to(1, made_of(constant_phase=True), cache, path)
    settings = {"discriminators": 2, "discriminator_kind": kind, "constant_phase": True}
    train_to(3, made_of(**settings), cache, path)
    assert all(value.isfinite().all() for value in flat(states_of(path)).values())
    names = {name.partition(".")[0] for name in Checkpoint(path).modules["discriminators"]}
    assert len(names) == {"waves": 2, "magnitudes": 1}[kind]
    assert Checkpoint(path).records[-1]["discriminator_kind"] == kind
    other = "waves" if kind == "magnitudes" else "magnitudes"
    with pytest.raises(InputError, match=f'discriminator_kind "{kind}", not "{other}"'):
        train_to(4, made_of(**settings | {"discriminator_kind": other}), cache, path)
