"""Griffin-Lim steps equal their definition, and lower the distance to the target magnitudes.

test_stages tests how they go together with chunks and streams.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from melcap.config import CodecConfig, MelSpec, VocoderConfig
from melcap.model.griffin_lim import TILE, FirstGuess, GriffinLim, Unfold
from melcap.model.layers import Conv1d, Upsample1d
from melcap.model.stages import Chain, StageStream, inputs_for, outputs_of, run
from melcap.model.vocoder import ISTFTHead, vocoder
from melcap.ops import griffin_lim
from melcap.ops.griffin_lim import LEAST_SHARE, QUIETEST_POWER

SIZES = [(64, 16), (48, 8), (1024, 256)]


def frame(wave: Tensor, t: int, n_fft: int, hop: int) -> Tensor:
    """Return the samples around hop t of wave [samples], with zeros outside."""
    begin = t * hop + hop // 2 - n_fft // 2
    index = torch.arange(begin, begin + n_fft)
    inside = (index >= 0) & (index < len(wave))
    return torch.where(inside, wave[index.clamp(0, len(wave) - 1)], 0.0)


def stft(wave: Tensor, frames: Sequence[int], n_fft: int, hop: int) -> Tensor:
    window = torch.hann_window(n_fft, dtype=torch.float64)
    return torch.stack([torch.fft.rfft(window * frame(wave, t, n_fft, hop)) for t in frames])


def packed(wave: Tensor, before: Tensor, magnitude: Tensor, hop: int) -> Tensor:
    """Return waves [samples] and magnitudes [frames, bins] as frames of the stages."""
    half, count = hop // 2, len(magnitude)
    blocks = [w[half : half + count * hop].view(count, hop).t() for w in (wave, before)]
    return torch.cat((*blocks, magnitude.t()))[None]


@pytest.mark.parametrize(("n_fft", "hop"), SIZES)
@given(seed=st.integers(0, 2**32), momentum=st.sampled_from([0.0, 0.5, 0.99]))
def test_a_step_equals_its_definition(n_fft: int, hop: int, seed: int, momentum: float) -> None:
    """Compare with windows that are overlap-added by hand and divided by their squared sum."""
    generator = torch.Generator().manual_seed(seed)
    reach = n_fft // hop - 1
    count = 2 * reach + 3
    wave, before = torch.randn(2, count * hop + hop, generator=generator, dtype=torch.float64)
    magnitude = torch.rand(count, n_fft // 2 + 1, generator=generator, dtype=torch.float64)
    made = GriffinLim(n_fft, hop, momentum, 1).double()(packed(wave, before, magnitude, hop))

    window = torch.hann_window(n_fft, dtype=torch.float64)
    frames = range(reach - n_fft // hop // 2 + 1, count - reach + n_fft // hop // 2)
    spectra = stft(wave + momentum * (wave - before), frames, n_fft, hop)
    wished = magnitude[list(frames)]
    least = (LEAST_SHARE * wished).square() + QUIETEST_POWER
    phase = spectra / (spectra.abs().square() + least).sqrt()
    total, weight = torch.zeros(2, len(wave) + 2 * n_fft, dtype=torch.float64)
    for t, spectrum in zip(frames, phase * wished, strict=True):
        begin = t * hop + hop // 2 - n_fft // 2 + n_fft
        total[begin : begin + n_fft] += torch.fft.irfft(spectrum, n_fft) * window
        weight[begin : begin + n_fft] += window.square()
    first = n_fft + reach * hop + hop // 2
    span = slice(first, first + 3 * hop)
    wanted = (total[span] / weight[span]).view(3, hop).t()
    assert made.shape == (1, 2 * hop + n_fft // 2 + 1, 3)
    torch.testing.assert_close(made[0, :hop], wanted, rtol=0, atol=1e-10)
    kept = packed(wave, before, magnitude, hop)[..., reach : reach + 3]
    assert torch.equal(made[:, hop : 2 * hop], kept[:, :hop]), "the wave that was"
    assert torch.equal(made[:, 2 * hop :], kept[:, 2 * hop :]), "magnitudes go on"


@given(seed=st.integers(0, 2**32), momentum=st.floats(0, 0.99))
def test_consistent_magnitudes_change_nothing(seed: int, momentum: float) -> None:
    n_fft, hop, count = 64, 16, 12
    generator = torch.Generator().manual_seed(seed)
    wave = torch.randn(count * hop + hop, generator=generator, dtype=torch.float64)
    # what a bin has, with what is taken for it in one without a phase
    power = stft(wave, range(count), n_fft, hop).abs().square()
    magnitude = ((power + QUIETEST_POWER) / (1 - LEAST_SHARE**2)).sqrt()
    x = packed(wave, wave, magnitude, hop)
    made = GriffinLim(n_fft, hop, momentum, 1).double()(x)[:, :hop]
    torch.testing.assert_close(made, x[:, :hop, 3:-3], rtol=0, atol=1e-10)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), steps=st.integers(2, 5))
def test_several_steps_equal_single_steps(seed: int, steps: int) -> None:
    x = torch.rand(2, 32 + 33, 40, generator=torch.Generator().manual_seed(seed)).double()
    together = GriffinLim(64, 16, 0.9, steps).double()
    one = GriffinLim(64, 16, 0.9, 1).double()
    assert (together.left, together.right) == (steps * one.left, steps * one.right)
    torch.testing.assert_close(together(x), run([one] * steps, x), rtol=0, atol=1e-12)
    learning = together(x.clone().requires_grad_()).detach()
    torch.testing.assert_close(together(x), learning, rtol=0, atol=1e-12)


def test_a_cpu_and_a_stream_take_a_few_steps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU takes all steps in one call, as training does; the results are the same bits."""
    calls: list[int] = []

    def counted(*arguments: Any, steps: int, **options: Any) -> Tensor:
        calls.append(steps)
        return griffin_lim(*arguments, steps=steps, **options)

    monkeypatch.setattr("melcap.model.griffin_lim.griffin_lim", counted)
    steps = GriffinLim(64, 16, 0.9, 9)
    x = torch.rand(1, 32 + 33, 2 * 27 + 5)
    whole = steps(x)
    assert calls == [9]
    with torch.no_grad():
        assert torch.equal(steps(x), whole)
    assert calls[1:] == [8, 1]
    stream = StageStream([steps])
    assert [part.left for part in stream.stages] == [12, 12, 3]
    calls.clear()
    with torch.no_grad():
        pieces = [stream.push(piece) for piece in x.split([55, 1, 3], dim=-1)]
    assert calls == [4, 4, 1] * 3
    assert torch.equal(torch.cat([piece for piece in pieces if piece is not None], -1), whole)


