"""Audio and tokens as callers hand them over: arrays, tensors, lists, and dictionaries of audio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from melcap.errors import InputError
from melcap.limits import MAX_CHANNELS, checked_rate

Wave = Tensor | npt.NDArray[np.floating] | Sequence[float] | Mapping[str, Any]
"""Samples, or a dictionary {"array": samples, "sampling_rate": Hz} as `datasets` gives it."""


Tokens = Tensor | npt.NDArray[np.integer] | Sequence[Any]
"""Integers, in an array, a tensor or nested lists."""


def as_tensor(values: Any) -> Tensor:
    """Return any array or list as a tensor, on the CPU where it is not a tensor already.

    Arrays that torch cannot share (reversed, read-only, of another byte order) are copied.

    Raises:
        InputError: for what is no array of numbers.
    """
    if isinstance(values, Tensor):
        return values
    try:
        array = np.asarray(values)
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except (TypeError, ValueError) as error:
        raise InputError(f"not an array of numbers: {error}") from error


def described(tensor: Tensor) -> str:
    """Return dtype and shape, as errors name them."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def with_rate(wave: Wave, sample_rate: Any) -> tuple[Tensor, int]:
    """Return the samples as a tensor and their sample rate, from the dictionary if it is one.

    Raises:
        InputError: where the rate is missing, no rate, or not that of the dictionary.
    """
    if not isinstance(wave, (Tensor, Sequence)) and not hasattr(wave, "__array__"):
        try:
            array, rate = wave["array"], wave["sampling_rate"]
        except (KeyError, TypeError) as error:
            raise InputError(
                "audio must be an array, a tensor, or a dictionary with array and sampling_rate, "
                f"not {type(wave).__name__}"
                + (f" with {', '.join(map(str, wave))}" if isinstance(wave, Mapping) else "")
            ) from error
        own = checked_rate(rate)
        if sample_rate is not None and checked_rate(sample_rate) != own:
            raise InputError(
                f"the audio's own sampling_rate is {own}, and sample_rate {sample_rate}"
            )
        return as_tensor(array), own
    if sample_rate is None:
        raise InputError("the sample rate of the audio is missing: encode(wave, sample_rate)")
    return as_tensor(wave), checked_rate(sample_rate)


def clips_of(batch: Tensor, lengths: Sequence[int] | Tensor | None) -> list[Tensor]:
    """Return the clips of a batch [samples] or [batch, samples], each [samples].

    Raises:
        InputError: for another shape or dtype, NaN or infinity, or lengths that do not fit.
    """
    given = described(batch)
    if batch.ndim == 1:
        batch = batch[None]
    if batch.ndim != 2 or not batch.is_floating_point() or not batch.numel():
        raise InputError(
            "audio must be floating point [samples] or [batch, samples], in -1..1 and not empty, "
            f"not {given}"
        )
    if lengths is None and len(batch) > MAX_CHANNELS >= batch.shape[1]:
        raise InputError(
            f"audio must be [batch, samples], and {given} looks like [samples, channels]: pass "
            "its transpose (wave.T), or lengths if these are clips"
        )
    counts = [batch.shape[1]] * len(batch) if lengths is None else [int(n) for n in lengths]
    if len(counts) != len(batch) or any(not 1 <= count <= batch.shape[1] for count in counts):
        raise InputError(
            f"lengths must be {len(batch)} numbers in 1..{batch.shape[1]}, not {counts}"
        )
    clips = [clip[:count] for clip, count in zip(batch, counts, strict=True)]
    # A device is asked once, not for every clip; `isfinite` of all would take a copy of them.
    if not torch.isfinite(torch.stack(batch.aminmax())).all():
        for index, clip in enumerate(clips):
            bad = (~torch.isfinite(clip)).nonzero()
            if len(bad):
                where = int(bad[0, 0])
                raise InputError(f"clip {index} has NaN or infinity, first at sample {where}")
    return clips


def as_tokens(values: Tokens, what: str = "tokens") -> Tensor:
    """Return integers of any kind, in any array or list, as a tensor of int32 or int64.

    Raises:
        InputError: for what holds no integers.
    """
    tensor = as_tensor(values)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise InputError(f"{what} must be integers, not {described(tensor)}")
    # Unsigned dtypes have few operations. What int64 cannot hold becomes negative, never a token.
    return tensor if tensor.dtype in (torch.int32, torch.int64) else tensor.long()
