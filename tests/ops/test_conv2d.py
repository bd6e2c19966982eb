"""Check conv2d and resblock2d on the torch backend: definition, gradients, refusals."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from melcap.errors import InputError
from melcap.ops import channel_norm, conv2d, resblock2d
from melcap.ops.registry import implementation
from tests.helpers import examples, noise

pytestmark = pytest.mark.usefixtures("poisoned_memory")

Pair = tuple[int, int]


def direct(x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> np.ndarray:
    """Compute the definition, one output after the other."""
    wide = np.pad(x.double().numpy(), ((0, 0), (0, 0), *((size, size) for size in padding)))
    taps = weight.double().numpy()
    rows, steps = ((wide.shape[i] - taps.shape[i]) // stride[i - 2] + 1 for i in (2, 3))
    out = np.empty((len(wide), len(taps), rows, steps))
    for row, step in itertools.product(range(rows), range(steps)):
        first, begin = row * stride[0], step * stride[1]
        seen = wide[:, :, first : first + taps.shape[2], begin : begin + taps.shape[3]]
        out[:, :, row, step] = np.einsum("bcrs,ocrs->bo", seen, taps)
    return out


def direct_transposed(x: Tensor, weight: Tensor) -> np.ndarray:
    """Compute the definition: each position becomes a patch of the kernel's size."""
    patches = np.einsum("bcrs,coij->borisj", x.double().numpy(), weight.double().numpy())
    batch, channels, rows, up, steps, along = patches.shape
    return patches.reshape(batch, channels, rows * up, steps * along)


def assert_close(found: Tensor, expected: np.ndarray, operation: str = "conv2d") -> None:
    """Check the registry's tolerance, relative to the largest output."""
    allowed = implementation(operation, "torch").tolerances[torch.float32]
    error = np.abs(found.detach().double().numpy() - expected)
    assert error.max(initial=0) <= allowed.atol + allowed.rtol * np.abs(expected).max(initial=0)
    assert found.movedim(1, -1).is_contiguous()


@settings(max_examples=examples(40))
@given(
    shape=st.tuples(st.integers(0, 2), st.integers(1, 5), st.integers(3, 5), st.integers(3, 9)),
    outputs=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    transposed=st.booleans(),
    apart=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_its_definition(
    shape: tuple[int, int, int, int],
    outputs: int,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    transposed: bool,
    apart: bool,
    seed: int,
) -> None:
    x = noise(*shape, seed=seed, amplitude=1)
    if not apart:
        x = x.contiguous(memory_format=torch.channels_last)
    bias, gain, shift = (noise(n, seed=seed + n, amplitude=1) for n in (outputs, shape[1], 1))
    if transposed:
        weight = noise(shape[1], outputs, *kernel, seed=seed + 7, amplitude=1)
        sizes: dict[str, Any] = {"stride": kernel, "transposed": True}
        plain = direct_transposed(x, weight)
    else:
        weight = noise(outputs, shape[1], *kernel, seed=seed + 7, amplitude=1)
        sizes = {"stride": stride, "padding": padding}
        plain = direct(x, weight, stride, padding)
    assert_close(conv2d(x, weight, **sizes), plain)
    rows = noise(outputs, plain.shape[2], 1, seed=seed + 8, amplitude=1)
    residual = noise(*plain.shape, seed=seed + 9, amplitude=1)
    whole = conv2d(x, weight, bias, rows=rows, residual=residual, bound=9.0, **sizes)
    added = bias.view(-1, 1, 1) + rows + residual
    assert_close(whole, plain + added.double().numpy())
    norm = gain, shift.expand(shape[1])
    normed = channel_norm(x.double(), *(v.double() for v in norm), activation="silu")
    if transposed:
        again = direct_transposed(normed, weight)
    else:
        again = direct(normed, weight, stride, padding)
    assert_close(conv2d(x, weight, norm=norm, activation="silu", **sizes), again)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    "sizes",
    [{}, {"stride": (2, 1)}, {"stride": (1, 3)}, {"padding": (1, 0)}, {"transposed": True}],
)
def test_a_kernel_of_one_by_one(sizes: dict[str, Any], apart: bool) -> None:
    """On a CPU it is a linear layer, unless it has strides, padding, or is transposed."""
    x = noise(2, 5, 4, 7, amplitude=1)
    if not apart:
        x = x.contiguous(memory_format=torch.channels_last)
    weight, bias = noise(3, 5, 1, 1, seed=1, amplitude=1), noise(3, seed=2, amplitude=1)
    plain = direct(x, weight, sizes.get("stride", (1, 1)), sizes.get("padding", (0, 0)))
    expected = plain + bias.double().view(-1, 1, 1).numpy()
    if "transposed" in sizes:
        weight = weight.transpose(0, 1)
    assert_close(conv2d(x, weight, bias, **sizes), expected)
    for dtype in (torch.float64, torch.bfloat16):
        found = conv2d(x.to(dtype), weight, bias, **sizes)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=2e-2, atol=5e-2)


