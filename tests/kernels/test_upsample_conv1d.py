"""Compare the upsample_conv1d kernel with float64, in the interpreter or on a device.

These tests cannot notice phases that only fill up being stored (the interpreter overwrites them in
order), and tiles of steps that overlap (the same numbers twice).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import melcap
from melcap.errors import BackendError
from melcap.kernels import upsample_conv1d as kernel
from melcap.kernels import weight_cache
from melcap.kernels.launch import launched
from melcap.kernels.upsample_conv1d import weights
from melcap.ops import registry, upsample_conv1d
from melcap.ops.activations import ACTIVATIONS
from tests.helpers import examples, noise

Arguments = dict[str, Any]


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    """Fill memory that an operation allocates with NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


def layer(
    batch: int,
    channels_in: int,
    channels_out: int,
    steps: int,
    stride: int,
    taps: int,
    activation: str = "snake",
    *,
    bias: bool = True,
    residual: bool = True,
    seed: int = 0,
) -> Arguments:
    """Return a layer whose output has about unit variance, and its input."""

    def drawn(*shape: int, salt: int) -> Tensor:
        return noise(*shape, seed=10 * seed + salt, amplitude=1)

    fan_in = channels_in * taps
    return {
        "x": drawn(batch, channels_in, steps, salt=0),
        "weight": drawn(channels_in, channels_out, stride * taps, salt=1) / fan_in**0.5,
        "bias": drawn(channels_out, salt=2) if bias else None,
        "stride": stride,
        "activation": activation,
        "alpha": drawn(channels_in, salt=3).exp() if activation == "snake" else None,
        "residual": drawn(batch, channels_out, steps * stride, salt=4) if residual else None,
    }


def with_tensors(arguments: Arguments, change: Callable[[Tensor], Tensor]) -> Arguments:
    return {k: change(v) if isinstance(v, Tensor) else v for k, v in arguments.items()}


def on_triton(arguments: Arguments, ran: str = "upsample_conv1d_kernel") -> Tensor:
    """Run it on the Triton backend and check that `ran` was launched once."""
    before = launched.copy()
    with melcap.use_backend("triton"):
        found = upsample_conv1d(**arguments)
    assert launched - before == {ran: 1}
    return found


def assert_close(found: Tensor, arguments: Arguments) -> None:
    """Check the registry's tolerance against the reference in float64."""
    with melcap.use_backend("torch"):
        expected = upsample_conv1d(**with_tensors(arguments, Tensor.double))
    assert found.shape == expected.shape
    assert found.dtype == arguments["x"].dtype
    assert found.is_contiguous()
    assert not found.isnan().any(), f"NaN at {found.isnan().nonzero()[0].tolist()}"
    allowed = registry.implementation("upsample_conv1d", "triton").tolerances[found.dtype]
    error = (found.double() - expected).abs()
    excess = error - allowed.rtol * expected.abs()
    where = [int(i) for i in torch.unravel_index(excess.argmax(), error.shape)]
    assert excess.max() <= allowed.atol, (
        f"{float(error[tuple(where)]):.1e} at [clip, channel, step] {where}, "
        f"{float(error.max()):.1e} at most"
    )


def in_nan(tensor: Tensor) -> Tensor:
    """Return the same numbers in every other step of memory that is NaN elsewhere."""
    memory = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1] + 5), torch.nan)
    view = memory[..., 3 : 3 + 2 * tensor.shape[-1] : 2]
    return view.copy_(tensor)


def between_nan(tensor: Tensor) -> Tensor:
    """Return the same numbers, each row between NaN."""
    memory = tensor.new_full((*tensor.shape[:-1], tensor.shape[-1] + 7), torch.nan)
    return memory[..., 4:-3].copy_(tensor)


def turned(tensor: Tensor) -> Tensor:
    """Return the same numbers with the axes the other way round in memory."""
    axes = tuple(range(tensor.ndim))[::-1]
    return tensor.permute(axes).contiguous().permute(axes)


LAYOUTS = (Tensor.clone, in_nan, between_nan, turned)
DTYPES = (torch.float32, torch.float16)


