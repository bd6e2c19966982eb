"""Compare the launches of resblock2d with float64, in the interpreter or on a device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import melcap
from melcap.errors import BackendError
from melcap.kernels import conv2d as kernels
from melcap.kernels import resblock2d as block
from melcap.kernels.conv2d.sizes import ROOMY
from melcap.kernels.launch import launched
from melcap.ops import registry, resblock2d
from melcap.ops.resblock2d import Parameters
from tests.helpers import examples, in_nan, noise
from tests.kernels.test_conv2d import LAYOUTS, laid_out

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def drawn(
    shape: tuple[int, int, int, int],
    hidden: int,
    *,
    first: tuple[int, int] = (3, 3),
    second: tuple[int, int] = (3, 1),
    layout: str = "channels last",
    seed: int = 0,
    device: str = "cpu",
) -> tuple[Tensor, Parameters]:
    """Return x and the weights of a block, whose convolutions keep the variance."""
    channels = shape[1]

    def vector(size: int, salt: int) -> Tensor:
        return in_nan(noise(size, seed=seed + salt, amplitude=1).to(device))

    def matrix(outputs: int, inputs: int, kernel: tuple[int, int], salt: int) -> Tensor:
        fan_in = inputs * kernel[0] * kernel[1]
        drawn = noise(outputs, inputs, *kernel, seed=seed + salt, amplitude=fan_in**-0.5)
        return in_nan(drawn.to(device))

    apart = torch.linspace(-2, 2, channels).view(-1, 1, 1)
    x = (noise(*shape, seed=seed, amplitude=0.7) + apart).to(device)
    parameters = Parameters(
        norm1_weight=vector(channels, 1),
        norm1_bias=vector(channels, 2),
        conv1_weight=matrix(hidden, channels, first, 3),
        conv1_bias=vector(hidden, 4),
        norm2_weight=vector(hidden, 5),
        norm2_bias=vector(hidden, 6),
        conv2_weight=matrix(channels, hidden, second, 7),
        conv2_bias=vector(channels, 8),
    )
    return laid_out(x, layout), parameters


def on_triton(x: Tensor, parameters: Parameters) -> Tensor:
    """Run resblock2d on the Triton backend and check which kernels ran."""
    before = launched.copy()
    with melcap.use_backend("triton"), torch.no_grad():
        found = resblock2d(x, *parameters)
    assert launched - before == {"halves_kernel": 1, "conv2d_kernel": 2}
    return found


def check(x: Tensor, parameters: Parameters) -> Tensor:
    """Check the launches against float64 and return their result."""
    found = on_triton(x, parameters)
    exact = Parameters(*(p.double() for p in parameters))
    with torch.no_grad(), melcap.use_backend("torch"):
        expected = resblock2d(x.double(), *exact)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert found.movedim(1, -1).is_contiguous()
    assert not found.isnan().any(), f"NaN at {found.isnan().nonzero()[0].tolist()}"
    tolerance = registry.implementation("resblock2d", "triton").tolerances[torch.float32]
    error = (found.double() - expected).abs()
    excess = error / (tolerance.atol + tolerance.rtol * expected.abs())
    where = [int(i) for i in torch.unravel_index(excess.argmax(), excess.shape)]
    assert excess.max() <= 1, f"{float(error[tuple(where)]):.1e} at {where}"
    return found


odd = st.sampled_from([1, 3, 5])


@pytest.mark.slow
@settings(max_examples=examples(15))
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(16, 70), st.integers(1, 6), st.integers(9, 60)),
    hidden=st.integers(16, 128),
    first=st.tuples(odd, odd),
    second=st.tuples(odd, odd),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 99),
)
@example((1, 16, 2, 20), 16, (3, 3), (1, 1), "channels last", 0)
@example((2, 32, 8, 40), 32, (3, 3), (3, 1), "channels last", 0)
@example((1, 64, 3, 101), 64, (3, 3), (3, 1), "channels last", 1)
@example((1, 128, 3, 30), 128, (3, 3), (3, 1), "channels apart", 2)
def test_any_shape_and_layout(
    shape: tuple[int, int, int, int],
    hidden: int,
    first: tuple[int, int],
    second: tuple[int, int],
    layout: str,
    seed: int,
) -> None:
    check(*drawn(shape, hidden, first=first, second=second, layout=layout, seed=seed))


@pytest.mark.parametrize("shared", [0, ROOMY])
def test_both_tilings(shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "shared_memory", lambda _: shared)
    check(*drawn((2, 40, 5, 61), 40))


def test_a_clip_gives_the_same_bits_in_any_batch_and_layout() -> None:
    x, parameters = drawn((3, 40, 5, 60), 24)
    whole = on_triton(x, parameters)
    assert torch.equal(on_triton(x[1:2], parameters), whole[1:2])
    for layout in LAYOUTS:
        assert torch.equal(on_triton(laid_out(x, layout), parameters), whole)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # the interpreter's numpy
def test_hidden_channels_are_scaled_by_the_second_norm() -> None:
    """Loud and quiet norms neither overflow nor vanish."""
    for gain in (1e-6, 1e5):
        x, p = drawn((1, 20, 4, 30), 24)
        norm = {"norm2_weight": p.norm2_weight * gain, "norm2_bias": p.norm2_bias * gain}
        check(x, p._replace(**norm, conv2_weight=p.conv2_weight / gain))


def test_weights_that_change_are_noticed() -> None:
    x, parameters = drawn((1, 20, 4, 30), 24)
    before = check(x, parameters)
    for parameter in parameters:
        parameter.mul_(1.5)
        found = check(x, parameters)
        assert not torch.equal(found, before)
        before = found


def test_gradients_do_without() -> None:
    """The parts run one after the other where a gradient is wanted."""
    x, parameters = drawn((2, 16, 4, 20), 24)
    leaves = [t.detach().clone().requires_grad_() for t in (x, *parameters)]
    before = launched.copy()
    with melcap.use_backend("triton"):
        found = torch.autograd.grad(resblock2d(*leaves).square().sum(), leaves)
    assert launched == before
    exact = [t.detach().double().requires_grad_() for t in leaves]
    expected = torch.autograd.grad(resblock2d(*exact).square().sum(), exact)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, atol=2e-3, rtol=1e-4)


def test_an_empty_batch_launches_nothing() -> None:
    x, parameters = drawn((2, 16, 4, 20), 24)
    before = launched.copy()
    with melcap.use_backend("triton"), torch.no_grad():
        assert resblock2d(x[:0], *parameters).shape == (0, 16, 4, 18)
    assert launched == before


def test_refusals() -> None:
    x, parameters = drawn((1, 16, 4, 20), 24)
    wide = drawn((1, 16, 4, 20), 129)[1]
    for arguments, reason in [
        ((x.double(), *parameters), "not torch.float64"),
        ((x, *wide), "at most 128 channels fit into a program, not 129"),
    ]:
        with melcap.use_backend("triton"), pytest.raises(BackendError, match=reason):
            resblock2d(*arguments)
    endless = torch.zeros(1, 16, 1, 1).expand(-1, -1, 3, 2**26)
    (reason,) = block.unsupported(endless, *parameters)
    assert reason == f"a clip may have {(2**31 - 1) // 32} positions, not {3 * 2**26}"


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape", [(8, 32, 48, 437), (8, 64, 24, 219), (5, 128, 12, 111), (3, 51, 7, 101)]
)
def test_on_a_device(shape: tuple[int, int, int, int], layout: str) -> None:
    x, parameters = drawn(shape, shape[1], layout=layout, device="cuda")
    found = check(x, parameters)
    assert torch.equal(on_triton(x[-1:], parameters), found[-1:])
    assert torch.equal(on_triton(x[..., 7:91], parameters), found[..., 7:89])
