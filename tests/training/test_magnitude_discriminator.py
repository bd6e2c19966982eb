"""A discriminator of magnitudes is blind to phases, and so is its gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from melcap.training import magnitude_discriminator
from melcap.training.discriminators import MultiResolutionDiscriminator
from melcap.training.gan_losses import feature_matching_loss, hinge_generator_loss
from melcap.training.magnitude_discriminator import (
    MagnitudeDiscriminator,
    log_magnitudes,
)
from melcap.training.spectra import stft
from tests.helpers import noise

LONGEST = 512
GAP, BURST = 2 * LONGEST, 700


def twins(signs: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return bursts of noise, [1, samples], and the same with the sign of each burst.

    No window reaches over two bursts, so all magnitudes of both waves are the same.
    """
    wave = torch.zeros(1, len(signs) * (BURST + GAP) + GAP)
    turned = wave.clone()
    for place, sign in enumerate(signs):
        part = slice(GAP + place * (BURST + GAP), (place + 1) * (BURST + GAP))
        burst = noise(1, BURST, seed=seed + place)
        wave[:, part], turned[:, part] = burst, sign * burst
    return wave, turned


def loss_of(discriminator: Any, wave: Tensor) -> Tensor:
    scores, features = discriminator(wave)
    _, wanted = discriminator(noise(*wave.shape, seed=99))
    return hinge_generator_loss(scores) + feature_matching_loss(wanted, features)


@given(st.lists(st.sampled_from([-1, 1]), min_size=2, max_size=4).map(tuple))
def test_waves_of_equal_magnitudes_have_equal_scores_and_gradients(signs: tuple[int, ...]) -> None:
    """The gradient has the sign of each burst as well: it scales magnitudes, and turns nothing."""
    torch.manual_seed(0)
    discriminator = MagnitudeDiscriminator((LONGEST, 128), base=2)
    gradients = []
    for wave in twins(signs):
        wave.requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(discriminator, wave), wave)
        gradients.append(gradient)
    scores, turned = (discriminator(wave)[0] for wave in twins(signs))
    for score, other in zip(scores, turned, strict=True):
        torch.testing.assert_close(other, score, atol=1e-5, rtol=1e-4)
    for place, sign in enumerate(signs):
        part = slice(GAP + place * (BURST + GAP), (place + 1) * (BURST + GAP))
        expected = sign * gradients[0][:, part]
        assert expected.abs().max() > 0
        torch.testing.assert_close(gradients[1][:, part], expected, atol=1e-6, rtol=1e-2)


def test_discriminators_of_waves_see_phases() -> None:
    """The twins differ to them, which is what the other kind is for."""
    torch.manual_seed(0)
    discriminator = MultiResolutionDiscriminator((LONGEST,), base=2)
    wave, turned = (discriminator(wave)[0][0] for wave in twins((1, -1)))
    assert (wave - turned).abs().max() > 1e-2


def test_a_turn_of_any_bin_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores stay, and the gradient has no part that turns a bin."""
    torch.manual_seed(0)
    discriminator, wave = MagnitudeDiscriminator((512, 128), base=2), noise(2, 4000)
    expected, _ = discriminator(wave)
    angles: list[Tensor] = []

    def turned(wave: Tensor, n_fft: int) -> Tensor:
        spectrum = stft(wave, n_fft)
        angles.append((7 * noise(*spectrum.shape, seed=n_fft)).requires_grad_())
        return spectrum * torch.exp(1j * angles[-1])

    monkeypatch.setattr(magnitude_discriminator, "stft", turned)
    scores, features = discriminator(wave)
    for score, other in zip(scores, expected, strict=True):
        torch.testing.assert_close(score, other, atol=1e-5, rtol=1e-4)
    loss = hinge_generator_loss(scores) + sum(
        maps.abs().mean() for each in features for maps in each
    )
    for gradient in torch.autograd.grad(loss, angles):
        assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("n_fft", [2048, 512])
def test_pictures_are_near_unit_scale(n_fft: int, speech: Any) -> None:
    """Silence is at the floor, and speech about as wide as noise that networks are made for."""
    wave = torch.from_numpy(speech[:60_000].astype("float32"))[None]
    picture = log_magnitudes(wave, n_fft)
    assert picture.shape == (1, n_fft // 2 + 1, 60_000 * 4 // n_fft + 1)
    assert abs(float(picture.mean())) < 1.5
    assert 0.4 < float(picture.std()) < 2.5
    silence = log_magnitudes(torch.zeros(1, 5000), n_fft)
    assert silence.unique().numel() == 1
    assert -2.5 < float(silence[0, 0, 0]) < -1.5


@pytest.mark.slow
@pytest.mark.parametrize("base", [8, 16, 32])
def test_every_width_has_three_sizes_and_fewer_weights_than_that_of_waves(base: int) -> None:
    def count(part: torch.nn.Module) -> int:
        return sum(weight.numel() for weight in part.parameters())

    discriminator = MagnitudeDiscriminator(base=base)
    assert count(discriminator) < count(MultiResolutionDiscriminator(base=base))
    scores, features = discriminator(noise(1, 20_000))
    assert len(scores) == len(features) == 3
