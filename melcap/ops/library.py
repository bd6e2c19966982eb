"""Define operations as `torch.library` operators that run on the backend in force.

The backend is chosen inside the operator, each time it runs: a compiled graph holds one opaque
operator, has no graph break and follows `set_backend`. Operators are registered on a `Library` and
not with `custom_op`, whose first call imports the whole compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from melcap.errors import BackendError
from melcap.ops import registry
from melcap.ops.precision import exact_float32

_library = torch.library.Library("melcap", "DEF")


class Gradient(NamedTuple):
    """The two functions that `torch.library.register_autograd` takes."""

    keep: Callable[..., None]
    backward: Callable[..., tuple[Tensor | None, ...]]


def define_operation(
    schema: str,
    *,
    reference: Callable[..., Tensor],
    tolerance: registry.Tolerance,
    fake: Callable[..., Tensor],
    kernel: Callable[..., Tensor] | None = None,
    inference: Callable[..., Tensor] | None = None,
    gradient: Gradient | None = None,
    flops: Callable[..., int] | None = None,
    portable: Callable[..., Tensor] | None = None,
) -> None:
    """Define an operation: its operator, its reference, and the facts that others look up.

    Args:
        schema: the operator's name and signature, in PyTorch's schema language.
        reference: the operation in plain PyTorch, which defines it.
        tolerance: the largest error of the `torch` backend in float32, against the reference in
            float64.
        fake: gives an empty tensor of the result's shape, dtype and strides.
        kernel: what the operator runs, `run_exactly` with the operator's arguments by default.
        inference: the `torch` backend, where no gradient is wanted; `reference` by default.
        gradient: of the operator; without it the public function calls the reference where a
            gradient is wanted.
        flops: gives the number of floating-point operations from the operator's arguments, with
            shapes in place of tensors, and `out_shape`; without it they are not counted.
        portable: the operation without FFT and data-dependent shapes, for other graph runtimes.
    """
    name = schema.partition("(")[0]
    registry.OPERATIONS[name] = registry.Operation(flops, portable)
    registry.register(
        name,
        "torch",
        registry.Implementation(inference or reference, {torch.float32: tolerance}, lambda *_: []),
    )

    def exact(x: Tensor, *arguments: Any) -> Tensor:
        return run_exactly(name, x, *arguments)

    define_operator(schema, kernel or exact, fake)
    if gradient is not None:
        torch.library.register_autograd(
            f"melcap::{name}", gradient.backward, setup_context=gradient.keep, lib=_library
        )


def define_operator(schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Register an operator of all devices as `torch.ops.melcap.<name>`, with its fake."""
    name = schema.partition("(")[0]
    _library.define(schema)
    _library.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"melcap::{name}", fake, lib=_library)


def run(operation: str, x: Tensor, *arguments: Any) -> Tensor:
    """Run an operation on the backend in force, without an operator around it."""
    return implementation_for(operation, x, *arguments).run(x, *arguments)


def run_exactly(operation: str, x: Tensor, *arguments: Any) -> Tensor:
    """Run an operation on the backend in force, with products in true float32."""
    with exact_float32():
        return run(operation, x, *arguments)


def implementation_for(operation: str, x: Tensor, *arguments: Any) -> registry.Implementation:
    """Return the implementation that runs an operation on these arguments.

    Raises:
        BackendError: if the backend was chosen by name and cannot run them.
    """
    backend = registry.choose(x.device.type)
    reasons = registry.reasons_against(operation, backend, x, *arguments)
    if reasons and registry.get_backend() == "auto":
        registry.note_fallback(operation, tuple(reasons))
        backend = "torch"
    elif reasons:
        raise BackendError(f"{operation} cannot run on the {backend} backend: {'; '.join(reasons)}")
    return registry.implementation(operation, backend)


def wants_gradient(*tensors: Tensor) -> bool:
    """Return whether autograd would record an operation on these tensors."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
