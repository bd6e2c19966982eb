"""Compare the kernels of conv2d with float64, in the interpreter or on a device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import melcap
from melcap.errors import BackendError
from melcap.kernels import conv2d as kernels
from melcap.kernels.conv2d import launches
from melcap.kernels.conv2d.sizes import ROOMY, width_of
from melcap.kernels.halves import LARGEST, bound_of_norm, scale_of
from melcap.kernels.launch import launched
from melcap.kernels.weight_cache import remembered
from melcap.ops import conv2d
from melcap.ops.channel_norm import channel_norm_reference
from melcap.ops.conv2d import conv2d_reference
from tests.helpers import examples, in_nan, noise

LAYOUTS = ("channels last", "channels apart", "every other step", "a part")
INPUTS = ("norm", "bound", "tf32")
Kwargs = dict[str, Any]

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture(params=[0, ROOMY], ids=["small tiles", "large tiles"])
def device_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Give the device of the kernels so much shared memory."""
    monkeypatch.setattr(kernels, "shared_memory", lambda _: request.param)
    return int(request.param)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """Return the same numbers in memory that is NaN elsewhere."""
    if layout == "channels last":
        return in_nan(x.movedim(1, -1)).movedim(-1, 1)
    if layout == "channels apart":
        return in_nan(x)
    if layout == "a part":
        memory = x.new_full((len(x), x.shape[2] + 1, x.shape[3] + 3, x.shape[1]), torch.nan)
        part = memory[:, 1:, 2:-1].movedim(-1, 1)
        return part.copy_(x)
    memory = x.new_full((*x.shape[:-1], 2 * x.shape[-1]), torch.nan)
    memory[..., ::2] = x
    return memory[..., ::2]


