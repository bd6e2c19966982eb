"""The three operations as `torch.library` custom operators that run on the backend in force.

The backend is chosen inside the operator, each time it runs: a compiled graph holds one opaque
operator, has no graph break, and follows `set_backend`. Gradients are those of the reference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from melcap.config import MelSpec
from melcap.errors import BackendError, InputError
from melcap.ops import reference, registry

ACTIVATIONS = ("none", "snake", "leaky_relu", "gelu", "silu")


def log_mel(wave: Tensor, spec: MelSpec, *, padding: tuple[int, int] | None = None) -> Tensor:
    """Normalised log-mel spectrogram.

    Args:
        wave: [batch, samples], floating point.
        spec: the front end; see `MelSpec` for the definition.
        padding: zeros before and after the wave. By default as many as give every started hop its
            frame, ceil(samples / hop) frames in all.

    Returns:
        [batch, n_mels, frames], float32 (float64 for float64 waves);
        frames = (samples + zeros - n_fft) // hop + 1.

    Raises:
        InputError: where `wave` is not [batch, samples], or shorter than one window with its zeros.
    """
    if wave.ndim != 2 or not wave.is_floating_point():
        raise InputError(
            f"log_mel: wave must be floating point [batch, samples], not {_shape(wave)}"
        )
    left, right = padding if padding is not None else (spec.margin, spec.margin + spec.hop - 1)
    if wave.shape[1] + left + right < spec.n_fft:
        raise InputError(
            f"log_mel: {wave.shape[1]} samples with {left} + {right} zeros around them are shorter "
            f"than one window of {spec.n_fft}"
        )
    framing, scaling = _flat(spec, left, right)
    return _log_mel(wave, framing, scaling)


def nearest_code(x: Tensor, codebook: Tensor) -> Tensor:
    """Exact nearest codebook entry by Euclidean distance.

    The index is the lowest one whose distance is within 1e-6 (relative) of the smallest, whatever
    the batch around the row: equal vectors always get equal codes.

    Args:
        x: [rows, dim], floating point and finite.
        codebook: [codes, dim], floating point, on the same device.

    Returns:
        int32 [rows].

    Raises:
        InputError: where the shapes do not fit.
    """
    if x.ndim != 2 or codebook.ndim != 2 or x.shape[1] != codebook.shape[1] or not len(codebook):
        raise InputError(
            f"nearest_code: x must be [rows, dim] and codebook [codes, dim] with one dim, "
            f"not {_shape(x)} and {_shape(codebook)}"
        )
    return _nearest_code(x, codebook)


def upsample_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    *,
    activation: str = "none",
    alpha: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Transposed convolution: activation, upsampling by `stride`, bias, residual.

    Args:
        x: [batch, channels_in, steps].
        weight: [channels_in, channels_out, kernel], kernel a multiple of stride (the layout of
            `torch.nn.ConvTranspose1d`).
        bias: [channels_out] or None.
        stride: output steps for each input step.
        activation: applied to `x` first: "none", "snake" (with `alpha` [channels_in]),
            "leaky_relu" (slope 0.1), "gelu" or "silu".
        residual: [batch, channels_out, steps * stride], added last.

    Returns:
        [batch, channels_out, steps * stride]; the full result with (kernel - stride) // 2 steps cut
        off in front and the rest behind.

    Raises:
        InputError: where shapes, activation or stride do not fit.
    """
    if x.ndim != 3 or weight.ndim != 3 or weight.shape[0] != x.shape[1] or not x.shape[2]:
        raise InputError(
            "upsample_conv1d: x must be [batch, channels_in, steps] and weight [channels_in, "
            f"channels_out, kernel], not {_shape(x)} and {_shape(weight)}"
        )
    for name, vector, size in (
        ("bias", bias, weight.shape[1]),
        ("alpha", alpha, weight.shape[0]),
    ):
        if vector is not None and tuple(vector.shape) != (size,):
            raise InputError(f"upsample_conv1d: {name} must be [{size}], not {_shape(vector)}")
    if stride < 1 or weight.shape[2] < stride or weight.shape[2] % stride:
        raise InputError(
            f"upsample_conv1d: kernel {weight.shape[2]} is no multiple of stride {stride}"
        )
    if activation not in ACTIVATIONS or (activation == "snake") != (alpha is not None):
        raise InputError(
            f"upsample_conv1d: activation must be one of {', '.join(ACTIVATIONS)}, with alpha for "
            f"snake and for snake only, not {activation!r}"
        )
    expected = (x.shape[0], weight.shape[1], x.shape[2] * stride)
    if residual is not None and tuple(residual.shape) != expected:
        raise InputError(
            f"upsample_conv1d: residual must be {list(expected)}, not {_shape(residual)}"
        )
    return _upsample_conv1d(x, weight, bias, stride, activation, alpha, residual)


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _run(operation: str, x: Tensor, *arguments: Any) -> Tensor:
    backend = registry.choose(x.device.type)
    found = registry.implementation(operation, backend)
    reasons = found.unsupported(x, *arguments)
    if reasons:
        raise BackendError(f"{operation} cannot run on the {backend} backend: {'; '.join(reasons)}")
    return found.run(x, *arguments)


