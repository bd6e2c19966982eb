"""Muon orthogonalises updates, of AdamW's size, for the weights that are matrices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from melcap.codec import Codec
from melcap.config import CodecConfig, VocoderConfig
from melcap.training.config import TrainingConfig
from melcap.training.muon import Muon, orthogonal
from melcap.training.optimisers import is_matrix, optimisers_of


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(
    n=st.integers(1, 40),
    m=st.integers(1, 40),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 99),
)
def test_singular_values_come_near_one(n: int, m: int, scale: float, seed: int) -> None:
    """Singular values come near 1, except those far below the largest; directions stay."""
    left, values, right = torch.linalg.svd(noise(2, n, m, seed=seed), full_matrices=False)
    values = values.clamp(min=0.05 * values[:, :1])
    made = orthogonal(scale * (left * values[:, None]) @ right)
    inner = left.mT @ made @ right.mT
    diagonal = inner.diagonal(dim1=1, dim2=2)
    assert diagonal.min() > 0.6
    assert diagonal.max() < 1.3
    assert (inner - torch.diag_embed(diagonal)).abs().max() < 1e-2


def test_no_gradient_no_update() -> None:
    assert (orthogonal(torch.zeros(1, 3, 5)) == 0).all()
    still = nn.Parameter(noise(4, 5))
    before = still.detach().clone()
    Muon([still], weight_decay=0.1).step()
    assert torch.equal(still, before)


@pytest.mark.parametrize("shape", [(32, 24, 3, 3), (8, 64), (64, 8), (16, 16, 8)])
def test_an_update_is_as_large_as_one_of_adam(shape: tuple[int, ...]) -> None:
    """An update is 0.2 of the rate in root mean square, for any gradient; decay is separate."""
    parameter = nn.Parameter(torch.zeros(shape))
    optimiser = Muon([parameter], lr=0.01, weight_decay=0.0)
    parameter.grad = 1e-5 * noise(*shape)
    optimiser.step()
    rms = parameter.detach().square().mean().sqrt() / 0.01
    assert rms == pytest.approx(0.2, rel=0.25)
    assert (parameter.detach() * parameter.grad).sum() < 0  # downhill
    with torch.no_grad():
        parameter.fill_(1.0)
    parameter.grad = None
    decaying = Muon([parameter], lr=0.01, weight_decay=0.5)
    parameter.grad = torch.zeros(shape)
    decaying.step()
    assert torch.allclose(parameter, torch.tensor(0.995))


def test_momentum_is_an_average_looked_ahead() -> None:
    parameter = nn.Parameter(torch.zeros(3, 4))
    optimiser = Muon([parameter], lr=1.0, momentum=0.9, weight_decay=0.0)
    average, place = torch.zeros(3, 4), torch.zeros(3, 4)
    for seed in range(4):
        gradient = noise(3, 4, seed=seed)
        average = 0.9 * average + 0.1 * gradient
        place -= 0.4 * orthogonal((0.1 * gradient + 0.9 * average)[None])[0]
        parameter.grad = gradient
        optimiser.step()
    assert torch.allclose(parameter, place, atol=1e-5)


def test_parameters_of_one_shape_do_not_mix() -> None:
    weights = [nn.Parameter(torch.zeros(6, 8)) for _ in range(3)]
    for seed, weight in enumerate(weights):
        weight.grad = noise(6, 8, seed=seed)
    together = Muon(weights)
    together.step()
    for seed, weight in enumerate(weights):
        alone = nn.Parameter(torch.zeros(6, 8))
        alone.grad = noise(6, 8, seed=seed)
        Muon([alone]).step()
        assert torch.allclose(weight, alone, atol=1e-7)


def test_what_is_a_matrix() -> None:
    stage = VocoderConfig(strides=(4,), stage_channels=(128,), stage_blocks=(3,))
    codec = Codec(CodecConfig(vocoder=stage))
    named = dict(codec.named_parameters())
    rest = {name.rpartition(".")[2] for name, value in named.items() if not is_matrix(name, value)}
    assert rest == {"bias", "weight", "rows", "scale", "alpha"}
    for name, value in named.items():
        if name.endswith("weight") and not is_matrix(name, value):
            assert "norm" in name or "depthwise" in name, name
    share = sum(value.numel() for name, value in named.items() if is_matrix(name, value))
    assert share > 0.97 * sum(value.numel() for value in named.values())


def test_without_it_all_is_for_adam() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv2d(4, 2, 3))
    with_it, without = (
        optimisers_of("x", model.named_parameters(), TrainingConfig(muon=muon, weight_decay=0.3))
        for muon in (True, False)
    )
    assert list(without) == ["x"]
    assert list(with_it) == ["x", "x matrices"]
    counts = [
        [sum(p.numel() for p in optimiser.param_groups[0]["params"]) for optimiser in of.values()]
        for of in (with_it, without)
    ]
    matrices = 12 + 72
    everything = matrices + 4 + 8 + 2
    assert counts == [[everything - matrices, matrices], [everything]]
    for of in (with_it, without):
        assert all(optimiser.param_groups[0]["weight_decay"] == 0.3 for optimiser in of.values())
