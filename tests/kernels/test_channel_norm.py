"""Compare the kernels of channel_norm with float64, in the interpreter or on a device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import melcap
from melcap.errors import BackendError
from melcap.kernels import channel_norm as kernels
from melcap.kernels.channel_norm import launches
from melcap.kernels.launch import launched, run
from melcap.ops import channel_norm, registry
from melcap.ops.channel_norm import channel_norm_gradient, channel_norm_reference
from melcap.ops.numerics import EPSILON
from tests.helpers import examples, in_nan, noise

FORWARD, BACKWARD = "channel_norm_kernel", "channel_norm_gradient_kernel"
LAYOUTS = ("channels last", "channels apart", "every other position")
Arguments = tuple[Tensor, Tensor, Tensor]

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def laid_out(x: Tensor, layout: str) -> Tensor:
    """Return the same numbers in memory that is NaN elsewhere."""
    if layout == "channels last":
        return in_nan(x.movedim(1, -1)).movedim(-1, 1)
    if layout == "channels apart":
        return in_nan(x)
    memory = x.new_full((*x.shape[:-1], 2 * x.shape[-1]), torch.nan)
    memory[..., ::2] = x
    return memory[..., ::2]


def drawn(
    *shape: int,
    seed: int = 0,
    layout: str = "channels last",
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Arguments:
    """Return x, weight, bias; channels lie so far apart that no norm magnifies rounding."""
    channels = shape[1]
    apart = torch.linspace(-2, 2, channels).view(-1, *(1,) * (len(shape) - 2))
    x = (noise(*shape, seed=seed, amplitude=0.7) + apart).to(device, dtype)
    weight, bias = (noise(channels, seed=seed + i, amplitude=1).to(device) for i in (1, 2))
    return laid_out(x, layout), in_nan(weight), in_nan(bias)


def on_triton(arguments: Arguments, activation: str) -> Tensor:
    """Run channel_norm on the Triton backend and check that its kernel ran once."""
    before = launched[FORWARD]
    with melcap.use_backend("triton"), torch.no_grad():
        found = channel_norm(*arguments, activation=activation)
    assert launched[FORWARD] == before + 1
    return found


def gradients(upstream: Tensor, arguments: Arguments, activation: str) -> tuple[Tensor, ...]:
    """Return the gradients on the Triton backend; check that the kernel ran once."""
    leaves = [argument.detach().requires_grad_() for argument in arguments]
    before = launched[BACKWARD]
    with melcap.use_backend("triton"):
        y = torch.ops.melcap.channel_norm(*leaves, activation)
        found = torch.autograd.grad(y, leaves, upstream)
    assert launched[BACKWARD] == before + 1
    return found


def assert_close(found: Tensor, expected: Tensor, dtype: torch.dtype, scale: Tensor) -> None:
    """Check the registry's tolerance, its absolute part times `scale`; say where it fails."""
    assert found.shape == expected.shape
    assert not found.isnan().any(), f"NaN at {found.isnan().nonzero()[0].tolist()}"
    tolerance = registry.implementation("channel_norm", "triton").tolerances[dtype]
    error = (found.double() - expected).abs()
    excess = error / (tolerance.atol * scale + tolerance.rtol * expected.abs())
    where = [int(i) for i in torch.unravel_index(excess.argmax(), excess.shape)]
    assert excess.max() <= 1, f"{float(error[tuple(where)]):.1e} at {where}"


def check(arguments: Arguments, activation: str) -> Tensor:
    """Check the forward pass against float64 and return the result."""
    found = on_triton(arguments, activation)
    x = arguments[0]
    assert found.dtype == x.dtype
    assert found.movedim(1, -1).is_contiguous()
    expected = channel_norm_reference(*(t.double() for t in arguments), activation)
    assert_close(found, expected, x.dtype, x.new_ones(()).double())
    return found


def check_gradients(arguments: Arguments, activation: str, seed: int = 0) -> None:
    """Check the backward pass against float64.

    Rounding adds up over what a gradient sums: for x the channels of its position, for weight and
    bias all positions.
    """
    x, weight, _ = arguments
    upstream = noise(*x.shape, seed=seed + 9, amplitude=1).to(x.device, x.dtype)
    found = gradients(upstream, arguments, activation)
    exact = [t.double() for t in arguments]
    expected = channel_norm_gradient(upstream.double(), *exact, activation)
    inverse = (exact[0].var(1, correction=0, keepdim=True) + EPSILON).rsqrt()
    slopes = upstream.double().abs() * 1.1 * weight.double().abs().amax()
    to_x = (slopes + slopes.mean(1, keepdim=True)) * inverse
    normed = channel_norm_reference(exact[0], *(torch.ones_like(weight), exact[2] * 0), "none")
    others = [axis for axis in range(x.ndim) if axis != 1]
    steepness = 1.1 * (1 + exact[1].abs())  # of what rounding in a result makes of SiLU's slope
    to_weight = (upstream.double() * normed).abs().sum(others) * steepness
    to_bias = upstream.double().abs().sum(others) * steepness
    assert found[0].dtype == x.dtype
    assert_close(found[0], expected[0], x.dtype, to_x + 1)
    assert_close(found[1], expected[1], torch.float32, to_weight + 1)
    assert_close(found[2], expected[2], torch.float32, to_bias + 1)


