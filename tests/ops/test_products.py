"""Linear layers by oneDNN are those of PyTorch, and are left to it where oneDNN cannot serve."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from melcap.ops.flops import FORMULAS
from melcap.ops.products import has_onednn, linear
from tests.helpers import examples, noise

pytestmark = pytest.mark.usefixtures("poisoned_memory")

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="not an x86 build with oneDNN")


def layer(channels_in: int, channels_out: int) -> tuple[Tensor, Tensor]:
    weight = noise(channels_out, channels_in, seed=1, amplitude=1.0) / channels_in**0.5
    return weight, noise(channels_out, seed=2, amplitude=1.0)


def calls(x: Tensor, weight: Tensor, bias: Tensor) -> list[str]:
    """Return the names of the products that the layer runs."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        linear(x, weight, bias)
    products = {"mkldnn::_linear_pointwise", "aten::linear"}
    return [event.name for event in profile.events() if event.name in products]


@settings(max_examples=examples(40))
@given(
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    sizes=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    activation=st.sampled_from(["none", "gelu"]),
    strided=st.booleans(),
)
def test_it_is_its_definition(
    shape: list[int], sizes: tuple[int, int], activation: str, strided: bool
) -> None:
    weight, bias = layer(*sizes)
    x = noise(*shape, sizes[0], seed=3, amplitude=1.0)
    if strided:
        x, weight = x.mT.contiguous().mT if x.ndim > 1 else x, weight.t().contiguous().t()
    found = linear(x, weight, bias, activation)
    expected = F.linear(x.double(), weight.double(), bias.double())
    if activation == "gelu":
        expected = F.gelu(expected)
    assert found.dtype == torch.float32
    assert found.shape == (*shape, sizes[1])
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-6)


@needs_onednn
def test_onednn_runs_it_in_inference_alone() -> None:
    x, (weight, bias) = noise(5, 8), layer(8, 6)
    assert calls(x, weight, bias) == ["mkldnn::_linear_pointwise"]
    assert calls(x.double(), weight.double(), bias.double()) == ["aten::linear"]
    with torch.backends.mkldnn.flags(enabled=False):
        assert calls(x, weight, bias) == ["aten::linear"]
    weight.requires_grad_()
    assert calls(x, weight, bias) == ["aten::linear"]
    assert linear(x, weight, bias).requires_grad
    with torch.no_grad():
        assert calls(x, weight, bias) == ["mkldnn::_linear_pointwise"]


@needs_onednn
def test_its_operations_are_counted() -> None:
    x, (weight, bias) = noise(3, 5, 8), layer(8, 6)
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        linear(x, weight, bias, "gelu")
    assert counter.get_total_flops() == 2 * 3 * 5 * 8 * 6
