"""The operations as `torch.library` operators that run on the backend in force.

The backend is chosen inside the operator, each time it runs: a compiled graph holds one opaque
operator, has no graph break, and follows `set_backend`. Gradients are those of the reference, but
for `channel_norm` those of the backend (`convnext1d` and `griffin_lim` have none here: where one is
asked for, `functional` calls the reference itself).
Registered on a `Library` and not with `custom_op`, whose first call imports the whole compiler.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from melcap.config import MelSpec
from melcap.errors import BackendError
from melcap.ops import reference, registry
from melcap.ops.precision import exact_float32

_library = torch.library.Library("melcap", "DEF")
_library.define("log_mel(Tensor wave, int[] framing, float[] scaling, Tensor? lengths) -> Tensor")
_library.define(
    "log_mel_gradient(Tensor upstream, Tensor wave, int[] framing, float[] scaling, "
    "Tensor? lengths) -> Tensor"
)
_library.define("nearest_code(Tensor x, Tensor codebook) -> Tensor")
_library.define(
    "upsample_conv1d(Tensor x, Tensor weight, Tensor? bias, int stride, str activation, "
    "Tensor? alpha, Tensor? residual) -> Tensor"
)
_library.define(
    "convnext1d(Tensor x, Tensor depthwise_weight, Tensor depthwise_bias, Tensor norm_weight, "
    "Tensor norm_bias, Tensor expand_weight, Tensor expand_bias, Tensor contract_weight, "
    "Tensor contract_bias, Tensor scale) -> Tensor"
)
_library.define("griffin_lim(Tensor x, int n_fft, int hop, float momentum, int steps) -> Tensor")
_library.define("channel_norm(Tensor x, Tensor weight, Tensor bias, str activation) -> Tensor")
_library.define(
    "channel_norm_gradient(Tensor upstream, Tensor x, Tensor weight, Tensor bias, str activation) "
    "-> (Tensor, Tensor, Tensor)"
)


def flat(spec: MelSpec, left: int, right: int) -> tuple[list[int], list[float]]:
    """The front end as (framing, scaling): an operator's schema carries plain numbers only."""
    framing = [spec.sample_rate, spec.n_fft, spec.hop, spec.n_mels, left, right]
    return framing, [spec.floor, spec.mean, spec.std]


def run(operation: str, x: Tensor, *arguments: Any) -> Tensor:
    """The operation on the backend in force, without an operator around it."""
    return _implementation(operation, x, *arguments).run(x, *arguments)


def _run(operation: str, x: Tensor, *arguments: Any) -> Tensor:
    with exact_float32():
        return run(operation, x, *arguments)


def _implementation(operation: str, x: Tensor, *arguments: Any) -> registry.Implementation:
    """What runs the operation on these arguments, by the backend in force."""
    backend = registry.choose(x.device.type)
    reasons = registry.reasons_against(operation, backend, x, *arguments)
    if reasons and registry.get_backend() == "auto":
        registry.note_fallback(operation, tuple(reasons))
        backend = "torch"
    elif reasons:
        raise BackendError(f"{operation} cannot run on the {backend} backend: {'; '.join(reasons)}")
    return registry.implementation(operation, backend)


def _unflat(framing: list[int], scaling: list[float]) -> tuple[MelSpec, int, int]:
    sample_rate, n_fft, hop, n_mels, left, right = framing
    return MelSpec(sample_rate, n_fft, hop, n_mels, *scaling), left, right


def _log_mel(
    wave: Tensor, framing: list[int], scaling: list[float], lengths: Tensor | None
) -> Tensor:
    return _run("log_mel", wave, *_unflat(framing, scaling), lengths)


def _log_mel_fake(wave: Tensor, framing: list[int], scaling: list[float], _: Any) -> Tensor:
    spec, left, right = _unflat(framing, scaling)
    frames = (wave.shape[1] + left + right - spec.n_fft) // spec.hop + 1
    return wave.new_empty((wave.shape[0], spec.n_mels, frames), dtype=reference.working_dtype(wave))


def _log_mel_gradient(
    upstream: Tensor,
    wave: Tensor,
    framing: list[int],
    scaling: list[float],
    lengths: Tensor | None,
) -> Tensor:
    with exact_float32():
        return reference.log_mel_gradient(upstream, wave, *_unflat(framing, scaling), lengths)


def _log_mel_gradient_fake(upstream: Tensor, wave: Tensor, *_: Any) -> Tensor:
    return wave.new_empty(wave.shape)


