"""Changes of weights are noticed, however they are made."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from melcap.model.weight_state import WeightState


def network() -> nn.Sequential:
    inner = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3))
    return nn.Sequential(inner, nn.Linear(3, 2, bias=False)).eval()


def layer(module: nn.Sequential) -> nn.Conv1d:
    found = module[0][0]
    assert isinstance(found, nn.Conv1d)
    return found


def in_place(module: nn.Sequential) -> None:
    with torch.no_grad():
        layer(module).weight[0, 0, 0] += 1


def other_memory(module: nn.Sequential) -> None:
    layer(module).weight.data = torch.zeros(3, 2, 1)


def parameter(module: nn.Sequential) -> None:
    layer(module).bias = nn.Parameter(torch.zeros(3))


def no_parameter(module: nn.Sequential) -> None:
    layer(module).bias = None


def buffer(module: nn.Sequential) -> None:
    module[0][1].running_mean = torch.zeros(3)


def loaded(module: nn.Sequential) -> None:
    module.load_state_dict(network().state_dict())


def assigned(module: nn.Sequential) -> None:
    module.load_state_dict(network().state_dict(), assign=True)


def inner_module(module: nn.Sequential) -> None:
    module[0][0] = nn.Conv1d(2, 3, 1)


def outer_module(module: nn.Sequential) -> None:
    module[1] = nn.Identity()


def appended(module: nn.Sequential) -> None:
    module.append(nn.Linear(2, 2))


def weight_norm(module: nn.Sequential) -> None:
    nn.utils.parametrizations.weight_norm(layer(module))


def converted(module: nn.Sequential) -> None:
    module.double()


CHANGES: list[Callable[[nn.Sequential], None]] = [
    in_place,
    other_memory,
    parameter,
    no_parameter,
    buffer,
    loaded,
    assigned,
    inner_module,
    outer_module,
    appended,
    weight_norm,
    converted,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(change: Callable[[nn.Sequential], None]) -> None:
    module = network()
    state = WeightState(module)
    assert state.complete
    assert state.holds(module)
    module[0](torch.zeros(1, 2, 3))
    assert state.holds(module), "it was only used"
    change(module)
    assert not state.holds(module)
    assert WeightState(module).holds(module)


def test_other_modules_are_noticed() -> None:
    one, other = network(), network()
    state = WeightState(one, other)
    assert state.holds(one, other)
    for modules in ((other, one), (one,), (one, other, one), (one, network())):
        assert not state.holds(*modules)


def test_weights_made_in_inference_mode_do_not_count_their_changes() -> None:
    with torch.inference_mode():
        module = nn.Linear(2, 2)
    state = WeightState(module)
    assert not state.complete
    assert state.holds(module)
    module.bias = nn.Parameter(torch.zeros(2))
    assert not state.holds(module)