@pytest.mark.slow
@settings(max_examples=examples(20))
@given(
    batch=st.integers(1, 2),
    channels_in=st.integers(1, 40),
    channels_out=st.integers(1, 20),
    steps=st.integers(1, 20),
    stride=st.integers(1, 16),
    taps=st.integers(1, 3),
    activation=st.sampled_from(ACTIVATIONS),
    bias=st.booleans(),
    residual=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
# Tiles of rows and of steps.
@example(2, 40, 33, 70, 4, 2, "snake", True, True, between_nan, torch.float32, 0)
@example(1, 40, 33, 70, 4, 2, "snake", True, True, between_nan, torch.float16, 0)
@example(1, 5, 1, 129, 1, 3, "silu", False, False, Tensor.clone, torch.float32, 0)
# The crop adds a column.
@example(1, 33, 9, 64, 16, 2, "gelu", True, True, between_nan, torch.float32, 0)
@example(1, 33, 9, 64, 16, 2, "gelu", True, True, turned, torch.float16, 0)
@example(1, 3, 17, 65, 5, 2, "leaky_relu", True, True, between_nan, torch.float32, 0)
@example(2, 9, 5, 7, 2, 1, "none", True, False, in_nan, torch.float32, 0)
def test_any_layer(
    batch: int,
    channels_in: int,
    channels_out: int,
    steps: int,
    stride: int,
    taps: int,
    activation: str,
    bias: bool,
    residual: bool,
    layout: Callable[[Tensor], Tensor],
    dtype: torch.dtype,
    seed: int,
) -> None:
    shape = (batch, channels_in, channels_out, steps, stride, taps)
    arguments = layer(*shape, activation, bias=bias, residual=residual, seed=seed)
    arguments = with_tensors(arguments, lambda tensor: tensor.to(dtype))
    assert_close(on_triton(with_tensors(arguments, layout)), arguments)


@pytest.mark.slow
def test_deep_sums_are_closed_in_chunks() -> None:
    arguments = layer(1, 264, 3, 5, 2, 2)
    tiling = weights.Tiling.of(264, 3, 4, 2, half=False)
    assert tiling.chunked
    assert not weights.Tiling.of(256, 3, 4, 2, half=False).chunked
    assert_close(on_triton(arguments), arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_parameters_of_another_dtype(dtype: torch.dtype) -> None:
    arguments = layer(1, 7, 5, 9, 3, 2)
    arguments = with_tensors(arguments, lambda tensor: tensor.half().to(dtype))
    arguments["x"] = arguments["x"].to(torch.float32 if dtype == torch.float16 else torch.float16)
    assert_close(on_triton(arguments), arguments)


@pytest.mark.slow
def test_a_clip_gives_the_same_bits_in_any_batch() -> None:
    arguments = layer(2, 37, 20, 67, 4, 2)
    together = on_triton(arguments)
    for index in range(2):
        of_one = {key: arguments[key][index : index + 1] for key in ("x", "residual")}
        assert torch.equal(on_triton(arguments | of_one)[0], together[index])


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.7, 40.0, -3.0])
def test_snake_of_any_angle(alpha: float) -> None:
    """Angles too large for float32 are included; there sin^2 is only known to lie in 0..1."""
    x = torch.cat((torch.linspace(-20, 20, 401), torch.tensor([0.0, 1e-30, 1e6, -1e30, 3e38])))
    arguments: Arguments = {
        "x": x[None, None],
        "weight": torch.ones(1, 1, 1),
        "bias": None,
        "stride": 1,
        "activation": "snake",
        "alpha": torch.tensor([alpha]),
    }
    found = on_triton(arguments)[0, 0]
    exact = x.double()
    angle = exact * torch.tensor(alpha).double()
    expected = exact + angle.sin().square() / (torch.tensor(alpha).double() + 1e-9)
    error = (found.double() - expected).abs()
    allowed = 2e-7 * (exact.abs() + (3 + angle.abs()) / max(abs(alpha), 1e-9)).clamp(max=1e30)
    near = angle.abs() < 1e4
    assert (error <= 3e-7 * expected.abs() + allowed)[near].all()
    assert found.isfinite().all()
    assert torch.allclose(found[-2:], x[-2:])


def test_weights_that_change_in_place_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    matrix = weights.matrix

    def counted(*arguments: Any) -> Tensor:
        built.append(arguments)
        return matrix(*arguments)

    monkeypatch.setattr(kernel, "matrix", counted)
    arguments = layer(1, 5, 4, 6, 2, 2)
    for _ in range(2):
        assert_close(on_triton(arguments), arguments)
    assert len(built) == 1
    arguments["weight"][0, 0, 0] += 1
    arguments["alpha"][1] *= 2
    assert_close(on_triton(arguments), arguments)
    assert len(built) == 2
    # one tensor as two layers: by stride, and by the input's dtype
    as_other = arguments | {"stride": 4, "residual": None}
    assert_close(on_triton(as_other), as_other)
    assert_close(on_triton(arguments), arguments)
    half = arguments | {"x": arguments["x"].half(), "residual": None}
    assert_close(on_triton(half), half)
    assert len(built) == 4


def test_weights_without_a_version() -> None:
    with torch.inference_mode():
        arguments = layer(1, 5, 4, 6, 2, 2)
        assert_close(on_triton(arguments), arguments)
        arguments["weight"].zero_()
        assert_close(on_triton(arguments), arguments)


def test_weights_are_not_kept_alive() -> None:
    before = len(weight_cache._tables)
    on_triton(layer(1, 2, 2, 2, 2, 2))
    gc.collect()
    assert len(weight_cache._tables) <= before