def drawn(
    shape: tuple[int, int, int, int],
    outputs: int,
    kernel: tuple[int, int],
    *,
    inputs: str = "norm",
    layout: str = "channels last",
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    transposed: bool = False,
    extras: bool = True,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[tuple[Tensor, Tensor, Tensor], Kwargs]:
    """Return x, weight and bias, and the other arguments; x keeps norms from magnifying."""
    channels = shape[1]

    def drawing(*size: int, salt: int, amplitude: float = 1) -> Tensor:
        return noise(*size, seed=seed + salt, amplitude=amplitude).to(device)

    apart = torch.linspace(-2, 2, channels, device=device).view(-1, 1, 1)
    x = drawing(*shape, salt=0, amplitude=0.7) + apart
    sizes = (channels, outputs) if transposed else (outputs, channels)
    weight = drawing(*sizes, *kernel, salt=1)
    kwargs: Kwargs = {"stride": stride, "padding": padding, "transposed": transposed}
    if inputs == "norm":
        kwargs["norm"] = in_nan(drawing(channels, salt=2)), in_nan(drawing(channels, salt=3))
        kwargs["activation"] = "silu" if seed % 2 else "none"
    if inputs == "bound":
        x = x.tanh()
        kwargs["bound"] = 1.0
    bias = drawing(outputs, salt=4)
    if extras:
        out = _out_shape(x, weight, stride, padding, transposed)
        kwargs["rows"] = drawing(outputs, out[2], 1, salt=5)
        kwargs["residual"] = laid_out(drawing(*out, salt=6), LAYOUTS[seed % 4])
    return (laid_out(x, layout), in_nan(weight), in_nan(bias)), kwargs


def _out_shape(x: Tensor, weight: Tensor, *sizes: Any) -> tuple[int, ...]:
    stride, padding, transposed = sizes
    zeros = conv2d_reference(
        *(x * 0, weight, None, None, None, None, None, stride, padding, transposed, "none", None)
    )
    return tuple(zeros.shape)


def on_triton(arguments: tuple[Tensor, ...], kwargs: Kwargs) -> Tensor:
    """Run conv2d on the Triton backend and check which kernels ran."""
    before = launched.copy()
    with melcap.use_backend("triton"), torch.no_grad():
        found = conv2d(*arguments, **kwargs)
    halves = "norm" in kwargs or kwargs.get("bound") is not None
    assert launched - before == {"conv2d_kernel": 1} | ({"halves_kernel": 1} if halves else {})
    return found


def in_float64(arguments: tuple[Tensor, ...], kwargs: Kwargs) -> Tensor:
    """Return the result in float64."""
    exact = {k: _doubled(v) for k, v in kwargs.items()}
    with torch.no_grad(), melcap.use_backend("torch"):
        return conv2d(*(t.double() for t in arguments), **exact)


def _doubled(value: Any) -> Any:
    if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
        return tuple(part.double() for part in value)
    return value.double() if isinstance(value, Tensor) else value


def allowed(arguments: tuple[Tensor, ...], kwargs: Kwargs) -> Tensor:
    """Return the largest error that `kernels.conv2d.kernels` allows each output.

    Terms are added up as its docstring lists them. Float32 arithmetic outside of products (norm,
    bias, rows, residual) may round eight times.
    """
    x, weight, bias = (t.double() for t in arguments)
    plain = {k: v for k, v in kwargs.items() if k in ("stride", "padding", "transposed")}

    def along(inputs: Tensor, weights: Tensor) -> Tensor:
        with torch.no_grad(), melcap.use_backend("torch"):
            return conv2d(inputs.abs(), weights.abs(), **plain)

    bound, of_norm = kwargs.get("bound") or 0.0, torch.zeros_like(x)
    if "norm" in kwargs:
        norm = tuple(v.double() for v in kwargs["norm"])
        bound = float(bound_of_norm(*norm))
        x = channel_norm_reference(x, *norm, kwargs["activation"])
        of_norm = 5e-6 * (1 + x.abs())  # the tolerance of a norm alone
    halves = "norm" in kwargs or bound > 0
    terms = along(x, weight)
    by_output = (0, 2, 3) if kwargs["transposed"] else (1, 2, 3)
    loudest = weight.abs().amax(by_output, keepdim=True).expand_as(weight)
    if halves:
        error = 3 * 2**-22 * terms + along(torch.full_like(x, 2.0**-39 * bound), weight)
        error += along(x, 2.0**-39 * loudest)
    else:
        error = 3 * 2**-21 * terms
    products = weight.numel() // bias.numel()
    depth = 64
    error += (3 * depth + products / 16) * 2**-24 * terms + along(of_norm, weight)
    outer = terms + sum(
        v.double().abs() for v in (bias.view(-1, 1, 1), *_addends(kwargs)) if v is not None
    )
    return error + 8 * 2**-24 * outer


def _addends(kwargs: Kwargs) -> Iterator[Tensor]:
    for name in ("rows", "residual"):
        if name in kwargs:
            yield kwargs[name]


def check(arguments: tuple[Tensor, ...], kwargs: Kwargs) -> Tensor:
    """Check the kernels against float64 and return their result."""
    found = on_triton(arguments, kwargs)
    expected = in_float64(arguments, kwargs)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert found.movedim(1, -1).is_contiguous()
    assert not found.isnan().any(), f"NaN at {found.isnan().nonzero()[0].tolist()}"
    error = (found.double() - expected).abs()
    excess = error / allowed(arguments, kwargs)
    where = [int(i) for i in torch.unravel_index(excess.argmax(), excess.shape)]
    assert excess.max() <= 1, f"{float(error[tuple(where)]):.1e} at {where}"
    return found


sizes = st.fixed_dictionaries(
    {
        "shape": st.tuples(
            st.integers(1, 3), st.integers(2, 70), st.integers(3, 7), st.integers(5, 40)
        ),
        "outputs": st.integers(1, 140),
        "kernel": st.tuples(st.integers(1, 3), st.integers(1, 5)),
        "stride": st.tuples(st.integers(1, 2), st.integers(1, 3)),
        "padding": st.tuples(st.integers(0, 2), st.integers(0, 2)),
        "inputs": st.sampled_from(INPUTS),
        "layout": st.sampled_from(LAYOUTS),
        "extras": st.booleans(),
        "seed": st.integers(0, 99),
    }
)


@pytest.mark.slow
@settings(max_examples=examples(40))
@given(case=sizes)
@example({"shape": (2, 32, 8, 34), "outputs": 32, "kernel": (3, 3), "padding": (1, 0), "seed": 1})
@example({"shape": (1, 128, 4, 35), "outputs": 128, "kernel": (3, 1), "padding": (1, 0)})
@example({"shape": (2, 4, 6, 50), "outputs": 32, "kernel": (3, 3), "inputs": "tf32"})
@example({"shape": (1, 160, 3, 9), "outputs": 260, "kernel": (3, 3), "padding": (1, 1)})
@example({"shape": (1, 40, 3, 9), "outputs": 5, "kernel": (3, 3), "inputs": "bound"})
def test_any_shape_and_layout(case: dict[str, Any]) -> None:
    check(*drawn(**case))


@pytest.mark.slow
@settings(max_examples=examples(12))
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(2, 70), st.integers(1, 5), st.integers(1, 40)),
    outputs=st.integers(1, 70),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    inputs=st.sampled_from(INPUTS),
    extras=st.booleans(),
    seed=st.integers(0, 99),
)
@example((2, 64, 3, 50), 32, (2, 2), "norm", False, 0)
@example((1, 33, 2, 70), 64, (1, 2), "norm", True, 1)
def test_any_upsampling(
    shape: tuple[int, int, int, int],
    outputs: int,
    kernel: tuple[int, int],
    inputs: str,
    extras: bool,
    seed: int,
) -> None:
    case: Kwargs = {"inputs": inputs, "extras": extras, "seed": seed}
    check(*drawn(shape, outputs, kernel, stride=kernel, transposed=True, **case))