shapes = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(2, 140), st.integers(1, 150)),
    st.tuples(st.integers(1, 3), st.integers(2, 70), st.integers(1, 9), st.integers(1, 20)),
    st.tuples(st.integers(1, 200), st.integers(2, 70)),
)


@pytest.mark.slow
@settings(max_examples=examples(12))
@given(
    shape=shapes,
    layout=st.sampled_from(LAYOUTS),
    activation=st.sampled_from(["none", "silu"]),
    seed=st.integers(0, 99),
)
@example((2, 32, 8, 17), "channels last", "silu", 0)
@example((1, 32, 128), "channels apart", "none", 0)  # one whole tile
@example((3, 33, 65), "channels apart", "silu", 0)
@example((1, 1, 5), "channels last", "none", 0)
@example((70, 20), "channels apart", "silu", 0)
@example((2, 51, 3, 12), "every other position", "none", 0)
@example((2, 1100, 3), "channels last", "silu", 0)
@example((1, 4096, 3), "channels apart", "silu", 0)
def test_any_shape_and_layout(
    shape: tuple[int, ...], layout: str, activation: str, seed: int
) -> None:
    arguments = drawn(*shape, seed=seed, layout=layout)
    check(arguments, activation)
    check_gradients(arguments, activation, seed)


@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("shape", [(2, 32, 5, 13), (1, 70, 90)])
def test_half_precision(shape: tuple[int, ...], activation: str) -> None:
    """Under autocast x has 16 bits, weight and bias have 32."""
    arguments = drawn(*shape, dtype=torch.float16)
    check(arguments, activation)
    check_gradients(arguments, activation)