@pytest.mark.parametrize("count", [1, TILE - 1, TILE, TILE + 1, 2 * TILE + 3])
@pytest.mark.parametrize("clips", [1, 3])
def test_tiles_equal_the_whole(clips: int, count: int) -> None:
    """A CPU works in tiles without gradients, and in one piece with gradients."""
    guess = FirstGuess(Chain(Upsample1d(3, 3, 2), ISTFTHead(3, 8, 4)), 3, 64, 16)
    steps = GriffinLim(64, 16, 0.9, 2)
    stages = [stage.double() for stage in (guess, steps)]
    context = sum(stage.left + stage.right for stage in stages)
    x = torch.randn(clips, 3, count + context, dtype=torch.float64)
    whole = run(stages, x)
    with torch.no_grad():
        tiled = run(stages, x)
    assert tiled.shape == (clips, 32 + 33, count)
    assert tiled.dtype == torch.float64
    torch.testing.assert_close(tiled, whole.detach(), rtol=0, atol=1e-12)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32))
def test_each_step_brings_the_magnitudes_nearer(seed: int) -> None:
    """By Griffin and Lim's theorem, the distance never grows in steps without momentum."""
    n_fft, hop, count = 64, 16, 60
    generator = torch.Generator().manual_seed(seed)
    wave = torch.randn(count * hop + hop, generator=generator, dtype=torch.float64)
    wave[: 30 * hop] = wave[-30 * hop :] = 0  # so that the cut edges have no part in it
    target = torch.randn(len(wave), generator=generator, dtype=torch.float64)
    target[: 20 * hop] = target[-20 * hop :] = 0
    magnitude = stft(target, range(count), n_fft, hop).abs()
    guess = torch.where(target == 0, 0.0, torch.randn(len(wave), dtype=torch.float64))
    x, step = packed(guess, guess, magnitude, hop), GriffinLim(n_fft, hop, 0.0, 1).double()
    distances = []
    for _ in range(3):
        wave = torch.cat((torch.zeros(hop // 2), x[0, :hop].t().flatten(), torch.zeros(hop // 2)))
        frames = range(3, x.shape[-1] - 3)
        there = stft(wave, frames, n_fft, hop).abs().t()
        distances.append(float((there - x[0, 2 * hop :, 3:-3]).square().sum()))
        x = step(x)
    assert distances[0] > distances[1] > distances[2]


def test_silence_stays_silent() -> None:
    """Silence gets no phase, and its gradients are finite."""
    step, x = GriffinLim(64, 16, 0.0, 1), torch.zeros(1, 32 + 33, 10)
    x[:, 32:] = 5.0
    x.requires_grad_()
    made = step(x)
    assert not made[:, :16].any()
    made.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("strides", [(), (4,), (2, 3)])
def test_a_guess_is_the_wave_of_its_chain(strides: tuple[int, ...]) -> None:
    """A guess has blocks shifted by half a hop, and magnitudes of the frame's own features."""
    head = ISTFTHead(3, 4, 4)
    chain = Chain(Conv1d(3, 3, 5), *(Upsample1d(3, 3, stride) for stride in strides), head)
    hop = 4 * math.prod(strides)
    guess = FirstGuess(chain, 3, 4 * hop, hop).double()
    x = torch.randn(2, 3, 40, dtype=torch.float64)
    made = guess(x)
    frames = made.shape[-1]
    assert frames == 40 - guess.left - guess.right
    given, _ = outputs_of([*chain], 0, 40)
    begin = guess.left * hop + hop // 2 - given
    wanted = run(chain, x)[:, begin : begin + frames * hop].view(2, frames, hop).transpose(1, 2)
    assert torch.equal(made[:, :hop], wanted)
    assert torch.equal(made[:, :hop], made[:, hop : 2 * hop])
    own = x[..., guess.left : guess.left + frames].transpose(1, 2)
    ln = guess.magnitude(own).transpose(1, 2)
    torch.testing.assert_close(made[:, 2 * hop :].log(), ln, rtol=0, atol=1e-9)


def test_autocast_leaves_phases_and_magnitudes_alone() -> None:
    """The wave of an input that bfloat16 holds exactly is the same under autocast."""
    guess = FirstGuess(Chain(ISTFTHead(3, 16, 4)), 3, 64, 16)
    x = torch.randn(1, 3, 20).bfloat16().float()
    with torch.autocast("cpu", torch.bfloat16):
        made = GriffinLim(64, 16, 0.0, 1)(guess(x))
    assert made.dtype == torch.float32
    assert torch.equal(made, GriffinLim(64, 16, 0.0, 1)(guess(x)))


def test_unfold_undoes_the_shift() -> None:
    wave = torch.randn(10 * 16 + 16)
    x = packed(wave, wave, torch.zeros(10, 33), 16)
    assert torch.equal(Unfold(16)(x)[0], wave[16:-16])


def test_without_steps_the_head_ends_the_vocoder() -> None:
    plain = vocoder(CodecConfig(vocoder=VocoderConfig(griffin_lim_steps=0)))
    assert isinstance([*plain][-1], ISTFTHead)


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_each_step_reaches_three_frames_further(steps: int) -> None:
    config = CodecConfig(
        mel=MelSpec(n_fft=64, hop=16, n_mels=8),
        vocoder=VocoderConfig(8, 8, 1, (4,), (8,), (2,), griffin_lim_steps=steps),
    )
    one = CodecConfig(mel=config.mel, vocoder=VocoderConfig(8, 8, 1, (4,), (8,), (2,)))
    assert one.vocoder.griffin_lim_steps == 4
    stages = [*vocoder(config)]
    first, last = inputs_for(stages, 0, 16)
    assert outputs_of(stages, first, last)[0] <= 0
    without = [stage for stage in stages if not isinstance(stage, GriffinLim)]
    shorter = inputs_for(without, 0, 16)
    assert (shorter[0] - first, last - shorter[1]) == (3 * steps, 3 * steps)