@pytest.mark.parametrize("outputs", [24, 64, 130])
@pytest.mark.parametrize("inputs", INPUTS)
def test_both_tilings(inputs: str, outputs: int, device_memory: int) -> None:
    arguments, kwargs = drawn((2, 33, 6, 51), outputs, (3, 3), inputs=inputs, padding=(1, 0))
    check(arguments, kwargs)


@pytest.mark.parametrize("inputs", INPUTS)
def test_a_clip_gives_the_same_bits_in_any_batch_and_layout(inputs: str) -> None:
    (x, *weights), kwargs = drawn(
        (3, 40, 5, 60), 64, (3, 3), inputs=inputs, padding=(1, 0), extras=False
    )
    whole = on_triton((x, *weights), kwargs)
    assert torch.equal(on_triton((x[1:2], *weights), kwargs), whole[1:2])
    assert torch.equal(on_triton((x.flip(0), *weights), kwargs), whole.flip(0))
    for layout in LAYOUTS:
        assert torch.equal(on_triton((laid_out(x, layout), *weights), kwargs), whole)


@pytest.mark.parametrize("channels", [32, 128])
@pytest.mark.parametrize("kernel", [(3, 3), (3, 1)])
def test_halves_err_less_than_float32(channels: int, kernel: tuple[int, int]) -> None:
    """The root mean square of the error is below that of a float32 convolution."""
    shape = (1, channels, 6, 40)
    arguments, kwargs = drawn(shape, channels, kernel, inputs="bound", extras=False)
    exact = in_float64(arguments, kwargs)
    with torch.no_grad(), melcap.use_backend("torch"):
        single = conv2d(*arguments, **kwargs)

    def rms(y: Tensor) -> float:
        return float((y.double() - exact).square().mean().sqrt())

    assert rms(on_triton(arguments, kwargs)) <= rms(single)


@pytest.mark.parametrize("gain", [0.0, 1e-30, 1e-6, 1e4, 1e30])
def test_scales_follow_the_norm(gain: float) -> None:
    """Loud and quiet norms and weights neither overflow nor vanish."""
    (x, weight, bias), kwargs = drawn((1, 20, 4, 30), 24, (3, 3), extras=False)
    kwargs["norm"] = tuple(v * gain for v in kwargs["norm"])
    check((x, weight, bias), kwargs)
    weight = weight / max(gain, 1e-30)
    weight[3] = 0
    check((x, weight, bias), kwargs)


def test_a_bound_of_a_norm_is_near_and_never_passed() -> None:
    """One loud channel among silent ones, or a mean that is rounded, gives the largest numbers."""
    for channels in (2, 3, 64, 1000):
        x = torch.zeros(2, channels, 1, 1)
        x[0, 0] = 1e3
        x[1] = 1.0
        x[1, 0] = 1 + 2.0**-23
        weight, bias = torch.full((channels,), 3.0), torch.full((channels,), 0.5)
        given = launches.Halves.empty(2, 1, 1, channels, torch.ones(2))
        norm = weight, bias
        kernels.run(launches.plan_halves(x[:, :, 0, 0][:, None], norm, "none", 1, 0, given))
        loudest = float((given.high.double() + given.low.double()).abs().max())
        bound = float(bound_of_norm(weight, bias))
        assert 0.7 * bound <= loudest <= bound
        assert bound * float(scale_of(torch.tensor(bound))) <= LARGEST


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's numpy
def test_a_bound_that_does_not_hold_gives_nan() -> None:
    """It gives the right result up to twice the bound at least, and NaN where it cannot."""
    (x, *weights), kwargs = drawn((1, 20, 4, 30), 24, (3, 3), inputs="bound", extras=False)
    x[0, 3, 2, 11] = 5.0
    found = on_triton((x, *weights), kwargs)
    assert not found[0, :, 0:3, 9:12].isfinite().any()
    assert found[..., 12:].isfinite().all()