def _keep_wave(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    wave, ctx.framing, ctx.scaling, lengths = inputs
    ctx.save_for_backward(wave, lengths)


def _log_mel_backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
    wave, lengths = ctx.saved_tensors
    gradient = torch.ops.melcap.log_mel_gradient(upstream, wave, ctx.framing, ctx.scaling, lengths)
    return gradient, None, None, None


def _nearest_code(x: Tensor, codebook: Tensor) -> Tensor:
    return _run("nearest_code", x, codebook)


def _nearest_code_fake(x: Tensor, codebook: Tensor) -> Tensor:
    return x.new_empty((x.shape[0],), dtype=torch.int32)


def _upsample_conv1d(x: Tensor, *arguments: Any) -> Tensor:
    return _run("upsample_conv1d", x, *arguments)


def _upsample_conv1d_fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, *_: Any
) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[1], x.shape[2] * stride))


def _keep_arguments(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.stride, ctx.activation, alpha, residual = inputs
    ctx.save_for_backward(x, weight, bias, alpha, residual)


def _upsample_backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    """The reference, computed once more and differentiated."""
    leaves: list[Any] = [
        None if saved is None else saved.detach().requires_grad_() for saved in ctx.saved_tensors
    ]
    x, weight, bias, alpha, residual = leaves
    with torch.enable_grad():
        output = reference.upsample_conv1d(
            x, weight, bias, ctx.stride, ctx.activation, alpha, residual
        )
    needed = [leaf for leaf in leaves if leaf is not None]
    found = iter(torch.autograd.grad(output, needed, upstream))
    x, weight, bias, alpha, residual = (None if leaf is None else next(found) for leaf in leaves)
    return x, weight, bias, None, None, alpha, residual


def _convnext1d(x: Tensor, *parameters: Tensor) -> Tensor:
    return _run("convnext1d", x, *parameters)


def _convnext1d_fake(x: Tensor, depthwise_weight: Tensor, *_: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1], x.shape[2] - depthwise_weight.shape[2] + 1))


def _griffin_lim(x: Tensor, *arguments: Any) -> Tensor:
    return _run("griffin_lim", x, *arguments)


def _griffin_lim_fake(x: Tensor, n_fft: int, hop: int, momentum: float, steps: int) -> Tensor:
    frames = x.shape[1] - 2 * steps * (n_fft // hop - 1)
    return x.new_empty((x.shape[0], frames, x.shape[2]), dtype=reference.working_dtype(x))


def _channel_norm(x: Tensor, *arguments: Any) -> Tensor:
    return run("channel_norm", x, *arguments)


def _channel_norm_fake(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty((len(x), *x.shape[2:], x.shape[1])).movedim(-1, 1)


def _channel_norm_gradient(upstream: Tensor, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    found = _implementation("channel_norm", x, *arguments)
    return (found.gradient or reference.channel_norm_gradient)(upstream, x, *arguments)


def _channel_norm_gradient_fake(
    _: Tensor, x: Tensor, weight: Tensor, bias: Tensor, activation: str
) -> tuple[Tensor, ...]:
    return _channel_norm_fake(x), torch.empty_like(weight), torch.empty_like(bias)


def _keep_norm(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.activation = inputs
    ctx.save_for_backward(*tensors)


def _channel_norm_backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    found = torch.ops.melcap.channel_norm_gradient(upstream, *ctx.saved_tensors, ctx.activation)
    return (*found, None)


for _name, _kernel, _fake in (
    ("log_mel", _log_mel, _log_mel_fake),
    ("log_mel_gradient", _log_mel_gradient, _log_mel_gradient_fake),
    ("nearest_code", _nearest_code, _nearest_code_fake),
    ("upsample_conv1d", _upsample_conv1d, _upsample_conv1d_fake),
    ("convnext1d", _convnext1d, _convnext1d_fake),
    ("griffin_lim", _griffin_lim, _griffin_lim_fake),
    ("channel_norm", _channel_norm, _channel_norm_fake),
    ("channel_norm_gradient", _channel_norm_gradient, _channel_norm_gradient_fake),
):
    _library.impl(_name, _kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"melcap::{_name}", _fake, lib=_library)

torch.library.register_autograd(
    "melcap::log_mel", _log_mel_backward, setup_context=_keep_wave, lib=_library
)
torch.library.register_autograd(
    "melcap::upsample_conv1d", _upsample_backward, setup_context=_keep_arguments, lib=_library
)
torch.library.register_autograd(
    "melcap::channel_norm", _channel_norm_backward, setup_context=_keep_norm, lib=_library
)
