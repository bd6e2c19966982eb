"""Griffin-Lim steps with phases as constants give the same wave and another gradient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from melcap.codec import Codec
from melcap.config import VocoderConfig
from melcap.errors import InputError
from melcap.model.griffin_lim import FirstGuess, GriffinLim, Unfold
from melcap.model.stages import inputs_for, run
from melcap.model.vocoder import vocoder
from melcap.pretrained import save
from melcap.training.config import TrainingConfig
from melcap.training.constant_phase import ConstantPhase, with_constant_phase
from melcap.training.start import prepare
from tests.helpers import SMALL, draw_weights, noise
from tests.training.helpers import stage_2, tokenizer

N_FFT, HOP, MOMENTUM = 48, 8, 0.9
CHANNELS = 2 * HOP + N_FFT // 2 + 1


def frames(stage: ConstantPhase, count: int, seed: int, clips: int = 1) -> Tensor:
    """Return two waves and positive magnitudes, in as many frames as `count` outputs need."""
    generator = torch.Generator().manual_seed(seed)
    shape = (clips, CHANNELS, stage.left + count + stage.right)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x[:, 2 * HOP :] = x[:, 2 * HOP :].abs() + 0.1
    return x


@pytest.mark.slow
@given(
    steps=st.integers(1, 5),
    count=st.integers(1, 7),
    clips=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_the_frames_are_those_of_the_steps(steps: int, count: int, clips: int, seed: int) -> None:
    stage = ConstantPhase(N_FFT, HOP, MOMENTUM, steps)
    x = frames(stage, count, seed, clips)
    plain = GriffinLim(N_FFT, HOP, MOMENTUM, steps)
    assert (stage.left, stage.right) == (plain.left, plain.right)
    wanted = plain(x)
    assert wanted.shape == (clips, CHANNELS, count)
    for given_x in (x, x.clone().requires_grad_()):
        made = stage(given_x)
        wave, magnitude = made[:, :HOP], made[:, 2 * HOP :]
        assert (wave - wanted[:, :HOP]).abs().max() < 1e-9
        assert torch.equal(magnitude, wanted[:, 2 * HOP :])


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_the_gradient_is_that_of_the_last_magnitudes(steps: int) -> None:
    """The gradient equals finite differences of the last magnitudes, with the phases found once."""
    stage = ConstantPhase(N_FFT, HOP, MOMENTUM, steps)
    x = frames(stage, 3, seed=steps).requires_grad_()
    upstream = torch.randn(1, HOP, 3, dtype=torch.float64, generator=torch.manual_seed(0))
    (stage(x)[:, :HOP] * upstream).sum().backward()
    assert x.grad is not None
    assert not x.grad[:, : 2 * HOP].any()

    last = GriffinLim(N_FFT, HOP, MOMENTUM, 1)
    reach = stage.left - last.left
    phases = x.detach()
    if steps > 1:
        phases = GriffinLim(N_FFT, HOP, MOMENTUM, steps - 1)(phases)
    magnitude = x.detach()[:, 2 * HOP :]
    for _ in range(5):
        direction = torch.randn_like(magnitude)

        def heard(step: float, direction: Tensor = direction) -> Tensor:
            moved = (magnitude + step * direction)[..., reach : magnitude.shape[2] - reach]
            made = last(torch.cat((phases[:, : 2 * HOP], moved), dim=1))
            return (made[:, :HOP] * upstream).sum()

        wanted = (heard(1e-4) - heard(-1e-4)) / 2e-4
        along = (x.grad[:, 2 * HOP :] * direction).sum()
        assert float(along) == pytest.approx(float(wanted), rel=1e-6)


LONG = replace(SMALL, vocoder=replace(SMALL.vocoder, griffin_lim_steps=9))


def test_one_stage_takes_the_place_of_all_steps() -> None:
    plain = [*vocoder(LONG)]
    one = with_constant_phase(plain)
    kinds = [type(stage) for stage in one]
    assert kinds.count(ConstantPhase) == 1
    assert GriffinLim not in kinds
    assert isinstance(one[-1], Unfold)
    first, last = inputs_for(plain, 0, 700)
    assert inputs_for(one, 0, 700) == (first, last)
    mel = noise(2, LONG.mel.n_mels, last - first, amplitude=1.0)
    with torch.no_grad():
        made, wanted = run(one, mel), run(plain, mel)
    assert (made - wanted).abs().max() < 1e-4 * wanted.abs().max()
    without = [*vocoder(replace(LONG, vocoder=replace(LONG.vocoder, griffin_lim_steps=0)))]
    assert with_constant_phase(without) == without


def test_what_stage_2_learns_with_constant_phase() -> None:
    """All parameters but those of the phases are trained, on the wave that the codec decodes to."""
    codec = draw_weights(Codec(LONG))
    states, recipes = tokenizer(), []
    for constant in (True, False):
        recipe = stage_2(states, codec=LONG, constant_phase=constant)
        recipe.decoder.load_state_dict(codec.decoder.state_dict())
        recipe.vocoder.load_state_dict(codec.vocoder.state_dict())
        recipes.append(recipe)
    recipe, plain = recipes
    wave = noise(2, recipe.samples)
    assert recipe.samples == plain.samples
    for made, wanted in zip(recipe.reconstruct(wave, 6), plain.reconstruct(wave, 6), strict=True):
        assert (made - wanted).abs().max() < 1e-5
    figures, others = recipe.step(wave), plain.step(wave)
    for name in ("stft", "mel", "texture"):
        assert figures[name].item() == pytest.approx(others[name].item(), rel=1e-4)
    assert figures["gradient"].item() != pytest.approx(others["gradient"].item(), rel=1e-2)
    moved = {
        name
        for part, module in recipe.modules().items()
        for name, value in module.named_parameters(prefix=part)
        if value.grad is not None and value.grad.any()
    }
    still = {
        name
        for part in ("vocoder", "decoder")
        for name, value in recipe.modules()[part].named_parameters(prefix=part)
    } - moved
    (guess,) = (i for i, stage in enumerate(recipe.vocoder) if isinstance(stage, FirstGuess))
    chain = recipe.vocoder[guess].chain
    assert still == {f"vocoder.{guess}.chain.{name}" for name, _ in chain.named_parameters()}


def test_weights_keep_their_steps_where_phases_are_constants(tmp_path: Path) -> None:
    path = tmp_path / "long.safetensors"
    save(Codec(LONG), path)
    for constant, steps in ((True, 9), (False, 4)):
        given = {"stage": 2, "constant_phase": constant, "columns": 6}
        start = prepare(tmp_path / str(constant), given, str(path), batch=2)
        assert start.recipe.config.codec.vocoder.griffin_lim_steps == steps


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stage": 1}, "constant_phase is for stage 2"),
        (
            {"stage": 2, "codec": replace(LONG, vocoder=VocoderConfig(griffin_lim_steps=0))},
            "constant_phase needs a codec with Griffin-Lim steps",
        ),
    ],
)
def test_where_there_are_no_phases_to_keep(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TrainingConfig.of(constant_phase=True, **settings)
