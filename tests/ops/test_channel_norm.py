"""Check the channel norm on the torch backend: definition, gradients, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from melcap.errors import InputError
from melcap.model.layers import Conv1d, ResBlock2d
from melcap.ops import channel_norm
from melcap.ops.registry import implementation
from tests.helpers import examples, noise

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def drawn(*shape: int, seed: int = 0, amplitude: float = 0.7) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, weight, bias; channels lie so far apart that no norm magnifies rounding."""
    channels = shape[1]
    apart = torch.linspace(-2, 2, channels).view(-1, *(1,) * (len(shape) - 2)) * amplitude
    x = noise(*shape, seed=seed, amplitude=amplitude) + apart
    return x, noise(channels, seed=seed + 1, amplitude=1), noise(channels, seed=seed + 2)


def direct(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> np.ndarray:
    """Compute the definition, one position after the other."""
    given, gain, shift = (t.detach().double().numpy() for t in (x, weight, bias))
    out = np.empty_like(given)
    for clip, *place in np.ndindex(len(given), *given.shape[2:]):
        at = (clip, slice(None), *place)
        centred = given[at] - given[at].mean()
        y = centred / np.sqrt((centred**2).mean() + 1e-6) * gain + shift
        out[at] = y / (1 + np.exp(-y)) if activation == "silu" else y
    return out


@settings(max_examples=examples(40))
@given(
    shape=st.one_of(
        st.tuples(st.integers(0, 3), st.integers(2, 9)),
        st.tuples(st.integers(0, 3), st.integers(2, 9), st.integers(1, 9)),
        st.tuples(st.integers(0, 3), st.integers(2, 9), st.integers(1, 5), st.integers(1, 5)),
    ),
    activation=st.sampled_from(["none", "silu"]),
    asked=st.booleans(),
    quiet=st.sampled_from([0.7, 1e-3]),  # where epsilon counts
    seed=st.integers(0, 2**32),
)
def test_it_is_its_definition(
    shape: tuple[int, ...], activation: str, asked: bool, quiet: float, seed: int
) -> None:
    arguments = [t.requires_grad_(asked) for t in drawn(*shape, seed=seed, amplitude=quiet)]
    expected = direct(*arguments, activation)
    exact = channel_norm(*(t.double() for t in arguments), activation=activation)
    assert exact.dtype == torch.float64
    assert exact.requires_grad == asked
    np.testing.assert_allclose(exact.detach().numpy(), expected, rtol=0, atol=1e-12)
    found = channel_norm(*arguments, activation=activation)
    assert found.dtype == torch.float32
    assert found.movedim(1, -1).is_contiguous()
    allowed = implementation("channel_norm", "torch").tolerances[torch.float32]
    np.testing.assert_allclose(
        found.detach().numpy(), expected, rtol=allowed.rtol, atol=allowed.atol
    )


@pytest.mark.parametrize("asked", [True, False])
def test_half_precision_rounds_the_result_alone(asked: bool) -> None:
    x, weight, bias = drawn(2, 6, 3, 5)
    for dtype in (torch.float16, torch.bfloat16):
        half = x.to(dtype).requires_grad_(asked)
        found = channel_norm(half, weight, bias, activation="silu")
        assert found.dtype == dtype
        exact = channel_norm(half.float(), weight, bias, activation="silu")
        assert torch.equal(found, exact.to(dtype))


@pytest.mark.parametrize("activation", ["none", "silu"])
def test_gradients(activation: str) -> None:
    """Both plain PyTorch and the operator, which computes the forward pass again, have them."""
    arguments = [t.double().requires_grad_() for t in drawn(2, 4, 3, 2)]

    def operator(*tensors: Tensor) -> Any:
        return torch.ops.melcap.channel_norm(*tensors, activation)

    def plain(*tensors: Tensor) -> Tensor:
        return channel_norm(*tensors, activation=activation)

    for call in (operator, plain):
        assert torch.autograd.gradcheck(call, arguments)
        with torch.no_grad():
            assert not call(*arguments).requires_grad
        for index in range(3):  # where only one asks
            alone = [t.detach().requires_grad_(i == index) for i, t in enumerate(arguments)]
            (found,) = torch.autograd.grad(call(*alone).square().sum(), alone[index])
            assert found.any()


def test_what_is_refused() -> None:
    x, one = torch.zeros(2, 4, 5), torch.ones(4)
    for call, words in [
        (lambda: channel_norm(x[0, 0], one, one), r"\[batch, channels, ...\], not float32 \[5\]"),
        (lambda: channel_norm(x[:, :0], one[:0], one[:0]), r"float32 \[2, 0, 5\]"),
        (lambda: channel_norm(x.int(), one, one), "floating point.*int32"),
        (lambda: channel_norm(x, one[:3], one), r"weight must be \[4\], not float32 \[3\]"),
        (lambda: channel_norm(x, one, one[None]), r"bias must be \[4\], not float32 \[1, 4\]"),
        (lambda: channel_norm(x, one, one, activation="gelu"), "none or silu, not 'gelu'"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            call()  # type: ignore[no-untyped-call]
        assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*The CUDA Graph is empty.*")
def test_opcheck() -> None:
    x, weight, bias = drawn(2, 4, 3, 5)
    asking = [t.clone().requires_grad_() for t in (x, weight, bias)]
    last = x.contiguous(memory_format=torch.channels_last)
    for arguments in (
        (x, weight, bias, "none"),
        (last, weight, bias, "silu"),
        (*asking, "silu"),
        (x.half(), weight, bias, "silu"),
        (x[..., 1:-1].double(), weight.double(), bias.double(), "none"),
    ):
        torch.library.opcheck(torch.ops.melcap.channel_norm.default, arguments)
        upstream = torch.ones_like(arguments[0])
        given = [t.detach() if isinstance(t, Tensor) else t for t in arguments]
        torch.library.opcheck(torch.ops.melcap.channel_norm_gradient.default, (upstream, *given))


@pytest.mark.slow
@pytest.mark.parametrize("operator", [True, False])
def test_compiled_is_eager(operator: bool) -> None:
    """It is one graph, forward and backward, and lengths recompile it once at most."""
    _, weight, bias = drawn(1, 6)

    def call(x: Tensor) -> Tensor:
        if operator:
            y: Tensor = torch.ops.melcap.channel_norm(x * 2, weight, bias, "silu")
            return y * 3
        return channel_norm(x * 2, weight, bias, activation="silu") * 3

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True):
        for steps in (5, 9, 12):
            x = noise(2, 6, steps, amplitude=1).requires_grad_()
            assert torch.equal(compiled(x), call(x))
            (found,) = torch.autograd.grad(compiled(x).square().sum(), x)
            (expected,) = torch.autograd.grad(call(x).square().sum(), x)
            torch.testing.assert_close(found, expected)


def test_under_autocast_blocks_stay_in_16_bits_and_the_vocoders_sum_in_32() -> None:
    picture = noise(1, 8, 5, 9)
    with torch.autocast("cpu", torch.bfloat16):
        assert ResBlock2d(8)(picture.bfloat16()).dtype == torch.bfloat16
        assert Conv1d(8, 4, 3)(picture[:, :, 0]).dtype == torch.float32
