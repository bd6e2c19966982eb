"""The three operations as they are called: arguments checked, then on to the operator."""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.config import MelSpec
from melcap.errors import InputError
from melcap.ops import operators

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
    return torch.ops.melcap.log_mel(wave, *operators.flat(spec, left, right))


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
    return torch.ops.melcap.nearest_code(x, codebook)


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
    return torch.ops.melcap.upsample_conv1d(x, weight, bias, stride, activation, alpha, residual)


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
