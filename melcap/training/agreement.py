"""Checks that processes which train together train the same thing.

Each process computes weights, codebook, averages and optimisers for itself. They stay the same
because all processes begin alike, draw the same random numbers and use the same sums over all of
them. A difference would grow without a sign in the figures, so training ends at the first one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from melcap.errors import InputError, MelcapError
from melcap.training import ranks
from melcap.training.checkpoint import describe_last
from melcap.training.recipe import Recipe

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def require_same_start(facts: Mapping[str, str]) -> None:
    """Refuse to train where the processes begin differently.

    Args:
        facts: what must be the same, by words for the user.

    Raises:
        InputError: naming what differs.
    """
    if ranks.count() == 1:
        return
    if names := _differing({name: _hash(fact.encode()) for name, fact in facts.items()}):
        raise InputError(
            f"the processes do not have the same {', '.join(names)}: start all of them with the "
            "same command, where they see the same folders"
        )


def require_in_step(
    recipe: Recipe,
    averages: Mapping[str, nn.Module],
    sampler: Mapping[str, object],
    step: int,
    checkpoint: Path,
) -> None:
    """Refuse to go on where weights, averages or random numbers of the processes differ in a bit.

    All processes call it at the same step. Weights are compared by a checksum, which a GPU computes
    without sending them.

    Args:
        recipe: the recipe.
        averages: the moving averages.
        sampler: the state of the sampler.
        step: the step, for the error.
        checkpoint: the folder of the run, for the error.

    Raises:
        MelcapError: naming what differs.
    """
    if ranks.count() == 1:
        return
    random = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        random.append(torch.cuda.get_rng_state())
    facts = {name: _checksum(_tensors(module)) for name, module in recipe.modules().items()}
    for name, average in averages.items():
        facts[f"average of {name}"] = _checksum(_tensors(average))
    facts["random numbers"] = _hash(b"".join(state.numpy().tobytes() for state in random))
    facts["batches"] = _hash(json.dumps(sampler, sort_keys=True).encode())
    if names := _differing(facts):
        raise MelcapError(
            f"the processes came apart: {', '.join(names)} differ at step {step}: "
            f"{describe_last(checkpoint)}; resume from there, on devices of one kind"
        )


def _differing(facts: Mapping[str, Tensor]) -> list[str]:
    flags = ranks.unequal(torch.stack([fact.cpu() for fact in facts.values()]))
    return [name for name, differs in zip(facts, flags, strict=True) if differs]


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _hash(data: bytes) -> Tensor:
    return torch.tensor(int.from_bytes(hashlib.sha256(data).digest()[:7], "big"))


def _checksum(tensors: Iterable[Tensor]) -> Tensor:
    """Return the sum of the squares of all numbers, whose bits are read as whole numbers.

    It wraps around. Without the squares, one more in the last place and one less would cancel out.
    """
    bits = (each.detach().reshape(-1).view(_BITS[each.element_size()]) for each in tensors)
    return torch.stack([part.to(torch.int64).square().sum() for part in bits]).sum()
