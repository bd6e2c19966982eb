"""Compare the operations with definitions written out in float64, within their tolerances."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import melcap
from melcap.config import MelSpec
from melcap.errors import InputError
from melcap.ops import convnext1d, log_mel, nearest_code, upsample_conv1d
from melcap.ops.convnext1d import Parameters
from melcap.ops.registry import Tolerance, implementation
from tests.helpers import examples, noise

Array = npt.NDArray[np.float64]

LITE = MelSpec()
NEAR_SILENCE = replace(LITE, floor=1e-12)  # low enough to see what stands far below a loud tone
SMALL = MelSpec(sample_rate=16000, n_fft=64, hop=16, n_mels=6, floor=1e-3, mean=-1.0, std=2.0)
ODD = MelSpec(sample_rate=11025, n_fft=45, hop=15, n_mels=5, floor=1e-4)
ACTIVATIONS = ("none", "snake", "leaky_relu", "gelu", "silu")


def tolerance(operation: str) -> Tolerance:
    return implementation(operation, "torch").tolerances[torch.float32]


pytestmark = pytest.mark.usefixtures("poisoned_memory")

# ---- log_mel


def direct_log_mel(wave: Array, spec: MelSpec, left: int, right: int) -> Array:
    """Compute the definition: cut frames, window, sums of cosines and sines, filters, logarithm."""
    padded = np.pad(wave.astype(np.float64), ((0, 0), (left, right)))
    frames = (padded.shape[1] - spec.n_fft) // spec.hop + 1
    n = np.arange(spec.n_fft)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / spec.n_fft)
    cut = np.stack([padded[:, t * spec.hop :][:, : spec.n_fft] for t in range(frames)], axis=1)
    bins = np.arange(spec.n_fft // 2 + 1)
    angle = 2 * np.pi * (np.outer(n, bins) % spec.n_fft) / spec.n_fft
    magnitude = np.hypot((cut * window) @ np.cos(angle), (cut * window) @ np.sin(angle))
    mel = np.stack([magnitude @ triangle for triangle in htk_triangles(spec)], axis=1)
    result: Array = (np.log(np.maximum(mel, spec.floor)) - spec.mean) / spec.std
    return result


def htk_triangles(spec: MelSpec) -> Iterator[Array]:
    top = 2595 * math.log10(1 + spec.sample_rate / 2 / 700)
    edges = [700 * (10 ** (top * i / (spec.n_mels + 1) / 2595) - 1) for i in range(spec.n_mels + 2)]
    hertz = np.arange(spec.n_fft // 2 + 1) * spec.sample_rate / spec.n_fft
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        triangle = np.zeros(len(hertz))
        for k, f in enumerate(hertz):
            if low < f <= middle:
                triangle[k] = (f - low) / (middle - low)
            elif middle < f < high:
                triangle[k] = (high - f) / (high - middle)
        yield triangle


@pytest.mark.parametrize("spec", [LITE, SMALL, ODD], ids=["lite", "small", "odd"])
@pytest.mark.parametrize("padding", [None, (0, 0), (5, 0), (0, 11), (700, 1)])
@pytest.mark.parametrize("samples", [1, 1024, 5003])
def test_log_mel_is_its_definition(
    spec: MelSpec, padding: tuple[int, int] | None, samples: int
) -> None:
    wave = noise(2, samples, seed=1)
    left, right = padding or (spec.margin, spec.margin + spec.hop - 1)
    if samples + left + right < spec.n_fft:
        with pytest.raises(InputError, match="shorter than one window"):
            log_mel(wave, spec, padding=padding)
        return
    expected = direct_log_mel(wave.numpy(), spec, left, right)
    if padding is None:
        assert expected.shape[2] == math.ceil(samples / spec.hop)
    found = log_mel(wave, spec, padding=padding)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max() <= tolerance("log_mel").atol
    exact = log_mel(wave.double(), spec, padding=padding)
    assert exact.dtype == torch.float64
    assert np.abs(exact.numpy() - expected).max() <= 1e-9


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("below", [60, 80, 100, 120])
def test_log_mel_is_precise_beside_a_loud_tone(below: int, seed: int) -> None:
    """Check ln-mel of noise that lies 60 to 120 dB under a tone in the same window.

    A float32 transform errs in every bin by a few roundings of the loudest: a bin that lies d dB
    under it is off by so many times 10^(d / 20). Four roundings are allowed, 2.4e-3 at 80 dB.
    """
    samples = 4 * LITE.n_fft
    tone = torch.sin(torch.arange(samples, dtype=torch.float64) * 2 * math.pi * 210 / 44100)
    wave = (
        tone
        + noise(3, samples, seed=below + 1000 * seed, amplitude=1).double() * 10 ** (-below / 20)
    ) / 2
    wave = wave.float()
    expected = direct_log_mel(wave.numpy(), NEAR_SILENCE, 0, 0) * NEAR_SILENCE.std
    found = log_mel(wave, NEAR_SILENCE, padding=(0, 0)).numpy() * NEAR_SILENCE.std
    error = np.abs(found - expected)
    decibels = (expected.max() - expected) * 20 / math.log(10)
    assert decibels.max() >= below - 45  # a mel filter gathers noise, a window spreads the tone
    heard = decibels <= 100
    allowed = 1e-5 + 4 * 2.0**-24 * 10 ** (decibels / 20)
    assert (error / allowed)[heard].max() <= 1


def test_log_mel_of_silence_is_the_floor() -> None:
    expected = (math.log(LITE.floor) - LITE.mean) / LITE.std
    found = log_mel(torch.zeros(1, 3000), LITE)
    assert (found == found[0, 0, 0]).all()
    assert float(found[0, 0, 0]) == pytest.approx(expected, rel=1e-6)


def test_log_mel_takes_any_layout_and_half_precision() -> None:
    wave = noise(3000, 3)
    expected = log_mel(wave.t().contiguous(), SMALL)
    assert torch.equal(log_mel(wave.t(), SMALL), expected)
    assert torch.equal(log_mel(wave.t()[:, ::2], SMALL), log_mel(wave[::2].t().clone(), SMALL))
    row = wave[:, 0].contiguous()
    assert torch.equal(log_mel(row.expand(3, -1), SMALL)[2], log_mel(row[None], SMALL)[0])
    for dtype in (torch.float16, torch.bfloat16):
        half = wave.t().to(dtype)
        found = log_mel(half, SMALL)
        assert found.dtype == torch.float32
        assert torch.equal(found, log_mel(half.float(), SMALL))


@pytest.mark.parametrize(
    ("spec", "padding", "floor"),
    [
        pytest.param(SMALL, None, 1e-12, id="even"),
        pytest.param(ODD, None, 0.9, id="odd, with a floor"),
        pytest.param(SMALL, (0, 0), 0.9, id="even, no padding, with a floor"),
        pytest.param(ODD, (3, 40), 1e-12, id="odd, padded"),
    ],
)
def test_log_mel_gradient(spec: MelSpec, padding: tuple[int, int] | None, floor: float) -> None:
    spec = replace(spec, n_fft=spec.n_fft // 4 * 2 + spec.n_fft % 2, hop=spec.hop, floor=floor)
    wave = noise(2, 75, seed=3, amplitude=1).double()
    if floor > 0.1:  # some bins stand on the floor and have no gradient, others have one
        mel = log_mel(wave, spec, padding=padding) * spec.std + spec.mean
        clamped = (mel <= math.log(floor) + 1e-12).double().mean()
        assert 0.02 < clamped < 0.9
    wave.requires_grad_()
    for lengths in (None, torch.tensor([75, 40])):
        assert torch.autograd.gradcheck(
            lambda w, n=lengths: log_mel(w, spec, padding=padding, lengths=n), wave
        )


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_log_mel_takes_what_lies_behind_a_length_for_silence(dtype: torch.dtype) -> None:
    lengths = torch.tensor([700, 0, 350, 701, -1], dtype=dtype)
    wave = noise(5, 700)
    silent = torch.where(torch.arange(700) < lengths[:, None], wave, 0)
    wave[silent == 0] = torch.nan
    wave.requires_grad_()
    found = log_mel(wave, SMALL, lengths=lengths)
    assert torch.equal(found, log_mel(silent, SMALL))
    (gradient,) = torch.autograd.grad(found.square().sum(), wave)
    assert gradient.isfinite().all()
    assert ((gradient != 0) <= (silent != 0)).all()
    assert gradient[0].any()


def test_log_mel_gradient_in_single_precision() -> None:
    wave = noise(1, 4000, seed=4).requires_grad_()
    upstream = noise(1, 96, 16, seed=5)
    (found,) = torch.autograd.grad(log_mel(wave, LITE), wave, upstream)
    exact = wave.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(log_mel(exact, LITE), exact, upstream.double())
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    silent = torch.zeros(1, 4000, requires_grad=True)
    (none,) = torch.autograd.grad(log_mel(silent, LITE).sum(), silent)
    assert not none.any()


# ---- nearest_code


def brute_nearest(x: Tensor, codebook: Tensor) -> list[int]:
    """Return the lowest index within 1e-6 of the nearest, by all distances in float64."""
    codes = codebook.double().numpy()
    found = []
    for row in x.double().numpy():
        distances = np.sqrt(((codes - row) ** 2).sum(axis=1))
        found.append(int(np.flatnonzero(distances <= distances.min() * (1 + 1e-6))[0]))
    return found


@settings(max_examples=examples(60))
@given(st.data())
def test_nearest_code_is_its_definition(data: st.DataObject) -> None:
    rows, codes = data.draw(st.integers(0, 20)), data.draw(st.integers(1, 150))
    dim, seed = data.draw(st.integers(1, 256)), data.draw(st.integers(0, 2**32))
    scale = 10.0 ** data.draw(st.integers(-12, 12))
    shift = data.draw(st.sampled_from([0.0, 1.0, 100.0]))
    generator = torch.Generator().manual_seed(seed)
    codebook = torch.randn(codes, dim, generator=generator)
    copied = torch.rand(codes, generator=generator) < 0.3
    codebook[copied] = codebook[torch.randint(codes, (int(copied.sum()),), generator=generator)]
    x = torch.randn(rows, dim, generator=generator)
    planted = torch.rand(rows, generator=generator) < 0.6
    # midway between two codes, up to an error around the width of a tie
    pair = torch.randint(codes, (2, int(planted.sum())), generator=generator)
    off = 10.0 ** data.draw(st.integers(-8, -4)) * torch.randn(pair.shape[1], dim)
    x[planted] = codebook[pair].mean(0) + off
    x, codebook = (x + shift) * scale, (codebook + shift) * scale
    found = nearest_code(x, codebook)
    assert found.dtype == torch.int32
    assert found.tolist() == brute_nearest(x, codebook)


@pytest.mark.parametrize("rows", [1024, 1101])
def test_nearest_code_with_many_rows_and_codes(rows: int) -> None:
    """There are more rows than are scored at once, a whole number of times and not."""
    codebook = noise(8192, 24, seed=6)
    x = noise(rows, 24, seed=7)
    x[5], x[600], x[-1] = codebook[8191], codebook[0], codebook[4096]
    distances = torch.cdist(
        x.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    nearest = distances.min(dim=1, keepdim=True).values
    expected = (distances <= nearest * (1 + 1e-6)).double().argmax(dim=1)
    found = nearest_code(x, codebook)
    assert torch.equal(found, expected.int())
    assert (found[5], found[600], found[-1]) == (8191, 0, 4096)


def test_nearest_code_ties() -> None:
    def of(*codes: float) -> int:
        return int(nearest_code(torch.zeros(1, 1), torch.tensor(codes)[:, None]))

    assert of(1, -1, 1) == 0
    assert of(2, 1, -1, 1) == 1
    assert of(1 + 4e-7, 1) == 0  # within 1e-6 of the nearest: the lowest index
    assert of(1 + 4e-6, 1) == 1
    assert of(1.00000155, 1.0000008, 1) == 1  # within 1e-6 of the nearest, not of each other
    assert of(0, 0) == 0
    assert of(1e-30, 0) == 1  # nothing is within a fraction of zero
    spread = torch.cat((torch.eye(40), -torch.eye(40)))
    assert nearest_code(torch.zeros(3, 40), spread).tolist() == [0, 0, 0]
    assert nearest_code(noise(9, 3), noise(1, 3)).tolist() == [0] * 9


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_nearest_code_of_a_row_does_not_depend_on_the_others(precision: str) -> None:
    codebook = noise(500, 24, seed=8)
    x = noise(64, 24, seed=9)
    x[::4] = (codebook[:16] + codebook[100:116]) / 2
    x[3] = x[60] = x[31]
    torch.set_float32_matmul_precision(precision)
    try:
        together = nearest_code(x, codebook)
        alone = torch.cat([nearest_code(row[None], codebook) for row in x])
        order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
        repeated = nearest_code(x[order].repeat(13, 1), codebook).view(13, 64)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert together.tolist() == brute_nearest(x, codebook)
    assert torch.equal(alone, together)
    assert torch.equal(repeated, together[order].expand(13, -1))
    assert together[3] == together[60] == together[31]


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e19, 1e30])
def test_nearest_code_of_numbers_whose_squares_overflow(scale: float) -> None:
    x, codebook = noise(9, 8, seed=10) * scale, noise(20, 8, seed=11) * scale
    assert nearest_code(x, codebook).tolist() == brute_nearest(x, codebook)
    assert nearest_code(x, codebook / scale).tolist() == brute_nearest(x, codebook / scale)


@pytest.mark.slow
def test_nearest_code_of_a_collapsed_codebook_needs_little_memory() -> None:
    """Every code ties, and the exact distances must not be held for all pairs at once."""
    x, codebook = noise(320, 64, seed=12), noise(1, 64, seed=13).expand(1024, -1)
    with torch.profiler.profile(profile_memory=True) as profile:
        assert not nearest_code(x, codebook).any()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 64 * 2**20


def test_nearest_code_takes_any_layout_and_precision() -> None:
    x, codebook = noise(12, 40, seed=14).t(), noise(12, 30, seed=15).t()
    expected = brute_nearest(x, codebook)
    assert nearest_code(x, codebook).tolist() == expected
    assert nearest_code(x.double(), codebook.double()).tolist() == expected
    for dtype in (torch.float16, torch.bfloat16):
        half = x.to(dtype), codebook.to(dtype)
        assert nearest_code(*half).tolist() == brute_nearest(*half)
        assert nearest_code(half[0], codebook).tolist() == brute_nearest(half[0], codebook)
    fine = codebook.double() * (1 + 1e-9 * torch.arange(12))  # far less than float32 can tell
    assert nearest_code(x.double(), fine).tolist() == brute_nearest(x.double(), fine)


# ---- upsample_conv1d


def activated(value: float, activation: str, alpha: float) -> float:
    if activation == "snake":
        return value + math.sin(alpha * value) ** 2 / (alpha + 1e-9)
    if activation == "leaky_relu":
        return value if value > 0 else 0.1 * value
    if activation == "gelu":
        return value * 0.5 * (1 + math.erf(value / math.sqrt(2)))
    if activation == "silu":
        return value / (1 + math.exp(-value))
    return value


def direct_upsample(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: int,
    activation: str,
    alpha: Array | None,
    residual: Array | None,
) -> Array:
    """Compute the definition: each input step adds its weights, `stride` further on; then cut."""
    batch, channels_in, steps = x.shape
    kernel = weight.shape[2]
    full = np.zeros((batch, weight.shape[1], (steps - 1) * stride + kernel))
    for b, c, t in np.ndindex(batch, channels_in, steps):
        value = activated(x[b, c, t], activation, 0.0 if alpha is None else alpha[c])
        full[b, :, t * stride : t * stride + kernel] += value * weight[c]
    front = (kernel - stride) // 2
    result: Array = full[:, :, front : front + steps * stride]
    if bias is not None:
        result = result + bias[:, None]
    return result if residual is None else result + residual


@st.composite
def upsamplings(draw: st.DrawFn) -> dict[str, Any]:
    stride = draw(st.integers(1, 6))
    kernel = stride * draw(st.integers(1, 4))
    batch, steps = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    channels_in, channels_out = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    activation = draw(st.sampled_from(ACTIVATIONS))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    alpha = drawn(channels_in).abs() * draw(st.sampled_from([0.0, 1.0, 3.0]))
    return {
        "x": drawn(batch, channels_in, steps),
        "weight": drawn(channels_in, channels_out, kernel) / (channels_in * kernel / stride) ** 0.5,
        "bias": drawn(channels_out) if draw(st.booleans()) else None,
        "stride": stride,
        "activation": activation,
        "alpha": alpha if activation == "snake" else None,
        "residual": drawn(batch, channels_out, steps * stride) if draw(st.booleans()) else None,
    }


def with_tensors(arguments: dict[str, Any], change: Callable[[Tensor], Any]) -> dict[str, Any]:
    return {k: change(v) if isinstance(v, Tensor) else v for k, v in arguments.items()}


@settings(max_examples=examples(80))
@given(upsamplings())
def test_upsample_conv1d_is_its_definition(arguments: dict[str, Any]) -> None:
    expected = direct_upsample(**with_tensors(arguments, lambda t: t.double().numpy()))
    found = upsample_conv1d(**arguments)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert found.shape == expected.shape
    allowed = tolerance("upsample_conv1d")
    error = np.abs(found.numpy() - expected)
    assert (error <= allowed.atol + allowed.rtol * np.abs(expected)).all()
    exact = upsample_conv1d(**with_tensors(arguments, Tensor.double))
    assert exact.dtype == torch.float64
    assert np.abs(exact.numpy() - expected).max() <= 1e-12


@settings(max_examples=examples(25))
@given(upsamplings())
def test_upsample_conv1d_takes_any_layout(arguments: dict[str, Any]) -> None:
    def strided(tensor: Tensor) -> Tensor:
        """Return the same numbers, steps apart and axes swapped in memory."""
        spaced = tensor.movedim(0, -1).contiguous().repeat_interleave(2, dim=-1)
        return spaced[..., ::2].movedim(-1, 0)

    found = upsample_conv1d(**with_tensors(arguments, strided))
    assert found.is_contiguous()
    torch.testing.assert_close(found, upsample_conv1d(**arguments), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@settings(max_examples=examples(25))
@given(upsamplings())
def test_upsample_conv1d_in_half_precision(dtype: torch.dtype, arguments: dict[str, Any]) -> None:
    """The error is a few roundings of the numbers that are summed."""
    half = with_tensors(arguments, lambda tensor: tensor.to(dtype))
    found = upsample_conv1d(**half)
    assert found.dtype == dtype
    expected = direct_upsample(**with_tensors(half, lambda t: t.double().numpy()))
    summed = direct_upsample(**with_tensors(half, lambda t: np.abs(t.double().numpy())))
    error = np.abs(found.double().numpy() - expected)
    assert (error <= 8 * torch.finfo(dtype).eps * (1 + np.abs(summed))).all()


@pytest.mark.parametrize(
    ("activation", "stride", "kernel"),
    [
        ("none", 3, 6),
        ("none", 1, 3),
        ("snake", 2, 4),
        ("snake", 3, 3),
        ("leaky_relu", 1, 3),
        ("gelu", 2, 4),
        ("silu", 3, 6),
    ],
)
def test_upsample_conv1d_gradient(activation: str, stride: int, kernel: int) -> None:
    x, weight = noise(2, 3, 4, amplitude=1), noise(3, 2, kernel, seed=1)
    alpha = noise(3, seed=2).abs() + 0.3 if activation == "snake" else None
    bias, residual = noise(2, seed=3), noise(2, 2, 4 * stride, seed=4)
    given_tensors = (x, weight, bias, residual) + (() if alpha is None else (alpha,))
    inputs = tuple(tensor.double().requires_grad_() for tensor in given_tensors)

    def call(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor, *alpha: Tensor) -> Tensor:
        return upsample_conv1d(
            x,
            weight,
            bias,
            stride,
            activation=activation,
            alpha=alpha[0] if alpha else None,
            residual=residual,
        )

    assert torch.autograd.gradcheck(call, inputs)
    # without the optional ones, and where only one asks
    for index in (0, 1):
        asking = [t.detach().requires_grad_(i == index) for i, t in enumerate(inputs)]
        extra = {"alpha": asking[4]} if alpha is not None else {}
        output = upsample_conv1d(asking[0], asking[1], None, stride, activation=activation, **extra)
        (found,) = torch.autograd.grad(output.sum(), asking[index])
        assert found.shape == inputs[index].shape
        assert found.any()


# ---- convnext1d


def block(
    batch: int = 2,
    channels: int = 4,
    hidden: int = 6,
    kernel: int = 3,
    steps: int = 9,
    seed: int = 0,
    amplitude: float = 0.7,
) -> dict[str, Tensor]:
    """Return arguments with channels so far apart that no norm magnifies rounding errors."""
    shapes = (
        (channels, 1, kernel),
        (channels,),
        (channels,),
        (channels,),
        (hidden, channels),
        (hidden,),
        (channels, hidden),
        (channels,),
        (channels,),
    )
    x = noise(batch, channels, steps, seed=seed, amplitude=amplitude)
    drawn = [noise(*shape, seed=seed + 1 + i, amplitude=0.7) for i, shape in enumerate(shapes)]
    drawn[0] /= kernel**0.5
    drawn[1] = torch.linspace(-2, 2, channels) * amplitude
    return {"x": x, **dict(zip(Parameters._fields, drawn, strict=True))}


def direct_convnext1d(
    x: Array,
    depthwise_weight: Array,
    depthwise_bias: Array,
    norm_weight: Array,
    norm_bias: Array,
    expand_weight: Array,
    expand_bias: Array,
    contract_weight: Array,
    contract_bias: Array,
    scale: Array,
) -> Array:
    """Compute the definition, one step of one clip after the other."""
    batch, channels, length = x.shape
    kernel = depthwise_weight.shape[2]
    out = np.zeros((batch, channels, length - kernel + 1))
    for b, _, t in np.ndindex(batch, 1, out.shape[2]):
        y = (x[b, :, t : t + kernel] * depthwise_weight[:, 0]).sum(axis=1) + depthwise_bias
        y = (y - y.mean()) / np.sqrt(y.var() + 1e-6) * norm_weight + norm_bias
        z = expand_weight @ y + expand_bias
        z = np.array([activated(value, "gelu", 0) for value in z])
        out[b, :, t] = (contract_weight @ z + contract_bias) * scale + x[b, :, t + kernel // 2]
    return out


@settings(max_examples=examples(40))
@given(
    batch=st.integers(0, 3),
    channels=st.integers(1, 9),
    hidden=st.integers(1, 9),
    half_kernel=st.integers(0, 5),
    steps=st.integers(1, 9),
    quiet=st.sampled_from([0.7, 1e-3]),  # where the norm's epsilon counts
    seed=st.integers(0, 2**32),
)
def test_convnext1d_is_its_definition(
    batch: int, channels: int, hidden: int, half_kernel: int, steps: int, quiet: float, seed: int
) -> None:
    kernel = 2 * half_kernel + 1
    arguments = block(batch, channels, hidden, kernel, steps + kernel - 1, seed, quiet)
    expected = direct_convnext1d(**with_tensors(arguments, lambda t: t.double().numpy()))
    exact = convnext1d(**with_tensors(arguments, Tensor.double))
    assert exact.dtype == torch.float64
    assert exact.shape == expected.shape
    np.testing.assert_allclose(exact.numpy(), expected, rtol=0, atol=1e-11)
    found = convnext1d(**arguments)
    assert found.dtype == torch.float32
    assert found.transpose(1, 2).is_contiguous()
    allowed = tolerance("convnext1d")
    np.testing.assert_allclose(found.numpy(), expected, rtol=allowed.rtol, atol=allowed.atol)


def test_convnext1d_takes_any_layout_and_half_precision() -> None:
    arguments = block()
    expected = convnext1d(**arguments)
    for change in (
        lambda t: t.movedim(0, -1).contiguous().repeat_interleave(2, -1)[..., ::2].movedim(-1, 0),
        lambda t: torch.nn.functional.pad(t, (3, 2))[..., 3:-2],
        lambda t: t.mT.contiguous().mT if t.ndim > 1 else t,
    ):
        found = convnext1d(**with_tensors(arguments, change))
        assert found.transpose(1, 2).is_contiguous()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    for dtype in (torch.float16, torch.bfloat16):
        half = with_tensors(arguments, lambda t, dtype=dtype: t.to(dtype))
        found = convnext1d(**half)
        assert found.dtype == dtype
        assert torch.equal(found, convnext1d(**with_tensors(half, Tensor.float)).to(dtype))


def test_convnext1d_gradient() -> None:
    arguments = with_tensors(block(1, 4, 3, 3, 5), lambda t: t.double().requires_grad_())
    assert torch.autograd.gradcheck(convnext1d, tuple(arguments.values()))
    with torch.no_grad():
        assert not convnext1d(**arguments).requires_grad
    for name in arguments:  # where only one asks
        alone = {key: value.detach() for key, value in arguments.items()}
        alone[name].requires_grad_()
        (found,) = torch.autograd.grad(convnext1d(**alone).square().sum(), alone[name])
        assert found.any()


# ---- all of them


def test_what_is_refused() -> None:
    wave, x, w = torch.zeros(1, 2000), torch.zeros(2, 4, 5), torch.zeros(4, 3, 6)
    layer = block()
    for call, words in [
        (lambda: log_mel(torch.zeros(2000), LITE), r"\[batch, samples\].*float32 \[2000\]"),
        (lambda: log_mel(wave[None], LITE), r"float32 \[1, 1, 2000\]"),
        (lambda: log_mel(wave.int(), LITE), r"floating point.*int32 \[1, 2000\]"),
        (lambda: log_mel(wave[:, :1023], LITE, padding=(0, 0)), "1023 samples.*window of 1024"),
        (lambda: log_mel(wave[:, :0], LITE), "0 samples with 384 . 639 zeros"),
        (
            lambda: log_mel(wave, LITE, lengths=torch.tensor([3, 4])),
            r"lengths must be int32 or int64 \[1\] on cpu, not int64 \[2\]",
        ),
        (lambda: log_mel(wave, LITE, lengths=torch.tensor([3.0])), r"not float32 \[1\]"),
        (
            lambda: log_mel(wave, LITE, lengths=torch.zeros(1, dtype=torch.int32, device="meta")),
            r"on cpu, not int32 \[1\] on meta",
        ),
        (lambda: nearest_code(torch.zeros(3), torch.zeros(4, 3)), r"float32 \[3\] and"),
        (lambda: nearest_code(torch.zeros(2, 3), torch.zeros(4, 2)), r"\[2, 3\] and .*\[4, 2\]"),
        (lambda: nearest_code(torch.zeros(2, 3), torch.zeros(0, 3)), r"\[0, 3\]"),
        (lambda: nearest_code(torch.zeros(2, 3), torch.zeros(1, 4, 3)), r"\[1, 4, 3\]"),
        (lambda: upsample_conv1d(x[0], w, None, 3), r"x must be.*\[4, 5\]"),
        (lambda: upsample_conv1d(x, w[:3], None, 3), r"\[3, 3, 6\]"),
        (lambda: upsample_conv1d(x, w, None, 4), "kernel 6 is no multiple of stride 4"),
        (lambda: upsample_conv1d(x, w, None, 0), "stride 0"),
        (lambda: upsample_conv1d(x, w[..., :0], None, 3), "kernel 0"),
        (lambda: upsample_conv1d(x[..., :0], w, None, 3), "steps"),
        (lambda: upsample_conv1d(x, w, torch.zeros(4), 3), "bias must be"),
        (lambda: upsample_conv1d(x, w, None, 3, activation="relu"), "one of none, snake.*'relu'"),
        (lambda: upsample_conv1d(x, w, None, 3, activation="snake"), "alpha"),
        (lambda: upsample_conv1d(x, w, None, 3, alpha=torch.ones(4)), "alpha"),
        (
            lambda: upsample_conv1d(x, w, None, 3, activation="snake", alpha=torch.ones(3)),
            "alpha",
        ),
        (
            lambda: upsample_conv1d(x, w, None, 3, residual=torch.zeros(2, 3, 14)),
            r"residual must be \[2, 3, 15\], not float32 \[2, 3, 14\]",
        ),
        (lambda: convnext1d(**layer | {"x": x[0]}), r"float32 \[4, 5\] and float32 \[4, 1, 3\]"),
        (lambda: convnext1d(**layer | {"x": x.int()}), r"floating point.*int32"),
        (lambda: convnext1d(**layer | {"x": x[..., :2]}), r"at most steps.*\[2, 4, 2\]"),
        (lambda: convnext1d(**layer | {"depthwise_weight": w[:, :1, :4]}), r"odd.*\[4, 1, 4\]"),
        (lambda: convnext1d(**layer | {"depthwise_weight": w[:, 0]}), r"float32 \[4, 6\]"),
        *(
            (
                lambda name=name: convnext1d(**layer | {name: layer[name][..., :0]}),
                rf"{name} must be \[.*\], not float32 \[.*0\]",
            )
            for name in Parameters._fields[1:]
        ),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            call()  # type: ignore[no-untyped-call]
        assert "\n" not in str(caught.value)


@pytest.fixture
def samples() -> dict[str, tuple[Any, ...]]:
    """Return the arguments of a few calls for each operator."""
    framing, scaling = [16000, 64, 16, 6, 24, 39], [1e-3, -1.0, 2.0]
    x, weight, residual = noise(2, 4, 5), noise(4, 3, 6), noise(2, 3, 15)
    wave = noise(2, 300)
    ask = torch.Tensor.requires_grad_
    return {
        "log_mel": (
            (wave, framing, scaling, None),
            (ask(wave.clone()), framing, scaling, None),
            (ask(wave.clone()), framing, scaling, torch.tensor([300, 200])),
            (wave.double(), framing, scaling, None),
            (wave.half(), framing, scaling, torch.tensor([300, 200], dtype=torch.int32)),
        ),
        "log_mel_gradient": (
            (noise(2, 6, 19), wave, framing, scaling, None),
            (noise(2, 6, 19), wave.t().contiguous().t(), framing, scaling, torch.tensor([9, 300])),
        ),
        "nearest_code": ((noise(7, 3), noise(9, 3)), (noise(3, 7).t(), noise(9, 3).double())),
        "upsample_conv1d": (
            (x, weight, None, 3, "none", None, None),
            (x, weight, noise(3), 3, "snake", torch.ones(4), residual),
            (ask(x.clone()), ask(weight.clone()), None, 3, "gelu", None, ask(residual.clone())),
            (x.transpose(0, 2).contiguous().transpose(0, 2), weight, None, 3, "silu", None, None),
            (x.double(), weight.double(), None, 6, "leaky_relu", None, None),
        ),
        "convnext1d": (
            tuple(block().values()),
            tuple(block(kernel=1, steps=1).values()),
            tuple(tensor.half() for tensor in block().values()),
            (block()["x"].mT.contiguous().mT, *[*block().values()][1:]),
            tuple(
                tensor.t() if tensor.ndim == 2 else tensor for tensor in block(hidden=4).values()
            ),
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "operator", ["log_mel", "log_mel_gradient", "nearest_code", "upsample_conv1d", "convnext1d"]
)
@pytest.mark.filterwarnings("ignore:.*The CUDA Graph is empty.*")
def test_opcheck(operator: str, samples: dict[str, tuple[Any, ...]]) -> None:
    for arguments in samples[operator]:
        torch.library.opcheck(getattr(torch.ops.melcap, operator).default, arguments)


@pytest.mark.slow
def test_compiled_is_eager() -> None:
    """Each operation is one graph, forward and backward, and lengths recompile it once at most."""

    def mel(wave: Tensor) -> Tensor:
        return log_mel(wave * 2, SMALL) + 1

    def nearest(x: Tensor) -> Tensor:
        return nearest_code(x * 2, torch.eye(6)) + 1

    def upsample(x: Tensor) -> Tensor:
        alpha, residual = torch.ones(6), torch.ones(len(x), 3, x.shape[2] * 3)
        weight = torch.arange(6 * 3 * 6.0).view(6, 3, 6) / 50
        y = upsample_conv1d(
            x * 2, weight, None, 3, activation="snake", alpha=alpha, residual=residual
        )
        return y * 3

    parameters = list(block(channels=6).values())[1:]

    def convnext(x: Tensor) -> Tensor:
        return convnext1d(x * 2, *parameters) + 1

    for call, shapes in [
        (convnext, [(2, 6, 5), (2, 6, 9), (2, 6, 12)]),
        (mel, [(2, 400), (2, 500), (2, 777)]),
        (nearest, [(5, 6), (9, 6), (17, 6)]),
        (upsample, [(2, 6, 5), (2, 6, 9), (2, 6, 12)]),
    ]:
        torch._dynamo.reset()
        compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
        limited = torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True)
        with limited:
            for shape in shapes:
                x = noise(*shape, seed=16, amplitude=1).requires_grad_(call is not nearest)
                assert torch.equal(compiled(x), call(x))
                if call is not nearest:
                    (found,) = torch.autograd.grad(compiled(x).square().sum(), x)
                    (expected,) = torch.autograd.grad(call(x).square().sum(), x)
                    torch.testing.assert_close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codes", "backend"),
    [
        (1, "torch"),
        (7, "torch"),
        (64, "torch"),
        (300, "torch"),
        (1, "triton"),
        (64, "triton"),
        (300, "triton"),
    ],
)
def test_no_code_outside_the_codebook_for_nan_or_infinity(codes: int, backend: str) -> None:
    x, codebook = noise(9, 8), noise(codes, 8)
    x[1, 2], x[2, 3], x[3], x[4] = torch.nan, torch.inf, -torch.inf, 3e38
    with melcap.use_backend(backend):
        found = nearest_code(x, codebook)
        for broken in (codebook * torch.nan, codebook * torch.inf):
            all_found = nearest_code(x[:5], broken)
            assert all_found.min() >= 0
            assert all_found.max() < codes
    assert found[1] == codes - 1, "what is near to nothing gets the last index"
    assert found.min() >= 0
    assert found.max() < codes
    good = [0, *range(5, 9)]
    assert torch.equal(found[good], nearest_code(x[good], codebook))
