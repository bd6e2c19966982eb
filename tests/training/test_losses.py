from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from melcap.errors import InputError
from melcap.ops.log_mel import mel_filters
from melcap.training.discriminators import (
    MelDiscriminator,
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
)
from melcap.training.gan_losses import (
    feature_matching_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
)
from melcap.training.losses import (
    LOG_FLOOR,
    MEL_SCALES,
    TEXTURE_FLOOR,
    TEXTURE_SCALES,
    complex_stft_loss,
    loudness_l1,
    multi_resolution_stft_loss,
    multi_scale_mel_loss,
    phase_loss,
    texture_loss,
)
from melcap.training.magnitude_discriminator import MagnitudeDiscriminator
from melcap.training.spectra import Spectra, compress, stft
from tests.helpers import examples

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: list[Loss] = [multi_resolution_stft_loss, complex_stft_loss, multi_scale_mel_loss]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)


def noise(*shape: int, seed: int = 0, level: float = 0.1) -> Tensor:
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestSpectra:
    @pytest.mark.parametrize("n_fft", [128, 1024])
    def test_white_noise_has_the_same_power_at_every_size(self, n_fft: int) -> None:
        power = Spectra(noise(4, 50_000, level=0.3)).power(n_fft)[:, 1:-1, 4:-4]
        assert power.mean() == pytest.approx(0.09, rel=0.03)

    def test_is_a_windowed_dft_with_silence_around(self) -> None:
        wave = noise(1, 1000)
        padded = torch.cat([torch.zeros(1, 128), wave], 1)[0, 64 * 3 : 64 * 3 + 256]
        window = torch.hann_window(256)
        expected = torch.fft.rfft(padded * window) / window.square().sum().sqrt()
        made = stft(wave, 256)
        assert made.shape == (1, 129, 1000 // 64 + 1)
        assert stft(wave.double(), 256).dtype == made.dtype == torch.complex64
        torch.testing.assert_close(made[0, :, 3], expected, atol=1e-6, rtol=1e-5)

    def test_compression(self) -> None:
        spectrum = torch.polar(torch.tensor([0.0, 0.1, 0.5, 2.0]), torch.tensor([0.0, 1, -2, 3]))
        made = torch.view_as_complex(compress(spectrum, 0.3))
        torch.testing.assert_close(made.abs(), spectrum.abs() ** 0.3, atol=0, rtol=1e-3)
        torch.testing.assert_close(made[1:].angle(), spectrum[1:].angle())
        torch.testing.assert_close(torch.view_as_complex(compress(spectrum, 1.0)), spectrum)


class TestDistances:
    @every_loss
    @settings(max_examples=examples(10), deadline=None)
    @given(seed=st.integers(0, 99), samples=st.integers(1, 3000), level=st.floats(0, 1))
    def test_zero_at_identity_only(self, loss: Loss, seed: int, samples: int, level: float) -> None:
        wave = noise(2, samples, seed=seed, level=level)
        assert loss(wave, wave.clone()) == 0
        other = wave + noise(2, samples, seed=seed + 100)
        assert loss(other, wave) > 0

    @every_loss
    def test_falls_when_approaching(self, loss: Loss) -> None:
        target, error = noise(2, 6000), noise(2, 6000, seed=1)
        values = [float(loss(target + part * error, target)) for part in torch.logspace(0, -3, 8)]
        assert all(nearer < farther for farther, nearer in pairwise(values))
        assert values[-1] < 0.05 * values[0]

    @every_loss
    @pytest.mark.parametrize(("output", "target"), [(0, 0), (0, 0.1), (0.1, 0), (1e-12, 0.1)])
    def test_gradients_are_finite_at_silence(
        self, loss: Loss, output: float, target: float
    ) -> None:
        made = noise(2, 4000, level=output).requires_grad_()
        value = loss(made, noise(2, 4000, seed=1, level=target))
        value.backward()
        assert value.isfinite()
        assert made.grad is not None
        assert made.grad.isfinite().all()
        assert made.grad.abs().max() < 10
        if output == 1e-12:  # silence is no trap: there is a way out of it
            assert made.grad.abs().max() > 0

    @every_loss
    def test_descent_arrives(self, loss: Loss) -> None:
        target = noise(1, 2000)
        made = noise(1, 2000, seed=1).requires_grad_()
        optimizer = torch.optim.Adam([made], 3e-3)
        first = float(loss(made.detach(), target))
        for _ in range(60):
            optimizer.zero_grad()
            loss(made, target).backward()
            optimizer.step()
        assert loss(made, target) < 0.6 * first

    def test_magnitudes_ignore_polarity_and_the_complex_loss_does_not(self) -> None:
        wave = noise(1, 4000)
        assert multi_resolution_stft_loss(-wave, wave) == 0
        assert multi_scale_mel_loss(-wave, wave) == 0
        assert complex_stft_loss(-wave, wave) > 0.1

    def test_the_complex_loss_rises_with_one_sample_of_delay(self) -> None:
        wave = noise(1, 4000)
        late = wave.roll(1, 1)
        assert complex_stft_loss(late, wave) > 5 * complex_stft_loss(0.99 * wave, wave)

    def test_a_gain_costs_its_logarithm_and_its_share(self) -> None:
        wave = noise(2, 30_000, level=0.3)
        log = multi_resolution_stft_loss(wave / 2, wave, linear_weight=0)
        linear = multi_resolution_stft_loss(wave / 2, wave, log_weight=0)
        assert log == pytest.approx(math.log(2), rel=0.01)
        assert linear == pytest.approx(0.5, rel=0.01)
        both = multi_resolution_stft_loss(wave / 2, wave, log_weight=2, linear_weight=3)
        assert both == pytest.approx(float(2 * log + 3 * linear), rel=1e-5)
        assert multi_scale_mel_loss(wave / 2, wave) == pytest.approx(math.log(2), rel=0.01)

    def test_every_mel_bin_has_the_same_floor(self) -> None:
        wave = noise(2, 30_000, level=0.01)
        magnitude = 0.01 * math.sqrt(math.pi) / 2  # mean modulus of a complex Gaussian
        expected = math.log(1 + magnitude / LOG_FLOOR)
        for n_fft, bins in MEL_SCALES:
            value = multi_scale_mel_loss(0 * wave, wave, [(n_fft, bins)])
            assert value == pytest.approx(expected, rel=0.05)

    def test_a_loud_clip_does_not_drown_a_quiet_one(self) -> None:
        target = torch.cat([noise(1, 4000, level=0.5), noise(1, 4000, level=0.01)])
        output = target.clone()
        output[1] *= 0.5
        assert multi_resolution_stft_loss(output, target, log_weight=0) == pytest.approx(
            0.25, rel=0.02
        )

    @every_loss
    def test_shared_spectra_change_nothing(self, loss: Loss) -> None:
        output, target = noise(2, 3000), noise(2, 3000, seed=1)
        made, real = Spectra(output), Spectra(target)
        assert loss(made, real) == loss(output, target)  # type: ignore[arg-type]
        assert made.spectrum(512) is made.spectrum(512)

    @every_loss
    def test_float32_under_autocast(self, loss: Loss) -> None:
        output, target = noise(2, 3000), noise(2, 3000, seed=1)
        with torch.autocast("cpu", torch.bfloat16):
            inside = loss(output, target)
        assert inside.dtype == torch.float32
        torch.testing.assert_close(inside, loss(output, target))
        assert loss(output.bfloat16(), target.bfloat16()).dtype == torch.float32

    @every_loss
    def test_refuses_what_does_not_fit(self, loss: Loss) -> None:
        with pytest.raises(InputError, match="differ in shape"):
            loss(noise(2, 300), noise(2, 301))
        with pytest.raises(InputError, match="batch, samples"):
            loss(noise(300), noise(300))


class TestTexture:
    @settings(max_examples=examples(10), deadline=None)
    @given(seed=st.integers(0, 99), samples=st.integers(1024, 9000), level=st.floats(0, 1))
    def test_is_deaf_to_gain_and_zero_at_identity(
        self, seed: int, samples: int, level: float
    ) -> None:
        wave = noise(2, samples, seed=seed, level=level)
        assert texture_loss(wave, wave.clone()) == 0
        if level > 0.1:
            assert texture_loss(0.5 * wave, wave) < 0.02

    def test_other_noise_of_the_kind_is_near_and_a_tone_is_not(self) -> None:
        """A tone differs in texture from noise, while other noise differs in pixels alone."""
        wave, other = noise(2, 40_000), noise(2, 40_000, seed=1)
        tone = 0.1 * (0.1 * torch.arange(40_000)).sin().expand(2, -1)
        assert texture_loss(other, wave) < 0.25
        assert texture_loss(tone, wave) > 3 * texture_loss(other, wave)
        assert multi_scale_mel_loss(other, wave) > multi_scale_mel_loss(0.9 * wave, wave)
        assert texture_loss(0.9 * wave, wave) < 0.1 * texture_loss(other, wave)

    def test_is_the_definition_at_one_scale(self) -> None:
        waves = noise(1, 6000), noise(1, 6000, seed=1).cumsum(1) / 30
        rms = []
        for wave in waves:
            power = Spectra(wave).power(512)
            filters = mel_filters(44_100, 512, 64, torch.float32, torch.device("cpu"))
            filters = filters / filters.sum(0).clamp(min=1)
            mel = (power.sqrt().transpose(1, 2) @ filters + LOG_FLOOR).log()[0]
            kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
            laplacian = nn.functional.conv2d(mel[None, None], kernel[None, None])[0, 0]
            patches = laplacian.square().unfold(0, 8, 4).unfold(1, 8, 4).mean((-1, -2))
            rms.append((patches + TEXTURE_FLOOR).log() / 2)
        expected = (rms[0] - rms[1]).abs().mean()
        made = texture_loss(*waves, scales=((512, 64),))
        assert made == pytest.approx(float(expected), rel=1e-3)
        scales = [float(texture_loss(*waves, scales=(scale,))) for scale in TEXTURE_SCALES]
        assert texture_loss(*waves) == pytest.approx(sum(scales) / len(scales), rel=1e-5)

    def test_too_short_to_have_one(self) -> None:
        with pytest.raises(InputError, match="too small to have a texture"):
            texture_loss(noise(1, 500), noise(1, 500))


class TestPhase:
    def test_what_is_off_counts_alone(self) -> None:
        """A polarity changes phases but no steps between them; a delay changes no step in time.

        Turned by a half, all phases are opposite. A delay shifts each bin by another phase.
        """
        wave = noise(2, 20_000)
        assert phase_loss(wave, wave.clone()) == pytest.approx(0, abs=1e-3)
        assert phase_loss(3 * wave, wave) == pytest.approx(0, abs=1e-3)
        assert phase_loss(-wave, wave) == pytest.approx(2 / 3, abs=1e-2)
        assert 0.7 < phase_loss(noise(2, 20_000, seed=1), wave) < 0.9
        delayed = phase_loss(wave.roll(8, 1), wave, sizes=(1024,))
        assert 0.3 < delayed < 0.4  # of the three errors the phase's own alone, which is any

    def test_loud_bins_count_most(self) -> None:
        place = torch.arange(20_000)
        loud, faint = (0.3 * (0.3 * place).sin(), 0.003 * (1.5 * place).sin())
        target = (loud + faint)[None]
        turned_loud, turned_faint = (
            float(phase_loss(turned[None], target)) for turned in (faint - loud, loud - faint)
        )
        assert turned_faint < turned_loud / 4  # unweighted, four fifths of it


@pytest.mark.parametrize("loss", [texture_loss, phase_loss])
@pytest.mark.parametrize(("output", "target"), [(0, 0), (0, 0.1), (0.1, 0), (1e-12, 0.1)])
def test_gradients_are_finite_at_silence(loss: Loss, output: float, target: float) -> None:
    made = noise(2, 4000, level=output).requires_grad_()
    loss(made, noise(2, 4000, seed=1, level=target)).backward()
    assert made.grad is not None
    assert made.grad.isfinite().all()


class TestLoudness:
    def test_by_hand(self) -> None:
        target = torch.tensor([[[0.0, -1.0], [-2.0, 1.0]]])
        output = target + torch.tensor([[[0.1, -0.2], [0.3, 0.4]]])
        weights = [math.exp(0.5 * value) for value in (0.0, -1.0, -2.0, 1.0)]
        errors = (0.1, 0.2, 0.3, 0.4)
        expected = sum(w * e for w, e in zip(weights, errors, strict=True)) / sum(weights)
        assert loudness_l1(output, target, 0.5) == pytest.approx(expected, rel=1e-5)

    @given(seed=st.integers(0, 1000), power=st.floats(0, 2), level=st.floats(-50, 50))
    def test_scale(self, seed: int, power: float, level: float) -> None:
        """An error that is the same everywhere counts in full, whatever the level of a picture."""
        target = noise(3, 8, 9, seed=seed, level=3)
        assert loudness_l1(target + 0.5, target, power) == pytest.approx(0.5, rel=1e-3)
        output = target + noise(3, 8, 9, seed=seed + 1)
        loss = float(loudness_l1(output, target, power))
        assert loudness_l1(output + level, target + level, power) == pytest.approx(loss, rel=1e-3)
        assert loudness_l1(output, target, 0) == pytest.approx(
            float((output - target).abs().mean())
        )


class TestAdversarial:
    def test_hinge_by_hand(self) -> None:
        real = [torch.tensor([2.0, 0.5]), torch.tensor([[-1.0]])]
        fake = [torch.tensor([-2.0, 0.0]), torch.tensor([[1.0]])]
        assert hinge_discriminator_loss(real, fake) == pytest.approx(
            ((0.25 + 0.5) + (2.0 + 2.0)) / 2
        )
        assert hinge_generator_loss(fake) == pytest.approx(((3.0 + 1.0) / 2 + 0.0) / 2)

    def test_hinge_stops_when_convinced(self) -> None:
        real, fake = [torch.full((3,), 1.0)], [torch.full((3,), -1.0)]
        assert hinge_discriminator_loss(real, fake) == 0
        assert hinge_generator_loss([*real, torch.full((3,), 2.0)]) == 0

    def test_feature_matching(self) -> None:
        real = [[noise(2, 3, 5), noise(2, 4, seed=1)], [noise(2, 7, seed=2)]]
        fake = [[maps * 1.5 for maps in member] for member in real]
        assert feature_matching_loss(real, real) == 0
        assert feature_matching_loss(real, fake) == pytest.approx(0.5)
        expected = sum(float(maps.abs().mean()) / 2 for member in real for maps in member) / 3
        assert feature_matching_loss(real, fake, relative=False) == pytest.approx(expected)

    def test_feature_matching_moves_the_generator_only(self) -> None:
        real, fake = noise(2, 3).requires_grad_(), noise(2, 3, seed=1).requires_grad_()
        feature_matching_loss([[real]], [[fake]]).backward()
        assert real.grad is None
        assert fake.grad is not None

    def test_members_must_correspond(self) -> None:
        score = torch.zeros(1)
        with pytest.raises(ValueError, match="zip"):
            hinge_discriminator_loss([score, score], [score])
        with pytest.raises(ValueError, match="zip"):
            feature_matching_loss([[score, score]], [[score]])


def period() -> nn.Module:
    return MultiPeriodDiscriminator(periods=(2, 3, 5), base=2)


def resolution() -> nn.Module:
    return MultiResolutionDiscriminator(sizes=(512, 256), base=4)


def compressed() -> nn.Module:
    return MultiResolutionDiscriminator(sizes=(512,), base=4, power=0.3)


def magnitude() -> nn.Module:
    return MagnitudeDiscriminator(sizes=(512, 256), base=4)


def picture() -> nn.Module:
    return MelDiscriminator(scales=2, base=4)


def tone_batch(kind: str, seed: int) -> Tensor:
    """Return noise or noisy tones, as waves or as pictures that differ as much."""
    if kind == "noise":
        return noise(4, 1501, seed=seed)
    time = torch.arange(1501) / 44_100
    pitch = 300 + 300 * torch.rand(4, 1, generator=torch.Generator().manual_seed(seed))
    return 0.14 * torch.sin(2 * math.pi * pitch * time) + noise(4, 1501, seed=seed, level=0.003)


def picture_batch(kind: str, seed: int) -> Tensor:
    sharp = noise(4, 1, 96, 32, seed=seed, level=1)
    if kind == "noise":
        return sharp
    return 3 * nn.functional.avg_pool2d(sharp, 3, 1, 1)  # blurred, but as strong


CASES = [
    pytest.param(period, tone_batch, 3, 5, id="period"),
    pytest.param(resolution, tone_batch, 2, 25, id="resolution"),
    pytest.param(compressed, tone_batch, 1, 25, id="compressed"),
    pytest.param(magnitude, tone_batch, 2, 4, id="magnitude"),
    pytest.param(picture, picture_batch, 2, 4, id="picture"),
]
every_discriminator = pytest.mark.parametrize(("make", "batch", "members", "maps"), CASES)


@every_discriminator
class TestDiscriminators:
    @pytest.fixture(autouse=True)
    def seeded(self) -> None:
        torch.manual_seed(0)

    def test_shapes(
        self,
        make: Callable[[], nn.Module],
        batch: Callable[[str, int], Tensor],
        members: int,
        maps: int,
    ) -> None:
        scores, features = make()(batch("noise", 0))
        assert len(scores) == len(features) == members
        assert all(score.ndim == 4 and score.shape[:2] == (4, 1) for score in scores)
        assert all(len(member) == maps for member in features)
        assert all(each.ndim == 4 and len(each) == 4 for member in features for each in member)

    def test_a_clip_is_scored_alone(
        self,
        make: Callable[[], nn.Module],
        batch: Callable[[str, int], Tensor],
        members: int,
        maps: int,
    ) -> None:
        discriminator, x = make(), batch("noise", 0)
        for together, alone in zip(discriminator(x)[0], discriminator(x[1:2])[0], strict=True):
            torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("level", [0.0, 1e-9, 0.1])
    def test_gradients_reach_the_input_and_are_finite(
        self,
        make: Callable[[], nn.Module],
        batch: Callable[[str, int], Tensor],
        members: int,
        maps: int,
        level: float,
    ) -> None:
        discriminator = make()
        x = (level * batch("noise", 0)).requires_grad_()
        scores, features = discriminator(x)
        loss = hinge_generator_loss(scores) + feature_matching_loss(
            discriminator(batch("noise", 1))[1], features
        )
        loss.backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert x.grad.abs().max() < 1e3
        if level == 0.1:
            assert (x.grad.flatten(1).abs().amax(1) > 0).all()

    @pytest.mark.slow
    def test_hinge_training_separates(
        self,
        make: Callable[[], nn.Module],
        batch: Callable[[str, int], Tensor],
        members: int,
        maps: int,
    ) -> None:
        discriminator = make()
        optimizer = torch.optim.AdamW(discriminator.parameters(), 5e-3, betas=(0.8, 0.9))
        for step in range(20):
            real, fake = (
                discriminator(batch("noise", step))[0],
                discriminator(batch("tone", step))[0],
            )
            loss = hinge_discriminator_loss(real, fake)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            real, fake = discriminator(batch("noise", 999))[0], discriminator(batch("tone", 999))[0]
        for good, bad in zip(real, fake, strict=True):
            assert good.mean((1, 2, 3)).min() > bad.mean((1, 2, 3)).max() + 0.5


class TestMelDiscriminator:
    def test_knows_the_row(self) -> None:
        torch.manual_seed(0)
        (score,), _ = MelDiscriminator(scales=1, base=4)(torch.zeros(1, 1, 96, 96))
        inner = score[0, 0, 8:-8, 12]  # away from the padding, on a picture that is all the same
        assert inner.unique().numel() == inner.numel()

    @pytest.mark.parametrize("shape", [(96, 32), (1, 2, 96, 32), (1, 1, 96, 15)])
    def test_refuses(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match="at least 16 mels"):
            MelDiscriminator(scales=3, base=2)(torch.zeros(shape))


def test_band_discriminator_ignores_loudness_and_offset() -> None:
    discriminator = MultiResolutionDiscriminator(sizes=(256,), base=2)
    wave = noise(2, 2000)
    (expected,), _ = discriminator(wave)
    (made,), _ = discriminator(0.4 * wave + 0.2)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_width_sets_the_cost() -> None:
    sizes = [
        sum(weight.numel() for weight in MultiPeriodDiscriminator(base=base).parameters())
        for base in (8, 32)
    ]
    assert sizes[1] == pytest.approx(41.1e6, rel=0.02)  # the published width
    assert sizes[1] / sizes[0] == pytest.approx(16, rel=0.01)
