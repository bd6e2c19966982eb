"""The operations as they are called: arguments checked, then on to the operator.

Results do not depend on autocast, or on the default dtype and device. Without a gradient, they do
not depend on the switches for TF32 either; with one, `convnext1d` follows these as PyTorch does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.config import MelSpec
from melcap.errors import InputError
from melcap.ops import operators, reference
from melcap.ops.precision import without_autocast_for

ACTIVATIONS = ("none", "snake", "leaky_relu", "gelu", "silu")


def log_mel(
    wave: Tensor,
    spec: MelSpec,
    *,
    padding: tuple[int, int] | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """Normalised log-mel spectrogram.

    Args:
        wave: [batch, samples], floating point.
        spec: the front end; see `MelSpec` for the definition.
        padding: zeros before and after the wave. By default as many as give every started hop its
            frame, ceil(samples / hop) frames in all.
        lengths: int32 or int64 [batch] on the wave's device, the samples of each clip; what lies
            behind them is taken for silence, whatever stands there. By default all are whole.

    Returns:
        [batch, n_mels, frames], float32 (float64 for float64 waves);
        frames = (samples + zeros - n_fft) // hop + 1.

    Raises:
        InputError: where `wave` is not [batch, samples], or shorter than one window with its zeros,
            or `lengths` does not fit it.
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
    if lengths is not None and (
        lengths.dtype not in (torch.int32, torch.int64)
        or tuple(lengths.shape) != (len(wave),)
        or lengths.device != wave.device
    ):
        raise InputError(
            f"log_mel: lengths must be int32 or int64 [{len(wave)}] on {wave.device}, "
            f"not {_shape(lengths)} on {lengths.device}"
        )
    return torch.ops.melcap.log_mel(wave, *operators.flat(spec, left, right), lengths)