def test_nan_stays_where_it_is() -> None:
    for inputs in INPUTS:
        (x, *weights), kwargs = drawn((2, 20, 4, 30), 24, (3, 3), inputs=inputs, extras=False)
        x[1, 3, 2, 11] = torch.nan
        found = on_triton((x, *weights), kwargs)
        assert found[1, :, 0:3, 9:12].isnan().all()
        assert int(found.isnan().sum()) == 24 * 2 * 3


def test_weights_that_change_are_noticed() -> None:
    arguments, kwargs = drawn((1, 20, 4, 30), 24, (3, 3), extras=False)
    check(arguments, kwargs)
    arguments[1].mul_(100)
    check(arguments, kwargs)
    kwargs["norm"][1].add_(1e6)
    check(arguments, kwargs)
    arguments[2].add_(5)
    check(arguments, kwargs)
    # Another bias in the same memory, with the same count of changes, makes another scale.
    memory = np.ones(20, np.float32)
    kwargs["norm"] = kwargs["norm"][0], torch.from_numpy(memory)
    check(arguments, kwargs)
    memory *= 1e6
    kwargs["norm"] = kwargs["norm"][0], torch.from_numpy(memory)
    check(arguments, kwargs)


def test_weights_may_be_views() -> None:
    """Tables are kept with what they are views of, and tell views of one tensor apart."""
    (x, _, bias), kwargs = drawn((1, 20, 4, 30), 24, (3, 3), extras=False)
    stacked, norms = noise(2, 24, 20, 3, 3, amplitude=1), noise(4, 20, seed=1, amplitude=1)
    norms[3] *= 1e6
    for weight, norm in (
        (stacked[0], norms[:2]),
        (stacked[1], norms[1:3]),
        (stacked[1], norms[2:]),
    ):
        for _ in range(2):
            kwargs["norm"] = norm.unbind()
            check((x, weight, bias), kwargs)
    stacked *= 2
    check((x, stacked[1], bias), kwargs)
    made = {}

    def build() -> Tensor:
        made["tables"] = made.get("tables", 0) + 1
        return torch.zeros(1)

    for _ in range(2):
        remembered(stacked[1][..., None], "a kind", build)
    assert made == {"tables": 1}


def test_weights_of_inference_mode() -> None:
    with torch.inference_mode():
        arguments, kwargs = drawn((1, 20, 4, 30), 24, (3, 3))
        check(arguments, kwargs)
        arguments[1].mul_(3)
        check(arguments, kwargs)


@pytest.mark.parametrize("outputs", [5, 24, 40])
def test_nothing_is_written_elsewhere(outputs: int) -> None:
    (x, weight, bias), kwargs = drawn((2, 20, 5, 37), outputs, (3, 3), padding=(1, 2))
    layer = kernels.layer_of(weight, [1, 1], [1, 2], False, True)

    def halves(*shape: int) -> launches.Halves:
        parts = (in_nan(torch.full(shape, torch.nan, dtype=torch.float16)) for _ in range(2))
        return launches.Halves(*parts, kernels.norm_table(*kwargs["norm"]))

    given = halves(2, 5, 41, width_of(20))
    made = halves(2, 5, 39, width_of(outputs))
    out = in_nan(torch.full((2, 5, 39, outputs), torch.nan))
    for half in given[:2]:
        half[:, :, (0, 1, 39, 40)] = 0
    last = x.movedim(1, -1).reshape(2, -1, 20)
    kernels.run(launches.plan_halves(last, kwargs["norm"], "silu", 37, 2, given))
    matrix, tiling = kernels.matrix_of(layer, weight), kernels.tiling_of(layer, x.device)
    norm = torch.ones(outputs), torch.zeros(outputs)
    for target, after in ((out, ()), (made, norm)):
        kernels.run(
            launches.plan_conv2d(layer, given, matrix, target, tiling, bias=bias, norm=after)
        )
    for written in (*given[:2], *made[:2], out):
        memory = torch.as_strided(written, (written.numel() + 8192,), (1,), 0)
        assert int(memory.isnan().sum()) == 8192
    assert not made.high[..., outputs:].any()
    assert not made.low[..., outputs:].any()


