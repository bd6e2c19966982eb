"""The front end, waveform to normalised log-mel spectrogram: `log_mel`.

`reference` has the definition and its gradient, `portable` the form for other graph runtimes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from melcap.config import MelSpec
from melcap.errors import InputError
from melcap.inputs import described
from melcap.ops.library import Gradient, define_operation, define_operator, run_exactly
from melcap.ops.log_mel.reference import (
    log_mel_gradient,
    log_mel_reference,
    mel_filters,
)
from melcap.ops.numerics import fft_flops, working_dtype
from melcap.ops.precision import exact_float32
from melcap.ops.registry import Tolerance

__all__ = ["log_mel", "log_mel_gradient", "log_mel_reference", "mel_filters"]


def log_mel(
    wave: Tensor,
    spec: MelSpec,
    *,
    padding: tuple[int, int] | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """Return the normalised log-mel spectrogram of waves.

    Args:
        wave: [batch, samples], floating point.
        spec: the front end; see `MelSpec` for the definition.
        padding: zeros before and after the wave. By default every started hop gets its frame:
            ceil(samples / hop) frames in all.
        lengths: int32 or int64 [batch] on the wave's device, the samples of each clip. Everything
            after them counts as silence, whatever the values are. By default all clips are whole.

    Returns:
        [batch, n_mels, frames], float32 (float64 for float64 waves);
        frames = (samples + zeros - n_fft) // hop + 1.

    Raises:
        InputError: if `wave` is not [batch, samples], or with its zeros is shorter than one window,
            or `lengths` does not fit it.

    Example:
        >>> import torch
        >>> from melcap.config import MelSpec
        >>> from melcap.ops import log_mel
        >>> log_mel(torch.zeros(2, 44100), MelSpec()).shape
        torch.Size([2, 96, 173])
    """
    if wave.ndim != 2 or not wave.is_floating_point():
        raise InputError(
            f"log_mel: wave must be floating point [batch, samples], not {described(wave)}"
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
            f"not {described(lengths)} on {lengths.device}"
        )
    framing = [spec.sample_rate, spec.n_fft, spec.hop, spec.n_mels, left, right]
    scaling = [spec.floor, spec.mean, spec.std]
    return torch.ops.melcap.log_mel(wave, framing, scaling, lengths)


def _front_end(framing: list[int], scaling: list[float]) -> tuple[MelSpec, int, int]:
    """Return spec and zeros from the plain numbers, which are all that a schema can carry."""
    sample_rate, n_fft, hop, n_mels, left, right = framing
    return MelSpec(sample_rate, n_fft, hop, n_mels, *scaling), left, right


def _kernel(
    wave: Tensor, framing: list[int], scaling: list[float], lengths: Tensor | None
) -> Tensor:
    return run_exactly("log_mel", wave, *_front_end(framing, scaling), lengths)


def _fake(wave: Tensor, framing: list[int], scaling: list[float], _: Any) -> Tensor:
    spec, left, right = _front_end(framing, scaling)
    frames = (wave.shape[1] + left + right - spec.n_fft) // spec.hop + 1
    return wave.new_empty((wave.shape[0], spec.n_mels, frames), dtype=working_dtype(wave))


def _gradient_kernel(
    upstream: Tensor,
    wave: Tensor,
    framing: list[int],
    scaling: list[float],
    lengths: Tensor | None,
) -> Tensor:
    with exact_float32():
        return log_mel_gradient(upstream, wave, *_front_end(framing, scaling), lengths)


def _gradient_fake(upstream: Tensor, wave: Tensor, *_: Any) -> Tensor:
    return wave.new_empty(wave.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    wave, ctx.framing, ctx.scaling, lengths = inputs
    ctx.save_for_backward(wave, lengths)


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    wave, lengths = ctx.saved_tensors
    gradient = torch.ops.melcap.log_mel_gradient(upstream, wave, ctx.framing, ctx.scaling, lengths)
    return gradient, None, None, None


def _flops(
    wave: tuple[int, ...],
    framing: list[int],
    scaling: list[float],
    lengths: None,
    *,
    out_shape: tuple[int, ...],
) -> int:
    _, n_fft, _, n_mels, _, _ = framing
    batch, _, frames = out_shape
    return round(batch * frames * (n_fft + fft_flops(n_fft) + 2 * (n_fft // 2 + 1) * n_mels))


define_operation(
    "log_mel(Tensor wave, int[] framing, float[] scaling, Tensor? lengths) -> Tensor",
    reference=log_mel_reference,
    tolerance=Tolerance(atol=1e-3, rtol=0.0),
    fake=_fake,
    kernel=_kernel,
    gradient=Gradient(_keep, _backward),
    flops=_flops,
)
define_operator(
    "log_mel_gradient(Tensor upstream, Tensor wave, int[] framing, float[] scaling, "
    "Tensor? lengths) -> Tensor",
    _gradient_kernel,
    _gradient_fake,
)
