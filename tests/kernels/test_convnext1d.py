"""Compare the ConvNeXt kernels with float64, in the interpreter or on a device.

Writing or reading far outside ends the interpreter. These tests cannot notice padding steps that
are not stored, tiles that overlap (the same numbers twice), and masks of what another mask throws
away (channels of the contracting weights, the skip).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import melcap
from melcap.errors import BackendError
from melcap.kernels import convnext1d as kernels
from melcap.kernels.launch import launched, run
from melcap.ops import convnext1d, registry
from melcap.ops.convnext1d import Parameters, convnext1d_reference
from melcap.ops.numerics import EPSILON
from tests.helpers import examples, in_nan, noise

KERNELS = ("convnext1d_norm", "convnext1d_mlp")
Arguments = tuple[Tensor, ...]


pytestmark = pytest.mark.usefixtures("poisoned_memory")


def between_nan(tensor: Tensor) -> Tensor:
    """Return the same numbers, rows between NaN and clips between channels of NaN."""
    batch, channels, steps = tensor.shape
    memory = in_nan(tensor.new_full((batch, channels + 3, steps + 7), torch.nan))
    return memory[:, 2:-1, 4:-3].copy_(tensor)


def drawn(
    batch: int,
    channels: int,
    hidden: int,
    kernel: int,
    steps: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Arguments:
    """Return arguments that make every part count: biases, norm and scale away from 0 and 1.

    Channels lie far enough apart that no norm magnifies what rounding left of a difference. What
    lies around the numbers in memory is NaN.
    """
    shapes = [
        ((batch, channels, steps), 0.7),
        ((channels, 1, kernel), kernel**-0.5),
        ((channels,), 0.3),
        ((channels,), 1.0),
        ((channels,), 0.3),
        ((hidden, channels), channels**-0.5),
        ((hidden,), 0.5),
        ((channels, hidden), hidden**-0.5),
        ((channels,), 0.3),
        ((channels,), 1.0),
    ]
    tensors = [
        noise(*shape, seed=seed + place, amplitude=amplitude)
        for place, (shape, amplitude) in enumerate(shapes)
    ]
    tensors[2] = torch.linspace(-2, 2, channels)
    x, *parameters = (tensor.to(device, dtype) for tensor in tensors)
    return between_nan(x), *(in_nan(parameter) for parameter in parameters)


def on_triton(arguments: Arguments) -> Tensor:
    """Run convnext1d on the Triton backend and check that its kernels ran once each."""
    before = [launched[kernel] for kernel in KERNELS]
    with melcap.use_backend("triton"):
        found = convnext1d(*arguments)
    assert [launched[kernel] for kernel in KERNELS] == [count + 1 for count in before]
    return found


def rounded(exact: Arguments, dtype: torch.dtype) -> Tensor:
    """Return the largest error of 16 bits: normalised steps, hidden layer, output are rounded.

    A rounding is relative to the number that is rounded, and sums pass it on without signs; GELU's
    slope is 1.13 at most.
    """
    x, taps, taps_bias, gain, shift, expand, expand_bias, contract, _, scale = exact
    normed = F.conv1d(x, taps, taps_bias, groups=x.shape[1]).transpose(1, 2)
    normed = F.layer_norm(normed, gain.shape, gain, shift, EPSILON)
    hidden = F.gelu(F.linear(normed, expand, expand_bias)).abs()
    hidden += 1.13 * F.linear(normed.abs(), expand.abs())
    sums = F.linear(hidden, contract.abs()) * scale.abs()
    return torch.finfo(dtype).eps / 2 * (sums.transpose(1, 2) + convnext1d_reference(*exact).abs())


def assert_close(found: Tensor, arguments: Arguments) -> None:
    """Check the registry's tolerance against float64, and what 16 bits can hold."""
    exact = tuple(argument.double() for argument in arguments)
    expected = convnext1d_reference(*exact)
    assert found.shape == expected.shape
    assert found.dtype == arguments[0].dtype
    assert found.is_contiguous()
    assert not found.isnan().any(), f"NaN at {found.isnan().nonzero()[0].tolist()}"
    error = (found.double() - expected).abs()
    tolerances = registry.implementation("convnext1d", "triton").tolerances
    tolerance = tolerances[found.dtype]
    assert error.max() <= tolerance.atol + tolerance.rtol * expected.abs().max()
    single = tolerances[torch.float32]
    allowed = single.atol + single.rtol * expected.abs()
    if found.dtype != torch.float32:
        allowed += 1.02 * rounded(exact, found.dtype)
    excess = error / allowed
    where = [int(i) for i in torch.unravel_index(excess.argmax(), excess.shape)]
    assert excess.max() <= 1, f"{float(error[tuple(where)]):.1e} at [clip, channel, step] {where}"