def test_gradients_do_without() -> None:
    """The parts run one after the other where a gradient is wanted."""
    (x, weight, bias), kwargs = drawn((2, 6, 4, 20), 5, (3, 3), seed=1, layout="channels apart")
    leaves = [t.detach().clone().requires_grad_() for t in (x, weight, bias)]
    before = launched.copy()
    with melcap.use_backend("triton"):
        y = conv2d(*leaves, **kwargs)
        found = torch.autograd.grad(y.square().sum(), leaves)
    assert launched == before
    exact = [t.double().detach().requires_grad_() for t in (x, weight, bias)]
    doubled = {k: _doubled(v) for k, v in kwargs.items()}
    expected = torch.autograd.grad(conv2d(*exact, **doubled).square().sum(), exact)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-3, rtol=1e-4)


def test_an_empty_batch_launches_nothing() -> None:
    arguments, kwargs = drawn((2, 6, 4, 20), 5, (3, 3), extras=False)
    before = launched.copy()
    with melcap.use_backend("triton"), torch.no_grad():
        assert conv2d(arguments[0][:0], *arguments[1:], **kwargs).shape == (0, 5, 2, 18)
    assert launched == before


def test_refusals() -> None:
    (x, weight, bias), kwargs = drawn((1, 4, 5, 9), 6, (3, 3), extras=False)
    for arguments, reason in [
        ((x.double(), weight, bias), "not torch.float64"),
        ((x.half(), weight, bias), "all tensors must be float32, not torch.float16"),
        ((x, weight.bfloat16(), bias), "all tensors must be float32, not torch.bfloat16"),
    ]:
        with melcap.use_backend("triton"), pytest.raises(BackendError, match=reason):
            conv2d(*arguments, **kwargs)
    wide, many = drawn((1, 4097, 1, 3), 2, (1, 1), extras=False)
    with melcap.use_backend("triton"), pytest.raises(BackendError, match="at most 4096 normed"):
        conv2d(*wide, **many)
    endless = torch.zeros(1, 4, 1, 1).expand(-1, -1, 3, 2**26)
    sizes = ([1, 1], [0, 0], False, "none", None)
    (reason,) = kernels.unsupported(endless, weight, None, None, None, None, None, *sizes)
    assert reason == f"a clip may have {(2**31 - 1) // 54} positions, not {3 * 2**26}"
    (reason,) = kernels.unsupported(x.to("meta"), weight, bias, None, None, None, None, *sizes)
    assert reason == "tensors are on several devices: cpu, meta"


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize(
    ("shape", "outputs", "kernel"),
    [
        ((8, 32, 48, 437), 32, (3, 3)),
        ((8, 64, 24, 219), 64, (3, 1)),
        ((5, 128, 12, 111), 128, (3, 3)),
        ((2, 512, 9, 87), 512, (3, 3)),
        ((3, 51, 7, 101), 77, (3, 5)),
        ((3, 4, 48, 437), 32, (3, 3)),
    ],
)
def test_on_a_device(
    shape: tuple[int, int, int, int],
    outputs: int,
    kernel: tuple[int, int],
    inputs: str,
    layout: str,
) -> None:
    (x, *weights), kwargs = drawn(
        shape, outputs, kernel, inputs=inputs, layout=layout, padding=(1, 0), device="cuda"
    )
    found = check((x, *weights), kwargs)
    one = {**kwargs, "residual": kwargs["residual"][-1:]}
    assert torch.equal(on_triton((x[-1:], *weights), one), found[-1:])


@pytest.mark.gpu
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("channels", [32, 64, 128])
def test_a_position_gives_the_same_bits_anywhere_on_a_device(
    inputs: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds in any part of a clip, and in tiles of both sizes.

    The interpreter cannot show it: sums of NumPy's products depend on the place in a matrix.
    """
    (x, *weights), kwargs = drawn(
        (4, channels, 12, 111), channels, (3, 3), inputs=inputs, extras=False, device="cuda"
    )
    found = on_triton((x, *weights), kwargs)
    assert torch.equal(on_triton((x[..., 7:91], *weights), kwargs), found[..., 7:89])
    monkeypatch.setattr(kernels, "shared_memory", lambda _: 0)
    assert torch.equal(on_triton((x, *weights), kwargs), found)


@pytest.mark.gpu
def test_far_offsets_on_a_device() -> None:
    """With more than 2^31 numbers the last clip is as it is alone."""
    clips = 2**31 // (64 * 24 * 4000) + 2
    arguments, kwargs = drawn((1, 64, 24, 4000), 64, (3, 3), device="cuda", extras=False)
    alone = on_triton(arguments, kwargs)
    many = arguments[0].expand(clips, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    assert torch.equal(on_triton((many, *arguments[1:]), kwargs)[-1:], alone)
