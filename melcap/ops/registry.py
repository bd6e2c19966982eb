"""Choose the backend that runs an operation, and list the reasons why another cannot.

`torch` is the reference and runs anywhere. `triton` is chosen by name, or by `auto` for CUDA
tensors where it can run. A backend that was chosen by name and cannot run raises an error; `auto`
falls back to `torch` and logs that once.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import platform
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from melcap.errors import BackendError

logger = logging.getLogger("melcap")

BACKENDS = ("auto", "torch", "triton")

SWITCH = "MELCAP_DISABLE_KERNELS"
"""The environment variable that lists operations, separated by commas, that the triton backend
must not run: a way round a kernel that is wrong on some device."""

MOST_REASONS = 1024
"""Kinds of calls whose reasons are remembered."""


@dataclass(frozen=True)
class Tolerance:
    """The largest allowed error: |error| <= atol + rtol * |reference in float64|."""

    atol: float
    rtol: float


@dataclass(frozen=True)
class Implementation:
    """An operation on one backend.

    Attributes:
        run: computes the operation from its arguments.
        tolerances: for each dtype, what tests hold it to and docs quote.
        unsupported: takes the same arguments and lists why they cannot be run; [] if they can. The
            answer depends on the shapes, strides, dtypes and devices of tensors, and on all other
            arguments, because it is remembered for these.
        layers: rows (layer, dtype, code, why) where different code runs different layers.
        gradient: the backward pass, from the upstream gradient and the same arguments; None for
            that of the reference.
    """

    run: Callable[..., torch.Tensor]
    tolerances: Mapping[torch.dtype, Tolerance]
    unsupported: Callable[..., list[str]]
    layers: tuple[tuple[str, str, str, str], ...] = ()
    gradient: Callable[..., tuple[torch.Tensor, ...]] | None = None


@dataclass(frozen=True)
class Operation:
    """The facts about an operation that do not depend on a backend.

    Attributes:
        flops: gives the number of floating-point operations; None if they are not counted.
        portable: the operation in a form that other graph runtimes can run; None if it needs none.
    """

    flops: Callable[..., int] | None
    portable: Callable[..., torch.Tensor] | None


OPERATIONS: dict[str, Operation] = {}
"""All operations by name; each module of an operation adds its own (`library.define_operation`)."""

_implementations: dict[tuple[str, str], Implementation] = {}
_registrations = 0
_known_reasons: dict[tuple[Hashable, ...], list[str]] = {}
_default = "auto"
_scoped: ContextVar[str | None] = ContextVar("melcap_backend", default=None)
_auto_choice: dict[str, str] = {}


def register(operation: str, backend: str, implementation: Implementation) -> None:
    """Make an implementation the one that runs `operation` on `backend`."""
    global _registrations
    if operation not in OPERATIONS or backend not in BACKENDS[1:]:
        raise BackendError(f"cannot register {operation!r} for the backend {backend!r}")
    _implementations[operation, backend] = implementation
    _registrations += 1


def unavailable(backend: str) -> list[str]:
    """Return every reason why a backend cannot run in this process; [] if it can."""
    if backend != "triton":
        return []
    reasons = []
    if importlib.util.find_spec("triton") is None:
        reasons.append(f"triton is not installed (this is {platform.platform()})")
    elif importlib.util.find_spec("melcap.kernels") is None:
        reasons.append("melcap is run from its folder and not installed: pip install -e .")
    else:
        importlib.import_module("melcap.kernels")
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        reasons.append("torch sees no CUDA device")
    return reasons


def set_backend(name: str) -> None:
    """Choose the backend for the whole process.

    Args:
        name: "auto" (the default), "torch" or "triton".

    Raises:
        BackendError: if the backend is unknown or cannot run here; it lists every reason.
    """
    global _default
    _check(name)
    _default = name


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Choose the backend for a `with` block, in this thread or task.

    Args:
        name: "auto", "torch" or "triton".

    Raises:
        BackendError: as `set_backend` does.

    Example:
        >>> from melcap.ops import get_backend, use_backend
        >>> with use_backend("torch"):
        ...     get_backend()
        'torch'
    """
    _check(name)
    token = _scoped.set(name)
    try:
        yield
    finally:
        _scoped.reset(token)


def get_backend() -> str:
    """Return the backend in force here: "auto", "torch" or "triton"."""
    return _scoped.get() or _default