@pytest.mark.slow
@settings(max_examples=examples(8))
@given(
    batch=st.integers(1, 2),
    channels=st.integers(1, 70),
    hidden=st.integers(1, 100),
    half_kernel=st.integers(0, 7),
    steps=st.integers(1, 64),
    seed=st.integers(0, 99),
)
@example(1, 1, 1, 0, 1, 0)
@example(1, 5, 3, 15, 3, 0)
@example(1, 16, 32, 3, 64, 0)  # whole tiles
@example(2, 17, 33, 3, 65, 0)  # one more
@example(1, 130, 40, 3, 33, 0)
@example(1, 257, 20, 2, 33, 0)  # the tiling of many channels
@example(1, 512, 20, 1, 7, 0)
def test_any_block(
    batch: int, channels: int, hidden: int, half_kernel: int, steps: int, seed: int
) -> None:
    kernel = 2 * half_kernel + 1
    arguments = drawn(batch, channels, hidden, kernel, steps + kernel - 1, seed)
    assert_close(on_triton(arguments), arguments)


@pytest.mark.slow
@settings(max_examples=examples(4))
@given(
    batch=st.just(1),
    channels=st.integers(1, 70),
    hidden=st.integers(1, 100),
    steps=st.integers(1, 64),
    seed=st.integers(0, 99),
)
@example(1, 256, 70, 65, 0)
@example(1, 300, 70, 33, 0)
@example(2, 24, 14, 65, 1)  # an error of 3.5e-3 where the output is near zero
def test_half_precision(batch: int, channels: int, hidden: int, steps: int, seed: int) -> None:
    arguments = drawn(batch, channels, hidden, 7, steps + 6, seed, torch.float16)
    assert_close(on_triton(arguments), arguments)


@pytest.mark.slow
def test_any_layout() -> None:
    """Clips may be whole, have channels next to each other, or repeat; parameters transposed."""
    x, *parameters = drawn(2, 20, 30, 7, 20)
    expected = on_triton((x, *parameters))
    assert torch.equal(on_triton((x.contiguous(), *parameters)), expected)
    channels_last = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(on_triton((channels_last, *parameters)), expected)
    strided = [
        parameter.movedim(0, -1).contiguous().repeat_interleave(2, -1)[..., ::2].movedim(-1, 0)
        for parameter in parameters
    ]
    assert torch.equal(on_triton((x, *strided)), expected)
    alike = x[:1].expand(2, -1, -1)
    assert torch.equal(on_triton((alike, *parameters))[1], expected[0])


@pytest.mark.slow
def test_nothing_is_written_elsewhere() -> None:
    """Steps and channels fill no tile, so that the last tile ends in other memory."""
    arguments = x, *parameters = drawn(2, 20, 30, 7, 75)
    out = in_nan(torch.zeros(2, 20, 69))
    normed = in_nan(torch.zeros(kernels.scratch(out).shape))
    for launch in kernels.plan(x, Parameters(*parameters), normed, out):
        run(launch)
    assert_close(out, arguments)
    for written in (out, normed):
        memory = torch.as_strided(written, (written.numel() + 8192,), (1,), 0)
        assert int(memory.isnan().sum()) == 8192


@pytest.mark.slow
def test_a_clip_gives_the_same_bits_in_any_batch_and_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Products are replaced: those of some BLAS depend on a column's place."""

    def product(a: np.ndarray, b: np.ndarray, dtype: type) -> np.ndarray:
        return sum(column[:, None] * row for column, row in zip(a.T, b, strict=True))

    monkeypatch.setattr(np, "matmul", product)
    x, *parameters = drawn(2, 40, 50, 7, 76)
    together = on_triton((x, *parameters))
    alone = torch.cat([on_triton((clip[None], *parameters)) for clip in x])
    assert torch.equal(together, alone)
    part = on_triton((x[..., 5:74], *parameters))
    assert torch.equal(part, together[..., 5:68])


def test_the_norm_survives_a_loud_constant() -> None:
    """Mean and variance come one after the other: channels equal to three digits still differ."""
    x, *parameters = drawn(1, 24, 30, 1, 50)
    parameters[0] = torch.ones_like(parameters[0])
    parameters[1] = torch.zeros_like(parameters[1])
    arguments = (x + 100, *parameters)
    expected = convnext1d_reference(*(argument.double() for argument in arguments))
    error = (on_triton(arguments).double() - expected).abs().max()
    assert error <= 100 * 2e-5


def test_the_norm_of_next_to_nothing() -> None:
    """The variance is near epsilon, or zero."""
    x, *parameters = drawn(1, 24, 30, 3, 50)
    parameters[1] = torch.zeros_like(parameters[1])
    for amplitude in (1e-3, 0.0):
        arguments = (x * amplitude, *parameters)
        assert_close(on_triton(arguments), arguments)