def _flat(spec: MelSpec, left: int, right: int) -> tuple[list[int], list[float]]:
    """A front end as the plain numbers that an operator's schema can carry."""
    return (
        [spec.sample_rate, spec.n_fft, spec.hop, spec.n_mels, left, right],
        [spec.floor, spec.mean, spec.std],
    )


def _unflat(framing: list[int], scaling: list[float]) -> tuple[MelSpec, int, int]:
    sample_rate, n_fft, hop, n_mels, left, right = framing
    return MelSpec(sample_rate, n_fft, hop, n_mels, *scaling), left, right


@torch.library.custom_op("melcap::log_mel", mutates_args=())
def _log_mel(wave: Tensor, framing: list[int], scaling: list[float]) -> Tensor:
    return _run("log_mel", wave, *_unflat(framing, scaling))


@_log_mel.register_fake
def _(wave: Tensor, framing: list[int], scaling: list[float]) -> Tensor:
    spec, left, right = _unflat(framing, scaling)
    frames = (wave.shape[1] + left + right - spec.n_fft) // spec.hop + 1
    return wave.new_empty((wave.shape[0], spec.n_mels, frames), dtype=reference.working_dtype(wave))


@torch.library.custom_op("melcap::log_mel_gradient", mutates_args=())
def _log_mel_gradient(
    upstream: Tensor, wave: Tensor, framing: list[int], scaling: list[float]
) -> Tensor:
    return reference.log_mel_gradient(upstream, wave, *_unflat(framing, scaling))


@_log_mel_gradient.register_fake
def _(upstream: Tensor, wave: Tensor, framing: list[int], scaling: list[float]) -> Tensor:
    return torch.empty_like(wave, memory_format=torch.contiguous_format)


def _keep_wave(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.framing, ctx.scaling = inputs[1:3]


def _log_mel_backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
    (wave,) = ctx.saved_tensors
    return _log_mel_gradient(upstream, wave, ctx.framing, ctx.scaling), None, None


_log_mel.register_autograd(_log_mel_backward, setup_context=_keep_wave)


@torch.library.custom_op("melcap::nearest_code", mutates_args=())
def _nearest_code(x: Tensor, codebook: Tensor) -> Tensor:
    return _run("nearest_code", x, codebook)


@_nearest_code.register_fake
def _(x: Tensor, codebook: Tensor) -> Tensor:
    return x.new_empty((x.shape[0],), dtype=torch.int32)


@torch.library.custom_op("melcap::upsample_conv1d", mutates_args=())
def _upsample_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    activation: str,
    alpha: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    return _run("upsample_conv1d", x, weight, bias, stride, activation, alpha, residual)


@_upsample_conv1d.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    activation: str,
    alpha: Tensor | None,
    residual: Tensor | None,
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


_upsample_conv1d.register_autograd(_upsample_backward, setup_context=_keep_arguments)

_FLOAT32 = registry.Tolerance(atol=2e-5, rtol=2e-5)

for _name, _tolerances in {
    "log_mel": {torch.float32: registry.Tolerance(atol=1e-3, rtol=0.0)},
    "nearest_code": {torch.float32: registry.Tolerance(atol=0.0, rtol=reference.TIE)},
    "upsample_conv1d": {torch.float32: _FLOAT32},
}.items():
    registry.register(
        _name,
        "torch",
        registry.Implementation(getattr(reference, _name), _tolerances, lambda *_: []),
    )