@pytest.mark.parametrize("activation", ["snake", "silu"])
def test_gradient_is_the_references(activation: str) -> None:
    def gradients(backend: str) -> list[Tensor]:
        arguments = with_tensors(layer(2, 3, 4, 5, 3, 2, activation), Tensor.requires_grad_)
        leaves = [value for value in arguments.values() if isinstance(value, Tensor)]
        with melcap.use_backend(backend):
            loss = upsample_conv1d(**arguments).sin().sum()
        return list(torch.autograd.grad(loss, leaves))

    before = launched["upsample_conv1d_kernel"]
    for found, expected in zip(gradients("triton"), gradients("torch"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert launched["upsample_conv1d_kernel"] == before + 1


def test_empty_batch_launches_nothing() -> None:
    before = launched.copy()
    with melcap.use_backend("triton"):
        found = upsample_conv1d(torch.empty(0, 3, 7), torch.empty(3, 2, 8), None, 4)
    assert found.shape == (0, 2, 28)
    assert launched == before


def test_which_layers_cudnn_runs() -> None:
    assert kernel.uses_cudnn(512, 512, torch.float16)
    assert kernel.uses_cudnn(2048, 1024, torch.bfloat16)
    assert not kernel.uses_cudnn(512, 511, torch.bfloat16)
    assert not kernel.uses_cudnn(511, 512, torch.float16)
    assert not kernel.uses_cudnn(2048, 2048, torch.float32)
    arguments = with_tensors(layer(1, 512, 512, 3, 2, 2), Tensor.half)
    assert_close(on_triton(arguments, "conv_transpose1d"), arguments)
    plain = arguments | {"bias": None, "residual": None, "activation": "gelu", "alpha": None}
    assert_close(on_triton(plain, "conv_transpose1d"), plain)


def test_rule_table() -> None:
    table = kernel.rule_table()
    who = {(name, dtype): run_by for name, dtype, run_by, _ in table}
    assert who["lite", "float32"] == "Triton"
    assert who["1024 to 512", "float16"] == "cuDNN"
    assert who["1024 to 512", "float32"] == "Triton"
    triton_runs = [f"{name}, {dtype}" for name, dtype, run_by, _ in table if run_by == "Triton"]
    assert list(kernel.shipped()) == triton_runs


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stride": 17, "weight": torch.zeros(1, 1, 17)}, "strides of 1 to 16"),
        ({"x": torch.zeros(1, 1, 1, dtype=torch.float64)}, "not torch.float64"),
        ({"weight": torch.zeros(1, 1, 1, dtype=torch.float64)}, "not torch.float64"),
        ({"x": torch.zeros(1, 1, 1).expand(1, 1, 2**30)}, "2\\^30 output steps"),
        ({"x": torch.zeros(1, 1, 1, dtype=torch.bfloat16)}, "bfloat16 wrongly"),
    ],
)
def test_refusals(change: Arguments, reason: str) -> None:
    arguments: Arguments = {"x": torch.zeros(1, 1, 1), "weight": torch.zeros(1, 1, 1)}
    arguments |= {"bias": None, "stride": 1} | change
    with melcap.use_backend("triton"), pytest.raises(BackendError, match=reason):
        upsample_conv1d(**arguments)


def test_tensors_on_several_devices_are_refused() -> None:
    x, weight = torch.zeros(1, 1, 1), torch.zeros(1, 1, 1, device="meta")
    (reason,) = kernel.unsupported(x, weight, None, 1, "none", None, None)
    assert reason == "tensors are on several devices: cpu, meta"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "activation"),
    [
        ((1, 256, 128, 17, 4, 2), "snake"),
        ((1, 256, 128, 172, 4, 2), "snake"),
        ((64, 256, 128, 173, 4, 2), "snake"),
        ((2, 256, 128, 5161, 4, 2), "snake"),
        ((3, 512, 256, 301, 8, 2), "leaky_relu"),
        ((3, 256, 128, 1007, 8, 2), "snake"),
        ((3, 128, 64, 4099, 2, 2), "snake"),
        ((3, 64, 32, 9001, 2, 2), "leaky_relu"),
        ((3, 32, 32, 9001, 5, 2), "gelu"),
        ((2, 2048, 64, 99, 3, 3), "silu"),
        ((2, 17, 3, 1001, 16, 1), "none"),
        ((1, 8, 8, 2**21 + 1, 2, 2), "none"),
    ],
)
def test_on_the_device(shape: tuple[int, ...], activation: str, dtype: torch.dtype) -> None:
    batch, channels_in, channels_out, steps, stride, taps = shape
    arguments = layer(batch, channels_in, channels_out, steps, stride, taps, activation)
    arguments = with_tensors(arguments, lambda tensor: tensor.to("cuda", dtype))
    found = on_triton(arguments)
    assert_close(found, arguments)
    last = {key: arguments[key][-1:] for key in ("x", "residual")}
    assert torch.equal(on_triton(arguments | last), found[-1:])
    assert torch.equal(on_triton(arguments | {"x": between_nan(arguments["x"])}), found)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cudnn_on_the_device(dtype: torch.dtype) -> None:
    arguments = layer(3, 1024, 512, 201, 8, 2)
    arguments = with_tensors(arguments, lambda tensor: tensor.to("cuda", dtype))
    assert_close(on_triton(arguments, "conv_transpose1d"), arguments)