def test_half_precision_rounds_operands_alone() -> None:
    """Sums are float32: with operands rounded alike, results are equal but for ties."""
    arguments = drawn(1, 120, 400, 7, 70, dtype=torch.float16)
    x, taps, bias, gain, shift, expand, expand_bias, contract, contract_bias, scale = (
        argument.double() for argument in arguments
    )
    y = F.conv1d(x, taps, bias, groups=120).transpose(1, 2)
    y = F.layer_norm(y, (120,), gain, shift, EPSILON).half().double()
    y = F.gelu(F.linear(y, expand, expand_bias)).half().double()
    y = F.linear(y, contract, contract_bias) * scale
    expected = (x[..., 3:-3] + y.transpose(1, 2)).half()
    assert (on_triton(arguments) == expected).double().mean() >= 0.97


def test_gelu_is_the_exact_one() -> None:
    """A norm of zeros leaves GELU of the biases; the approximation would be off by 4.7e-4."""
    size = 32
    zeros, ones = torch.zeros(size), torch.ones(size)
    arguments = (
        torch.zeros(1, size, 1),
        torch.ones(size, 1, 1),
        zeros,
        zeros,
        zeros,
        torch.eye(size),
        torch.linspace(-4, 4, size),
        torch.eye(size),
        zeros,
        ones,
    )
    found = on_triton(arguments)
    expected = torch.nn.functional.gelu(torch.linspace(-4, 4, size).double())
    assert (found[0, :, 0].double() - expected).abs().max() <= 1e-6


def test_gradients_are_the_references() -> None:
    arguments = [argument.requires_grad_() for argument in drawn(2, 6, 9, 5, 20)]
    with melcap.use_backend("triton"):
        found = torch.autograd.grad(convnext1d(*arguments).square().sum(), arguments)
    expected = torch.autograd.grad(convnext1d_reference(*arguments).square().sum(), arguments)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_an_empty_batch_launches_nothing() -> None:
    before = launched.copy()
    with melcap.use_backend("triton"):
        assert convnext1d(*drawn(0, 6, 9, 5, 20)).shape == (0, 6, 16)
    assert launched == before


def test_refusals() -> None:
    small = drawn(1, 4, 6, 3, 9)
    for arguments, reason in [
        (drawn(1, 513, 6, 3, 9), "at most 512 channels fit on the chip, not 513"),
        ((small[0], small[1].half(), *small[2:]), "one dtype"),
        (tuple(argument.double() for argument in small), "not torch.float64"),
        (tuple(argument.bfloat16() for argument in small), "bfloat16 wrongly"),
    ]:
        with melcap.use_backend("triton"), pytest.raises(BackendError, match=reason):
            convnext1d(*arguments)
    for endless in (torch.zeros(1, 4, 1).expand(-1, -1, 2**22), torch.zeros(1, 4, 2**22)[..., :9]):
        (reason,) = kernels.unsupported(endless, *small[1:])
        assert reason == "a clip may have 4194303 steps, and channels so many apart, not 4194304"
    (reason,) = kernels.unsupported(small[0].to("meta"), *small[1:])
    assert reason == "tensors are on several devices: cpu, meta"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 256, 512, 7, 178),
        (8, 256, 512, 7, 1729),
        (8, 128, 256, 7, 6897),
        (2, 512, 1536, 7, 945),
        (3, 51, 77, 31, 1000),
        (2, 16, 16, 1, 1),
        (1, 300, 1000, 3, 333),
    ],
)
def test_on_a_device(shape: tuple[int, int, int, int, int], dtype: torch.dtype) -> None:
    arguments = drawn(*shape, dtype=dtype, device="cuda")
    found = on_triton(arguments)
    assert_close(found, arguments)
    assert torch.equal(on_triton((arguments[0][-1:], *arguments[1:])), found[-1:])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_chunk_gives_the_same_bits_on_a_device(dtype: torch.dtype) -> None:
    x, *parameters = drawn(2, 256, 512, 7, 1000, dtype=dtype, device="cuda")
    whole = on_triton((x, *parameters))
    assert torch.equal(on_triton((x[..., 37:700], *parameters)), whole[..., 37:694])


@pytest.mark.gpu
def test_far_offsets_on_a_device() -> None:
    """In a batch of more than 2^31 numbers the last clip is as it is alone."""
    clips = 2**31 // (512 * 40000) + 2
    x, *parameters = drawn(1, 512, 16, 3, 40000, dtype=torch.float16, device="cuda")
    together = on_triton((x.repeat(clips, 1, 1), *parameters))
    assert torch.equal(together[-1:], on_triton((x, *parameters)))
