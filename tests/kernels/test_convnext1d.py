"""Compare the ConvNeXt kernels with float64, in the interpreter or on a device.

Writing or reading far outside ends the interpreter. These tests cannot notice padding steps that
are not stored, tiles that overlap (the same numbers twice), and masks of what another mask throws
away (channels of the contracting weights, the skip).
"""

from __future__ import annotations

import math

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
from melcap.kernels.conv2d.launches import Halves
from melcap.kernels.conv2d.sizes import ROOMY
from melcap.kernels.convnext1d.launches import plan_norm, plan_products, product_tiling
from melcap.kernels.convnext1d.mlp import plan_mlp, scratch
from melcap.kernels.convnext1d.weights import layers_of, tables_of, taps_of
from melcap.kernels.halves import LARGEST
from melcap.kernels.launch import launched, run
from melcap.ops import convnext1d, registry
from melcap.ops.convnext1d import Parameters, convnext1d_reference
from melcap.ops.numerics import EPSILON
from tests.helpers import examples, in_nan, noise

KERNELS = {
    torch.float32: {"convnext1d_norm": 1, "conv2d_kernel": 2},
    torch.float16: {"convnext1d_norm": 1, "convnext1d_mlp": 1},
    torch.bfloat16: {"convnext1d_norm": 1, "convnext1d_mlp": 1},
}
LAYOUTS = ("channels last", "cut from a longer clip", "channels apart", "every other channel")
Arguments = tuple[Tensor, ...]


pytestmark = pytest.mark.usefixtures("poisoned_memory")


def laid_out(x: Tensor, layout: str) -> Tensor:
    """Return the numbers of x [batch, channels, steps] in memory that is NaN elsewhere."""
    batch, channels, steps = x.shape
    if layout == "channels last":
        return in_nan(x.transpose(1, 2)).transpose(1, 2)
    if layout == "cut from a longer clip":
        memory = in_nan(x.new_full((batch, steps + 7, channels), torch.nan))
        return memory[:, 4:-3].copy_(x.transpose(1, 2)).transpose(1, 2)
    if layout == "every other channel":
        memory = in_nan(x.new_full((batch, steps, 2 * channels), torch.nan))
        return memory[..., ::2].copy_(x.transpose(1, 2)).transpose(1, 2)
    memory = in_nan(x.new_full((batch, channels + 3, steps + 7), torch.nan))
    return memory[:, 2:-1, 4:-3].copy_(x)