@pytest.mark.parametrize("kernel", [(3, 3), (2, 3)])
@pytest.mark.parametrize("stride", [(1, 2), (1, 3)])
def test_single_channel_images(kernel: Pair, stride: Pair) -> None:
    """Some of them oneDNN computes wrongly in channels-last memory."""
    for rows, steps in itertools.product((3, 4, 5), (3, 4, 5, 8)):
        x = noise(2, rows, steps, 1, amplitude=1).movedim(-1, 1)
        weight = noise(1, 1, *kernel, seed=1, amplitude=1)
        assert_close(conv2d(x, weight, stride=stride), direct(x, weight, stride, (0, 0)))


def block(channels: int = 4, hidden: int = 5) -> tuple[Tensor, ...]:
    """Return the weights of a block."""
    return (
        *(noise(channels, seed=i, amplitude=1) for i in (1, 2)),
        noise(hidden, channels, 3, 3, seed=3),
        *(noise(hidden, seed=i, amplitude=1) for i in (4, 5, 6)),
        noise(channels, hidden, 3, 1, seed=7),
        noise(channels, seed=8, amplitude=1),
    )


def test_a_block_is_its_definition() -> None:
    x, p = noise(2, 4, 3, 9, amplitude=1), block()
    gain1, shift1, first, bias1, gain2, shift2, second, bias2 = (t.double() for t in p)
    y = channel_norm(x.double(), gain1, shift1, activation="silu")
    y = F.conv2d(y, first, bias1, padding=(1, 0))
    y = channel_norm(y, gain2, shift2, activation="silu")
    expected = x[..., 1:-1] + F.conv2d(y, second, bias2, padding=(1, 0))
    assert_close(resblock2d(x, *p), expected.numpy(), "resblock2d")


def test_gradients() -> None:
    ask = torch.Tensor.requires_grad_
    x, weight = ask(noise(2, 3, 3, 5).double()), ask(noise(4, 3, 3, 3).double())
    norm = ask(noise(3, seed=1).double()), ask(noise(3, seed=2).double())
    rows, residual = ask(noise(4, 3, 1).double()), ask(noise(2, 4, 3, 3).double())

    def call(*tensors: Tensor) -> Tensor:
        x, weight, gain, shift, rows, residual = tensors
        sizes: dict[str, Any] = {"padding": (1, 0), "rows": rows, "residual": residual}
        return conv2d(x, weight, norm=(gain, shift), activation="silu", **sizes)

    leaves = (x, weight, *norm, rows, residual)
    assert torch.autograd.gradcheck(call, leaves)
    leaves_of_block = [ask(t.double()) for t in (noise(1, 4, 2, 4), *block())]
    assert torch.autograd.gradcheck(resblock2d, leaves_of_block)
    with torch.no_grad():
        plain, plain_block = call(*leaves), resblock2d(*leaves_of_block)
    torch.testing.assert_close(call(*leaves), plain)
    torch.testing.assert_close(resblock2d(*leaves_of_block), plain_block)


def test_autocast_reaches_layers_that_learn_alone() -> None:
    x, weight, p = noise(2, 4, 3, 9), noise(5, 4, 3, 3), block()
    learning = weight.clone().requires_grad_()
    first = p[2].clone().requires_grad_()
    plain, plain_block = conv2d(x, weight), resblock2d(x, *p)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(conv2d(x, weight), plain)
        assert torch.equal(resblock2d(x, *p), plain_block)
        assert conv2d(x, learning).dtype == torch.bfloat16
        found = resblock2d(x, *p[:2], first, *p[3:])
    assert found.requires_grad
    assert not torch.equal(found, plain_block)


