"""Nested states (dicts, lists, numbers and tensors) as plain JSON and a flat dict of tensors.

safetensors holds flat dicts of tensors only. The state of an optimiser, or of a module with extra
state, is nested and has numbers in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def split(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split a nested state into (plain, tensors).

    Args:
        state: dicts (of any plain keys), lists, tuples, numbers, strings, None and tensors.

    Returns:
        `plain`, fit for JSON, in which every container and tensor is tagged with its kind, and the
        tensors on the CPU, contiguous, by the place where each stood.

    Raises:
        TypeError: for anything else in the state.

    Example:
        >>> import torch
        >>> plain, tensors = split({"a": [1, torch.zeros(2)]})
        >>> plain
        {'dict': [['a', {'list': [1, {'tensor': 'a/1'}]}]]}
        >>> join(plain, tensors)
        {'a': [1, tensor([0., 0.])]}
    """
    tensors: dict[str, Tensor] = {}

    def below(place: str, key: object) -> str:
        return f"{place}/{key}" if place else str(key)

    def visit(value: Any, place: str) -> Any:
        if isinstance(value, Tensor):
            while place in tensors:  # the keys 1 and "1", say
                place += "'"
            # A copy: safetensors refuses tensors that share memory.
            tensors[place] = value.detach().cpu().contiguous().clone()
            return {"tensor": place}
        if isinstance(value, Mapping):
            return {"dict": [[key, visit(one, below(place, key))] for key, one in value.items()]}
        if isinstance(value, list | tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [visit(one, below(place, index)) for index, one in enumerate(value)]}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"{place} is a {type(value).__name__}, which no checkpoint can hold")

    return visit(state, ""), tensors


def join(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the nested state from which `split` made `plain` and `tensors`."""
    if not isinstance(plain, dict):
        return plain
    ((kind, value),) = plain.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: join(one, tensors) for key, one in value}
    made = [join(one, tensors) for one in value]
    return made if kind == "list" else tuple(made)