def drawn(
    batch: int,
    channels: int,
    hidden: int,
    kernel: int,
    steps: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    layout: str = "channels last",
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
    return laid_out(x, layout), *(in_nan(parameter) for parameter in parameters)


def on_triton(arguments: Arguments) -> Tensor:
    """Run convnext1d on the Triton backend and check which kernels ran."""
    before = launched.copy()
    with melcap.use_backend("triton"):
        found = convnext1d(*arguments)
    assert launched - before == KERNELS[found.dtype]
    return found


def with_folded_weights(exact: Arguments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return matrix and bias of both linear layers with what surrounds them, in float64."""
    _, _, _, gain, shift, expand, expand_bias, contract, contract_bias, scale = exact
    return (
        expand * gain,
        expand @ shift + expand_bias,
        scale[:, None] * contract,
        scale * contract_bias,
    )


def off_in_halves(numbers: Tensor, bound: Tensor | float) -> Tensor:
    """Return by how much numbers are off that are written as halves, given a bound on them."""
    return (2.0**-22 * numbers.abs()).clamp(min=2.0**-39 * bound)


def off_in_product(x: Tensor, x_off: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the largest error of a linear layer on x [batch, steps, channels] in halves.

    A sum is closed after 64 products. On a device it is cut off 12 times by then, by 2^-23 of its
    largest partial sum; the interpreter rounds up to 64 times. The low halves' product is left out.
    """
    weight_off = off_in_halves(weight, weight.abs().amax(1, keepdim=True))
    terms = F.linear(x.abs(), weight.abs())
    error = F.linear(x_off, weight.abs()) + F.linear(x.abs() + x_off, weight_off)
    error += (2.0**-22 + (72 + x.shape[2] / 64) * 2.0**-24) * terms
    return error + 2.0**-23 * (terms + bias.abs())


def error_of_float32(exact: Arguments) -> Tensor:
    """Return the largest error of float32, added up as kernels/convnext1d/kernels.py lists it."""
    x, taps, taps_bias = exact[:3]
    expand, expand_bias, contract, contract_bias = with_folded_weights(exact)
    channels, kernel, unit = x.shape[1], taps.shape[2], 2.0**-24
    longest, rounds = channels**0.5, 18 + math.log2(channels)
    y = F.conv1d(x, taps, taps_bias, groups=channels).transpose(1, 2)
    absolute = F.conv1d(x.abs(), taps.abs(), taps_bias.abs(), groups=channels).transpose(1, 2)
    off = (kernel + 1) * unit * absolute
    mean_off = off.mean(2, keepdim=True) + rounds * unit * y.abs().mean(2, keepdim=True)
    apart = y - y.mean(2, keepdim=True)
    deviation = (apart.square().mean(2, keepdim=True) + EPSILON).sqrt()
    off = off + mean_off + unit * apart.abs()
    relative = off.square().mean(2, keepdim=True).sqrt() / deviation + rounds * unit
    normed = apart / deviation
    normed_off = off / deviation + relative * normed.abs()
    normed_off += off_in_halves(normed, longest)
    z = F.linear(normed, expand, expand_bias)
    z_off = off_in_product(normed, normed_off, expand, expand_bias)
    z_off = 1.13 * z_off + 4 * unit * z.abs()
    bound = (expand.norm(dim=1) * longest + expand_bias.abs()).amax()
    hidden = F.gelu(z)
    hidden_off = z_off + off_in_halves(hidden.abs() + z_off, bound)
    total = off_in_product(hidden, hidden_off, contract, contract_bias).transpose(1, 2)
    return 1.01 * (total + unit * convnext1d_reference(*exact).abs())


def error_of_16_bits(exact: Arguments, dtype: torch.dtype) -> Tensor:
    """Return what 16 bits add to it: normalised steps, hidden layer, output are rounded.

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
    """Check the registry's tolerance against float64, and what the arithmetic allows."""
    exact = tuple(argument.double() for argument in arguments)
    expected = convnext1d_reference(*exact)
    assert found.shape == expected.shape
    assert found.dtype == arguments[0].dtype
    assert found.transpose(1, 2).is_contiguous()
    assert not found.isnan().any(), f"NaN at {found.isnan().nonzero()[0].tolist()}"
    error = (found.double() - expected).abs()
    tolerances = registry.implementation("convnext1d", "triton").tolerances
    tolerance = tolerances[found.dtype]
    assert error.max() <= tolerance.atol + tolerance.rtol * expected.abs().max()
    if found.dtype == torch.float32:
        allowed = error_of_float32(exact)
    else:
        single = tolerances[torch.float32]
        allowed = single.atol + single.rtol * expected.abs()
        allowed += 1.02 * error_of_16_bits(exact, found.dtype)
    assert_within(error, allowed)


def assert_within(error: Tensor, allowed: Tensor) -> None:
    """Check errors one by one."""
    excess = error / allowed
    where = [int(i) for i in torch.unravel_index(excess.argmax(), excess.shape)]
    assert excess.max() <= 1, f"{float(error[tuple(where)]):.1e} at [clip, channel, step] {where}"


@pytest.mark.slow
@settings(max_examples=examples(12))
@given(
    batch=st.integers(1, 2),
    channels=st.integers(1, 70),
    hidden=st.integers(1, 100),
    half_kernel=st.integers(0, 7),
    steps=st.integers(1, 64),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 99),
)
@example(1, 1, 1, 0, 1, LAYOUTS[0], 0)
@example(1, 5, 3, 15, 3, LAYOUTS[2], 0)
@example(1, 16, 32, 3, 64, LAYOUTS[0], 0)  # whole tiles
@example(2, 17, 33, 3, 65, LAYOUTS[1], 0)  # one more
@example(1, 130, 40, 3, 33, LAYOUTS[3], 0)
@example(1, 257, 20, 2, 33, LAYOUTS[0], 0)
@example(1, 600, 20, 1, 7, LAYOUTS[2], 0)  # more than fit into a program in 16 bits
@example(1, 20, 1100, 1, 40, LAYOUTS[0], 0)  # a deep sum
def test_any_block(
    batch: int,
    channels: int,
    hidden: int,
    half_kernel: int,
    steps: int,
    layout: str,
    seed: int,
) -> None:
    kernel = 2 * half_kernel + 1
    sizes = batch, channels, hidden, kernel, steps + kernel - 1
    arguments = drawn(*sizes, seed, layout=layout)
    assert_close(on_triton(arguments), arguments)


def test_errors_are_smaller_than_those_of_float32() -> None:
    """Products of halves whose sums are closed are more exact than float32 sums."""
    arguments = drawn(1, 200, 400, 7, 70)
    expected = convnext1d_reference(*(argument.double() for argument in arguments))
    own = (convnext1d_reference(*arguments).double() - expected).square().mean()
    assert (on_triton(arguments).double() - expected).square().mean() <= own


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
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_any_layout(dtype: torch.dtype) -> None:
    """Clips may be laid out in any way and repeat; parameters may be transposed."""
    x, *parameters = drawn(2, 20, 30, 7, 20, dtype=dtype)
    expected = on_triton((x, *parameters))
    for layout in LAYOUTS[1:]:
        assert torch.equal(on_triton((laid_out(x, layout), *parameters)), expected)
    strided = [
        parameter.movedim(0, -1).contiguous().repeat_interleave(2, -1)[..., ::2].movedim(-1, 0)
        for parameter in parameters
    ]
    assert torch.equal(on_triton((x, *strided)), expected)
    alike = x[:1].expand(2, -1, -1)
    assert torch.equal(on_triton((alike, *parameters))[1], expected[0])


def test_channels_that_are_next_to_each_other_are_not_copied() -> None:
    x = noise(2, 6, 20)
    for layout in LAYOUTS[:2]:
        given = laid_out(x, layout)
        assert kernels.channels_last(given).data_ptr() == given.data_ptr()
    repeated = laid_out(x, LAYOUTS[0])[:1].expand(2, -1, -1)
    assert kernels.channels_last(repeated).data_ptr() == repeated.data_ptr()
    shifted = in_nan(torch.full((2, 125), torch.nan)).as_strided((2, 6, 20), (125, 1, 6), 4)
    for given in (laid_out(x, LAYOUTS[2]), laid_out(x, LAYOUTS[3]), shifted):
        copied = kernels.channels_last(given)
        assert copied.is_contiguous()
        assert torch.equal(copied.nan_to_num(), given.transpose(1, 2).nan_to_num())


def untouched(*tensors: Tensor) -> None:
    """Check that the memory around tensors from `in_nan` is still NaN."""
    for tensor in tensors:
        memory = torch.as_strided(tensor, (tensor.numel() + 8192,), (1,), 0)
        assert int(memory.isnan().sum()) == 8192


@pytest.mark.slow
@pytest.mark.parametrize("roomy", [False, True])
def test_nothing_is_written_elsewhere(roomy: bool) -> None:
    """Steps and channels fill no tile, so that the last tile ends in other memory."""
    arguments = x, *parameters = drawn(2, 20, 70, 7, 75)
    p = Parameters(*parameters)
    tables, given = tables_of(p), kernels.channels_last(x)
    out = in_nan(torch.zeros(2, 69, 20))
    normed, hidden = (
        Halves(*(in_nan(torch.zeros(2, 1, 69, width).half()) for _ in range(2)), scale)
        for width, scale in ((32, tables.normed), (96, tables.hidden))
    )
    run(plan_norm(given, taps_of(p.depthwise_weight), p.depthwise_bias, None, normed))
    for launch in plan_products(given[:, 3:], tables, normed, hidden, out, roomy):
        run(launch)
    assert_close(out.transpose(1, 2), arguments)
    untouched(out, normed.high, normed.low, hidden.high, hidden.low)
    for filled, channels in ((normed, 20), (hidden, 70)):
        assert not any(half[..., channels:].any() for half in filled[:2])


@pytest.mark.slow
def test_nothing_is_written_elsewhere_in_16_bits() -> None:
    arguments = x, *parameters = drawn(2, 20, 30, 7, 75, dtype=torch.float16)
    p, given = Parameters(*parameters), kernels.channels_last(x)
    out = in_nan(torch.zeros(2, 69, 20).half())
    normed = in_nan(torch.zeros(scratch(out).shape).half())
    norm = p.norm_weight, p.norm_bias
    run(plan_norm(given, taps_of(p.depthwise_weight), p.depthwise_bias, norm, normed))
    run(plan_mlp(given[:, 3:], p, normed, out))
    assert_close(out.transpose(1, 2), arguments)
    untouched(out, normed)


@pytest.fixture
def products_by_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace products: those of some BLAS depend on a column's place."""

    def product(a: np.ndarray, b: np.ndarray, dtype: type) -> np.ndarray:
        columns = zip(a.T.astype(dtype), b.astype(dtype), strict=True)
        return sum(column[:, None] * row for column, row in columns)

    monkeypatch.setattr(np, "matmul", product)


@pytest.mark.slow
@pytest.mark.usefixtures("products_by_column")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_clip_gives_the_same_bits_in_any_batch_and_chunk(dtype: torch.dtype) -> None:
    x, *parameters = drawn(2, 40, 50, 7, 76, dtype=dtype)
    together = on_triton((x, *parameters))
    alone = torch.cat([on_triton((clip[None], *parameters)) for clip in x])
    assert torch.equal(together, alone)
    part = on_triton((x[..., 5:74], *parameters))
    assert torch.equal(part, together[..., 5:68])


@pytest.mark.slow
@pytest.mark.usefixtures("products_by_column")
@pytest.mark.parametrize(("channels", "hidden"), [(40, 70), (130, 200), (70, 1100)])
def test_the_same_bits_in_tiles_of_any_size(
    channels: int, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = drawn(1, channels, hidden, 3, 71)
    small = on_triton(arguments)
    assert all(
        product_tiling(layer, True) != product_tiling(layer, False)
        for layer in layers_of(channels, hidden)
    )
    monkeypatch.setattr(kernels, "shared_memory", lambda _: ROOMY)
    assert torch.equal(on_triton(arguments), small)


@pytest.mark.parametrize("power", [-36, -12, 0, 12])
def test_norm_weights_of_any_size(power: int) -> None:
    """No norm weight makes halves coarse or too large, and channels may differ in theirs."""
    x, *parameters = drawn(1, 40, 50, 3, 40)
    gain = torch.full((40,), 10.0**power)
    gain[::3] *= 1e4
    arguments = (x, *parameters[:2], gain, *parameters[3:])
    assert_close(on_triton(arguments), arguments)


def one_layer(direction: Tensor, level: float) -> Arguments:
    """Return arguments whose normalised vector is `direction` [channels], of mean 0 and length 1.

    The hidden layer has its product with itself, with minus itself, and 0.
    """
    channels = len(direction)
    zeros, ones = torch.zeros(channels), torch.ones(channels)
    expand = torch.stack((direction, -direction, 0 * direction))
    return (
        (level * direction)[None, :, None],
        torch.ones(channels, 1, 1),
        zeros,
        ones,
        zeros,
        expand,
        torch.zeros(3),
        ones[:, None] * torch.tensor([1.0, 1.0, 1.0]),
        zeros,
        ones,
    )


@pytest.mark.parametrize("channels", [2, 3, 40, 500])
def test_the_bound_of_the_hidden_layer_is_reached_and_held(channels: int) -> None:
    """A normalised vector along a row of the weights gives the largest number that there is."""
    direction = noise(channels)
    direction -= direction.mean()
    arguments = one_layer(direction / direction.norm(), 1e4)
    tables = tables_of(Parameters(*arguments[1:]))
    largest = channels**0.5 * float(tables.hidden[0])
    assert LARGEST / 2 <= 1.0001 * largest <= LARGEST
    assert_close(on_triton(arguments), arguments)


def test_a_mean_that_is_rounded_breaks_no_bound() -> None:
    """Two neighbours in float32 have a mean that is one of them: one channel has all the norm."""
    x = torch.tensor([1e6, 1e6 + 0.0625])[None, :, None]
    arguments = (x, *one_layer(torch.tensor([-1.0, 1.0]) / 2**0.5, 1.0)[1:])
    assert on_triton(arguments).isfinite().all()


def test_weights_of_zero() -> None:
    """A bound of 0 has a scale too."""
    x, *parameters = drawn(1, 24, 30, 3, 50)
    p = Parameters(*parameters)
    nothing = {name: torch.zeros_like(getattr(p, name)) for name in Parameters._fields[2:7]}
    found = on_triton((x, *p._replace(**nothing)))
    assert torch.equal(found, x[..., 1:-1] + (p.contract_bias * p.scale)[:, None])
    nothing = {"expand_weight": torch.zeros_like(p.expand_weight)}
    arguments = (x, *p._replace(**nothing))
    assert_close(on_triton(arguments), arguments)


def test_nan_stays_in_the_steps_that_see_it() -> None:
    x, *parameters = drawn(1, 24, 30, 3, 50)
    x[0, 5, 20] = torch.nan
    found = on_triton((x, *parameters))
    assert found.isnan().any(1).nonzero()[:, 1].tolist() == [18, 19, 20]


@pytest.mark.parametrize("name", Parameters._fields)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_may_change(name: str, dtype: torch.dtype) -> None:
    """Tables follow weights that are changed in place, or that another takes the place of."""
    x, *parameters = drawn(1, 10, 12, 3, 9, dtype=dtype)
    p = Parameters(*(parameter.clone() for parameter in parameters))
    before = on_triton((x, *p))
    replaced = p._replace(**{name: getattr(p, name) * 2})
    expected = on_triton((x, *(parameter.clone() for parameter in replaced)))
    assert not torch.equal(before, expected)
    assert torch.equal(on_triton((x, *replaced)), expected)
    assert torch.equal(on_triton((x, *p)), before)
    getattr(p, name).mul_(2)
    assert torch.equal(on_triton((x, *p)), expected)


def test_tables_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, *parameters = drawn(1, 10, 12, 3, 9)
    expected = on_triton((x, *parameters))
    monkeypatch.setattr("melcap.kernels.convnext1d.weights.matrix", None)
    with torch.inference_mode():
        assert torch.equal(on_triton((x, *parameters)), expected)


def test_weights_of_inference_mode() -> None:
    """They have no version, so that nothing is kept of them."""
    arguments = drawn(1, 10, 12, 3, 9)
    expected = on_triton(arguments)
    with torch.inference_mode():
        given = tuple(argument.clone() for argument in arguments)
        assert torch.equal(on_triton(given), expected)
        given[1 + Parameters._fields.index("scale")].zero_()
        assert not torch.equal(on_triton(given), expected)


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
    wide = tuple(argument.half() for argument in drawn(1, 513, 6, 3, 9))
    for arguments, reason in [
        (drawn(1, 4097, 6, 3, 9), r"at most 4096 channels of torch.float32 .*, not 4097"),
        (wide, r"at most 512 channels of torch.float16 fit on the chip, not 513"),
        ((small[0], small[1].half(), *small[2:]), "one dtype"),
        (tuple(argument.double() for argument in small), "not torch.float64"),
        (tuple(argument.bfloat16() for argument in small), "bfloat16 wrongly"),
        ((*small[:5], small[5][:0], small[6][:0], small[7][:, :0], *small[8:]), "no hidden"),
    ]:
        with melcap.use_backend("triton"), pytest.raises(BackendError, match=reason):
            convnext1d(*arguments)
    endless = torch.zeros(1, 4, 1).expand(-1, -1, 2**26)
    (reason,) = kernels.unsupported(endless, *small[1:])
    assert reason == "at most 67108736 steps in a clip can be counted, not 67108864"
    p = Parameters(*small[1:])._replace(expand_bias=torch.zeros(1).expand(2**26))
    reasons = kernels.unsupported(small[0], *p)
    assert reasons[-1] == "at most 67108736 hidden channels can be counted, not 67108864"
    (reason,) = kernels.unsupported(small[0].to("meta"), *small[1:])
    assert reason == "tensors are on several devices: cpu, meta"


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS[:3])
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
def test_on_a_device(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype, layout: str
) -> None:
    arguments = drawn(*shape, dtype=dtype, device="cuda", layout=layout)
    found = on_triton(arguments)
    assert_close(found, arguments)
    assert torch.equal(on_triton((arguments[0][-1:], *arguments[1:])), found[-1:])


@pytest.mark.gpu
@pytest.mark.parametrize(("channels", "hidden"), [(600, 1100), (1024, 4096), (4096, 64)])
def test_wide_blocks_on_a_device(channels: int, hidden: int) -> None:
    arguments = drawn(2, channels, hidden, 3, 333, device="cuda")
    assert_close(on_triton(arguments), arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_chunk_gives_the_same_bits_on_a_device(dtype: torch.dtype) -> None:
    x, *parameters = drawn(2, 256, 512, 7, 1000, dtype=dtype, device="cuda")
    whole = on_triton((x, *parameters))
    assert torch.equal(on_triton((x[..., 37:700], *parameters)), whole[..., 37:694])


@pytest.mark.gpu
@pytest.mark.parametrize(("channels", "hidden"), [(256, 512), (512, 1536), (51, 77)])
def test_the_same_bits_in_tiles_of_any_size_on_a_device(
    channels: int, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = drawn(2, channels, hidden, 7, 500, device="cuda")
    found = on_triton(arguments)
    monkeypatch.setattr(kernels, "shared_memory", lambda _: 0)
    assert torch.equal(on_triton(arguments), found)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_far_offsets_on_a_device(dtype: torch.dtype) -> None:
    """In a batch of more than 2^31 numbers the last clip is as it is alone."""
    clips = 2**31 // (512 * 40000) + 2
    x, *parameters = drawn(1, 512, 16, 3, 40000, dtype=dtype, device="cuda")
    together = on_triton((x.repeat(clips, 1, 1), *parameters))
    assert torch.equal(together[-1:], on_triton((x, *parameters)))