def test_what_is_refused() -> None:
    x, w, one = torch.zeros(2, 4, 5, 6), torch.zeros(3, 4, 3, 3), torch.ones(4)
    up = torch.zeros(4, 3, 2, 2)
    for call, words in [
        (lambda: conv2d(x[0], w), r"\[batch, channels_in, rows, steps\].*not float32 \[4, 5, 6\]"),
        (lambda: conv2d(x.int(), w), "floating point.*int32"),
        (lambda: conv2d(x, w[:, :3]), r"float32 \[3, 3, 3, 3\]"),
        (lambda: conv2d(x, w[0]), r"\[channels_out, channels_in, kernel_rows.*\[4, 3, 3\]"),
        (lambda: conv2d(x, w[:0]), r"float32 \[0, 4, 3, 3\]"),
        (lambda: conv2d(x, w, transposed=True), r"\[channels_in, channels_out, kernel_rows"),
        (lambda: conv2d(x, w, stride=(0, 1)), r"strides are 1 or more.*\(0, 1\)"),
        (lambda: conv2d(x, w, padding=(0, -1)), r"paddings 0 or more.*\(0, -1\)"),
        (lambda: conv2d(x, up, transposed=True), r"kernel \(2, 2\) takes a stride of its size"),
        (lambda: conv2d(x, up, stride=(2, 2), padding=(1, 0), transposed=True), "no padding"),
        (lambda: conv2d(x[..., :2], w), r"kernel \(3, 3\) does not fit.*\[2, 4, 5, 2\]"),
        (lambda: conv2d(x, w, one), r"bias must be \[3\], not float32 \[4\]"),
        (lambda: conv2d(x, w, norm=(one, one[:3])), r"norm's bias must be \[4\]"),
        (lambda: conv2d(x, w, norm=(one[:3], one)), r"norm's weight must be \[4\]"),
        (lambda: conv2d(x, w, rows=torch.zeros(3, 5, 1)), r"rows must be \[3, 3, 1\]"),
        (lambda: conv2d(x, w, residual=x), r"residual must be \[2, 3, 3, 4\]"),
        (lambda: conv2d(x, w, activation="silu"), "silu after a norm, not 'silu'"),
        (lambda: conv2d(x, w, norm=(one, one), activation="gelu"), "not 'gelu'"),
        (lambda: conv2d(x, w, bound=float("inf")), "finite number.*inf"),
        (lambda: conv2d(x, w, bound=-1), "finite number.*-1"),
        (lambda: conv2d(x, w, norm=(one, one), bound=1), "x without norm"),
        (lambda: resblock2d(x[0], *block()), r"float32 \[4, 5, 6\]"),
        (lambda: resblock2d(x.int(), *block()), "floating point.*int32"),
        (lambda: resblock2d(x[..., :2], *block()), "odd kernels that fit"),
        (lambda: resblock2d(x, *block(5)), r"norm1_weight must be \[4\]"),
        (lambda: resblock2d(x, *block()[:2], up, *block()[3:]), r"odd kernels.*\[4, 3, 2, 2\]"),
        (lambda: resblock2d(x, *block()[:7], one[:3]), r"conv2_bias must be \[4\]"),
        (lambda: resblock2d(x, *block(4, 0)), r"conv1_weight must be \[0, 4, 3, 3\]"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            call()  # type: ignore[no-untyped-call]
        assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*The CUDA Graph is empty.*")
def test_opcheck() -> None:
    x, last = noise(2, 4, 3, 9), noise(2, 4, 3, 9).contiguous(memory_format=torch.channels_last)
    weight, up, one = noise(5, 4, 3, 3), noise(4, 5, 1, 2), torch.ones(4)
    rows, residual = noise(5, 3, 1), noise(2, 5, 3, 4)
    for arguments in (
        (x, weight, None, None, None, None, None, [1, 1], [0, 0], False, "none", None),
        (last, weight, one[:1].expand(5), one, one, rows, residual, [1, 2], [1, 0], False, "silu",
         None),
        (x, up, None, None, None, None, None, [1, 2], [0, 0], True, "none", 2.0),
        (x.double(), weight.double(), *(None,) * 5, [1, 1], [2, 1], False, "none", None),
    ):  # fmt: skip
        torch.library.opcheck(torch.ops.melcap.conv2d.default, arguments)
    torch.library.opcheck(torch.ops.melcap.resblock2d.default, (x, *block()))
    torch.library.opcheck(torch.ops.melcap.resblock2d.default, (last, *block()))


@pytest.mark.slow
@pytest.mark.parametrize("asked", [True, False])
def test_compiled_is_eager(asked: bool) -> None:
    """It is one graph, and lengths recompile it once at most."""
    weight, one, p = noise(4, 4, 3, 3).requires_grad_(asked), torch.ones(4), block()

    def call(x: Tensor) -> Tensor:
        y = conv2d(x * 2, weight, norm=(one, one), activation="silu", padding=(1, 0))
        return resblock2d(y, *p) * 3

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True):
        for steps in (9, 13, 20):
            x = noise(2, 4, 3, steps, amplitude=1)
            torch.testing.assert_close(compiled(x), call(x))