def nearest_code(x: Tensor, codebook: Tensor) -> Tensor:
    """Exact nearest codebook entry by Euclidean distance.

    The index is the lowest one whose distance is within 1e-6 (relative) of the smallest, whatever
    the batch around the row: equal vectors always get equal codes. A row that holds NaN has no
    nearest entry and gets the last index. No index is ever outside the codebook.

    Args:
        x: [rows, dim], floating point.
        codebook: [codes, dim], floating point and finite, on the same device.

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


def convnext1d(
    x: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    contract_weight: Tensor,
    contract_bias: Tensor,
    scale: Tensor,
) -> Tensor:
    """ConvNeXt block as in Vocos (arXiv 2306.00814), without padding.

    Depthwise convolution, layer norm over the channels (epsilon 1e-6), linear layer, GELU (exact),
    linear layer, scale, and what stood in the middle of the convolution added. Where a gradient is
    asked for, whatever the backend, it is plain PyTorch.

    Args:
        x: [batch, channels, steps], floating point.
        depthwise_weight: [channels, 1, kernel], kernel odd, not above steps.
        depthwise_bias, norm_weight, norm_bias, contract_bias, scale: [channels].
        expand_weight: [hidden, channels]; expand_bias: [hidden].
        contract_weight: [channels, hidden].

    Returns:
        [batch, channels, steps - kernel + 1], of x's dtype.

    Raises:
        InputError: where the shapes do not fit.
    """
    kernel = depthwise_weight.shape[-1] if depthwise_weight.ndim == 3 else 0
    if x.ndim != 3 or not x.is_floating_point() or kernel % 2 == 0 or x.shape[2] < kernel:
        raise InputError(
            "convnext1d: x must be floating point [batch, channels, steps] and depthwise_weight "
            "[channels, 1, kernel] with kernel odd and at most steps, "
            f"not {_shape(x)} and {_shape(depthwise_weight)}"
        )
    channels, hidden = x.shape[1], len(expand_weight)
    parameters = {
        "depthwise_weight": (depthwise_weight, (channels, 1, kernel)),
        "depthwise_bias": (depthwise_bias, (channels,)),
        "norm_weight": (norm_weight, (channels,)),
        "norm_bias": (norm_bias, (channels,)),
        "expand_weight": (expand_weight, (hidden, channels)),
        "expand_bias": (expand_bias, (hidden,)),
        "contract_weight": (contract_weight, (channels, hidden)),
        "contract_bias": (contract_bias, (channels,)),
        "scale": (scale, (channels,)),
    }
    for name, (parameter, expected) in parameters.items():
        if tuple(parameter.shape) != expected:
            raise InputError(
                f"convnext1d: {name} must be {list(expected)}, not {_shape(parameter)}"
            )
    arguments = (x, *(parameter for parameter, _ in parameters.values()))
    if torch.is_grad_enabled() and any(argument.requires_grad for argument in arguments):
        with without_autocast_for(x):
            return reference.convnext1d(*arguments)
    return torch.ops.melcap.convnext1d(*arguments)


def griffin_lim(
    x: Tensor, n_fft: int, hop: int, *, momentum: float = 0.99, steps: int = 1
) -> Tensor:
    """Griffin-Lim steps on a wave that is cut into blocks, each with the magnitudes of a frame.

    A step is an STFT, magnitudes set to those wanted, inverse STFT (Griffin and Lim 1984), of
    wave + momentum * (wave - wave one step before) (Perraudin, Balazs and Sondergaard 2013). A bin
    that has hardly a phase is scaled only. Where a gradient is asked for, whatever the backend, it
    is plain PyTorch.

    Args:
        x: [batch, frames, 2 * hop + n_fft / 2 + 1], floating point. In each row stand `hop` samples
            of the wave, the same of the wave one step before, and magnitudes, those wanted of the
            window whose middle is the middle of these samples less half a hop.
        n_fft: of the periodic Hann window.
        hop: even, n_fft a multiple of it, twice at least (four times for an exact inverse).
        momentum: 0 for none.
        steps: each needs n_fft / hop - 1 frames on either side.

    Returns:
        [batch, frames - 2 * steps * (n_fft / hop - 1), 2 * hop + n_fft / 2 + 1], the same for the
        frames that all steps reach; float32 (float64 for float64).

    Raises:
        InputError: where the sizes do not fit, or there are too few frames.
    """
    if hop < 2 or hop % 2 or n_fft % hop or n_fft < 2 * hop:
        raise InputError(
            f"griffin_lim: hop must be even and n_fft a multiple of it, not {hop} and {n_fft}"
        )
    if x.ndim != 3 or not x.is_floating_point() or x.shape[2] != 2 * hop + n_fft // 2 + 1:
        raise InputError(
            "griffin_lim: x must be floating point [batch, frames, "
            f"{2 * hop + n_fft // 2 + 1}], not {_shape(x)}"
        )
    context = 2 * steps * (n_fft // hop - 1)
    if steps < 1 or x.shape[1] < context:
        raise InputError(
            f"griffin_lim: {steps} steps need {context} frames around those that come out, and "
            f"there are {x.shape[1]}"
        )
    if torch.is_grad_enabled() and x.requires_grad:
        with without_autocast_for(x):
            return reference.griffin_lim(x, n_fft, hop, momentum, steps)
    return torch.ops.melcap.griffin_lim(x, n_fft, hop, momentum, steps)


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor, *, activation: str = "none") -> Tensor:
    """Layer norm over the channels of each position (epsilon 1e-6), and an activation.

    Where a gradient is asked for on a CPU, or it is compiled there, it is plain PyTorch, which
    keeps what the backward pass needs; on a GPU the backward pass is the backend's, and computes
    it again.

    Args:
        x: [batch, channels, ...], floating point, any number of axes behind the channels.
        weight, bias: [channels].
        activation: "none" or "silu".

    Returns:
        x's shape and dtype, computed in float32 (float64 for float64); the channels of a position
        are next to each other in memory.

    Raises:
        InputError: where shapes or activation do not fit.
    """
    if x.ndim < 2 or not x.is_floating_point() or not x.shape[1]:
        raise InputError(
            f"channel_norm: x must be floating point [batch, channels, ...], not {_shape(x)}"
        )
    for name, vector in (("weight", weight), ("bias", bias)):
        if tuple(vector.shape) != (x.shape[1],):
            raise InputError(f"channel_norm: {name} must be [{x.shape[1]}], not {_shape(vector)}")
    if activation not in ("none", "silu"):
        raise InputError(f"channel_norm: activation must be none or silu, not {activation!r}")
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, bias))
    if not learns and not torch.compiler.is_compiling():
        # networks call it dozens of times on next to nothing: an operator takes longer than that
        return operators.run("channel_norm", x, weight, bias, activation)
    if x.device.type == "cpu":
        with without_autocast_for(x):
            return reference.channel_norm(x, weight, bias, activation)
    return torch.ops.melcap.channel_norm(x, weight, bias, activation)


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