@pytest.mark.parametrize(("channels", "tile"), [(32, 64), (51, 32)])
def test_more_tiles_than_programs(
    channels: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program sums up several tiles, some programs one more than others."""
    monkeypatch.setattr(launches, "PROGRAMS", 3)
    steps = tile * 7 + 5
    arguments = drawn(1, channels, steps)
    assert len(launches.scratch(steps, channels, torch.device("cpu"))) == 3
    check_gradients(arguments, "silu")


def test_nothing_is_written_elsewhere() -> None:
    x, weight, bias = drawn(2, 20, 75)
    rows = x.movedim(1, -1).reshape(-1, 20)
    out = in_nan(torch.zeros(2, 75, 20))
    run(launches.plan(x.movedim(1, -1), weight, bias, "silu", out))
    back = in_nan(torch.zeros(150, 20))
    sums = in_nan(torch.zeros(launches.scratch(150, 20, x.device).shape))
    run(launches.plan_gradient(rows, rows, weight, bias, "silu", back, sums))
    for written in (out, back, sums):
        memory = torch.as_strided(written, (written.numel() + 8192,), (1,), 0)
        assert int(memory.isnan().sum()) == 8192


@pytest.mark.slow
def test_a_position_gives_the_same_bits_anywhere() -> None:
    """This holds in any batch, any part of a clip and any layout."""
    arguments = x, weight, bias = drawn(3, 40, 300)
    whole = on_triton(arguments, "silu")
    for part in (x[1:2], x[..., 37:150], x.contiguous(), x.flip(0)):
        found = on_triton((part, weight, bias), "silu")
        if part.shape == x[1:2].shape:
            expected = whole[1:2]
        elif part.shape == x.shape:
            expected = whole if torch.equal(part, x) else whole.flip(0)
        else:
            expected = whole[..., 37:150]
        assert torch.equal(found, expected)


def test_vectors_with_gaps() -> None:
    x, *vectors = drawn(2, 40, 30)
    apart = [torch.stack((v, torch.full_like(v, torch.nan)), dim=1)[:, 0] for v in vectors]
    assert torch.equal(on_triton((x, *apart), "silu"), on_triton((x, *vectors), "silu"))
    expected = gradients(x, (x, *vectors), "silu")
    for found, other in zip(gradients(x, (x, *apart), "silu"), expected, strict=True):
        assert torch.equal(found, other)


def test_it_survives_a_loud_constant() -> None:
    """Mean and variance come one after the other: channels equal to three digits still differ."""
    x, weight, bias = drawn(1, 24, 50)
    arguments = (x + 1000, weight, bias)
    expected = channel_norm_reference(*(t.double() for t in arguments), "none")
    error = (on_triton(arguments, "none").double() - expected).abs().max()
    assert error <= 1000 * 5e-7


@pytest.mark.parametrize("amplitude", [1e-3, 0.0])
def test_next_to_nothing(amplitude: float) -> None:
    """The variance is near epsilon, or zero."""
    x, weight, bias = drawn(1, 24, 50)
    check((x * amplitude, weight, bias), "silu")


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # the interpreter's numpy
def test_loud_results_saturate() -> None:
    """SiLU is 0 or the number itself, and its slope 0 or 1, where the exponential overflows."""
    x, weight, bias = drawn(1, 8, 20)
    arguments = x, weight * 1e4, bias
    check(arguments, "silu")
    found = gradients(torch.ones_like(x), arguments, "silu")
    assert all(gradient.isfinite().all() for gradient in found)


def test_on_a_cpu_networks_that_learn_do_without() -> None:
    """There plain PyTorch keeps what the backward pass needs."""
    leaves = [t.requires_grad_() for t in drawn(2, 6, 20)]
    before = launched.copy()
    with melcap.use_backend("triton"):
        y = channel_norm(*leaves, activation="silu")
        found = torch.autograd.grad(y, leaves, torch.ones_like(y))
    assert launched == before
    expected = channel_norm_gradient(torch.ones_like(y), *leaves, "silu")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_an_empty_batch_launches_nothing() -> None:
    before = launched.copy()
    x, weight, bias = (t.requires_grad_() for t in drawn(0, 6, 20))
    with melcap.use_backend("triton"):
        y = torch.ops.melcap.channel_norm(x, weight, bias, "silu")
        found = torch.autograd.grad(y.sum(), (x, weight, bias))
    assert y.shape == (0, 6, 20)
    assert [list(gradient.shape) for gradient in found] == [[0, 6, 20], [6], [6]]
    assert not found[1].any()
    assert launched == before


def test_refusals() -> None:
    x, weight, bias = drawn(1, 4, 9)
    for arguments, reason in [
        (drawn(1, 4097, 2), "at most 4096 channels fit on the chip, not 4097"),
        ((x.double(), weight, bias), "not torch.float64"),
        ((x.bfloat16(), weight, bias), "bfloat16 wrongly"),
        ((x, weight.bfloat16(), bias), "bfloat16 wrongly"),
    ]:
        with melcap.use_backend("triton"), pytest.raises(BackendError, match=reason):
            channel_norm(*arguments)
    endless = torch.zeros(1, 4, 1).expand(-1, -1, 2**31)
    (reason,) = kernels.unsupported(endless, weight, bias, "none")
    assert reason == "2147483648 positions are more than a kernel counts"
    (reason,) = kernels.unsupported(x.to("meta"), weight, bias, "none")
    assert reason == "tensors are on several devices: cpu, meta"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape", [(8, 32, 48, 699), (4, 128, 12, 175), (3, 256, 1729), (2, 51, 1001), (1, 4096, 33)]
)
def test_on_a_device(shape: tuple[int, ...], layout: str, dtype: torch.dtype) -> None:
    arguments = drawn(*shape, layout=layout, dtype=dtype, device="cuda")
    for activation in ("none", "silu"):
        found = check(arguments, activation)
        check_gradients(arguments, activation)
        again = on_triton((arguments[0][-1:], *arguments[1:]), activation)
        assert torch.equal(again, found[-1:])


@pytest.mark.gpu
def test_gradients_are_the_same_every_time_on_a_device() -> None:
    arguments = drawn(16, 32, 48, 699, device="cuda")
    first = gradients(arguments[0], arguments, "silu")
    for _ in range(3):
        for one, other in zip(gradients(arguments[0], arguments, "silu"), first, strict=True):
            assert torch.equal(one, other)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", ["channels last", "channels apart"])
def test_far_offsets_on_a_device(layout: str) -> None:
    """With more than 2^31 numbers the last clip is as it is alone, forward and backward."""
    clips = 2**31 // (64 * 40000) + 2
    x, weight, bias = drawn(1, 64, 40000, dtype=torch.float16, device="cuda")
    alone = on_triton((x, weight, bias), "silu")
    (back, _, _) = gradients(x, (x, weight, bias), "silu")
    many = x.new_empty((clips, 64, 40000))
    if layout == "channels last":
        many = x.new_empty((clips, 40000, 64)).mT
    many.copy_(x.expand(clips, -1, -1))
    assert torch.equal(on_triton((many, weight, bias), "silu")[-1:], alone)
    (found, _, _) = gradients(many, (many, weight, bias), "silu")
    assert torch.equal(found[-1:], back)
