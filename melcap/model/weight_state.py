"""Notice changes of weights, which what was derived from them does not survive."""

from __future__ import annotations

import operator
from itertools import chain
from typing import Any

from torch import Tensor, nn

_version = operator.attrgetter("_version")


class WeightState:
    """The weights of modules at one moment.

    PyTorch counts the changes of each tensor, but not of a module. Hundreds of tensors are compared
    in about 10 microseconds, because no step of Python is taken for a single one.

    Attributes:
        complete: False where a tensor was made in inference mode. Such tensors do not count their
            changes, so `holds` overlooks a change of their values.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self._modules = modules
        self._tables: list[dict[str, Any]] = [
            table
            for module in chain.from_iterable(module.modules() for module in modules)
            for table in (module._modules, module._parameters, module._buffers)
            if table
        ]
        # They are kept alive, so that no new tensor can get the address of one of them.
        self._contents = self._contents_now()
        self._tensors = [each for each in self._contents if isinstance(each, Tensor)]
        self._counted = [each for each in self._tensors if not each.is_inference()]
        self._numbers = self._numbers_now()
        self.complete = len(self._counted) == len(self._tensors)

    def holds(self, *modules: nn.Module) -> bool:
        """Return whether these are the same modules, and no weight was changed or replaced since.

        Changes in place through `tensor.data`, which PyTorch does not count, are overlooked.
        """
        return (
            _are_the_same(modules, self._modules)
            and _are_the_same(self._contents_now(), self._contents)
            and self._numbers_now() == self._numbers
        )

    def _contents_now(self) -> list[object]:
        """Return the modules, parameters and buffers, and None for parameters that are absent."""
        return [*chain.from_iterable(map(dict.values, self._tables))]

    def _numbers_now(self) -> list[int]:
        """Return the number of changes and the address of each tensor."""
        return [*map(_version, self._counted), *map(Tensor.data_ptr, self._tensors)]


def _are_the_same(some: Any, others: Any) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))