def choose(device_type: str) -> str:
    """Return the backend that runs operations on tensors of a device type: "torch" or "triton"."""
    name = get_backend()
    if name != "auto":
        return name
    if device_type not in _auto_choice:
        reasons = unavailable("triton") if device_type == "cuda" else ["auto takes it on CUDA only"]
        _auto_choice[device_type] = "torch" if reasons else "triton"
        logger.info(
            "melcap: %s tensors use the %s backend%s",
            device_type,
            _auto_choice[device_type],
            f" (not triton: {'; '.join(reasons)})" if reasons else "",
        )
    return _auto_choice[device_type]


def switched_off() -> frozenset[str]:
    """Return the operations whose kernels the environment variable `SWITCH` switches off.

    Raises:
        BackendError: if it names something that is no operation.
    """
    return _operations_in(os.environ.get(SWITCH, ""))


@lru_cache(maxsize=8)
def _operations_in(names: str) -> frozenset[str]:
    found = frozenset(name.strip() for name in names.split(",") if name.strip())
    if unknown := sorted(found - OPERATIONS.keys()):
        raise BackendError(
            f"{SWITCH} names {', '.join(unknown)}: the operations are {', '.join(OPERATIONS)}"
        )
    return found


def kernels_in_force() -> tuple[frozenset[str], int]:
    """Return what changes when other kernels are to run: those switched off, those registered."""
    return switched_off(), _registrations


def reasons_against(operation: str, backend: str, *arguments: Any) -> list[str]:
    """Return why a backend cannot run an operation on these arguments; [] if it can."""
    if backend == "triton" and operation in switched_off():
        return [f"{SWITCH} switches its kernel off"]
    found = _implementations.get((operation, backend))
    if found is None:
        return [f"no {backend} implementation of {operation} is registered"]
    if backend == "torch":
        return found.unsupported(*arguments)
    # To look for reasons takes longer than some kernels, and networks call with few kinds of
    # arguments. On a CPU, kernels can run while the variable says that they are interpreted.
    interpreted = arguments[0].is_cuda or os.environ.get("TRITON_INTERPRET")
    kind = found.unsupported, interpreted, *map(_kind_of, arguments)
    reasons = _known_reasons.get(kind)
    if reasons is None:
        if len(_known_reasons) >= MOST_REASONS:
            _known_reasons.clear()
        reasons = _known_reasons[kind] = found.unsupported(*arguments)
    return reasons


def _kind_of(argument: Any) -> Hashable:
    """Return what an implementation may look at to tell whether it can run an argument."""
    if isinstance(argument, torch.Tensor):
        return argument.shape, argument.stride(), argument.dtype, argument.device
    kind: Hashable = tuple(argument) if isinstance(argument, list) else argument
    return kind


@lru_cache(maxsize=64)
def note_fallback(operation: str, reasons: tuple[str, ...]) -> None:
    """Log, once for each set of reasons, that "auto" runs an operation on `torch`."""
    logger.info("melcap: %s falls back to the torch backend: %s", operation, "; ".join(reasons))


def implementation(operation: str, backend: str) -> Implementation:
    """Return the registered implementation.

    Raises:
        BackendError: if there is none.
    """
    found = _implementations.get((operation, backend))
    if found is None:
        raise BackendError(f"no {backend} implementation of {operation} is registered")
    return found


def backend_report() -> dict[str, object]:
    """Return what can run here, and why the rest cannot, as plain data for `melcap doctor`."""
    return {
        "backend": get_backend(),
        "available": {name: unavailable(name) for name in BACKENDS[1:]},
        "switched_off": sorted(switched_off()),
        "chosen_by_auto": {kind: choose_auto(kind) for kind in ("cpu", "cuda")},
        "operations": {
            operation: [name for name in BACKENDS[1:] if (operation, name) in _implementations]
            for operation in OPERATIONS
        },
        "layers": {
            operation: [
                dict(zip(("layer", "dtype", "by", "why"), row, strict=True)) for row in found.layers
            ]
            for (operation, backend), found in _implementations.items()
            if backend == "triton" and found.layers
        },
    }


def choose_auto(device_type: str) -> str:
    """Return the backend that "auto" takes for tensors of a device type."""
    with use_backend("auto"):
        return choose(device_type)


def _check(name: str) -> None:
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}")
    reasons = unavailable(name)
    if reasons:
        raise BackendError(f"the {name} backend cannot run here: " + "; ".join(reasons))
