"""Checks and conversions of the audio and the tokens that callers pass in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from melcap.errors import InputError
from melcap.limits import MAX_CHANNELS, checked_rate

Wave = Tensor | npt.NDArray[np.floating] | Sequence[float] | Mapping[str, Any]
"""Samples, or a dictionary {"array": samples, "sampling_rate": Hz} as in `datasets`."""

Tokens = Tensor | npt.NDArray[np.integer] | Sequence[Any]
"""Integers, in an array, a tensor or nested lists."""


def as_tensor(values: Any) -> Tensor:
    """Return an array or a list as a tensor on the CPU; a tensor is returned as it is.

    Arrays that torch cannot share (reversed, read-only, of another byte order) are copied.

    Raises:
        InputError: for anything that is not an array of numbers.
    """
    if isinstance(values, Tensor):
        return values
    try:
        array = np.asarray(values)
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except (TypeError, ValueError) as error:
        raise InputError(f"not an array of numbers: {error}") from error


def described(tensor: Tensor) -> str:
    """Return the dtype and the shape of a tensor as text, for errors."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def with_rate(wave: Wave, sample_rate: Any) -> tuple[Tensor, int]:
    """Return samples as a tensor, and their sample rate in Hz.

    Args:
        wave: samples, or a dictionary of samples and their rate.
        sample_rate: the rate in Hz; it may be None for a dictionary.

    Raises:
        InputError: if the rate is missing, invalid, or not that of the dictionary.
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
                f"the audio's own sampling_rate is {own}, and sample_rate {sample_rate}: "
                "leave sample_rate out"
            )
        return as_tensor(array), own
    if sample_rate is None:
        raise InputError("the sample rate of the audio is missing: call encode(wave, sample_rate)")
    return as_tensor(wave), checked_rate(sample_rate)


def clips_of(wave: Tensor, lengths: Tokens | None) -> tuple[Tensor, list[int], tuple[int, ...]]:
    """Return clips [clips, samples], the samples of each, and the axes of the wave before samples.

    Args:
        wave: floating point [..., samples].
        lengths: samples of each clip, in the shape of the axes before samples or of the first one.

    Returns:
        The clips of the wave up to the longest one's end, their lengths, and the axes. A shorter
        clip is followed by samples that are not its own, of any value.

    Raises:
        InputError: for another shape or dtype, NaN or infinity, or lengths that do not fit.
    """
    given = described(wave)
    if not wave.ndim or not wave.is_floating_point() or not wave.numel():
        raise InputError(
            f"audio must be floating point [..., samples], in -1..1 and not empty, not {given}"
        )
    *axes, samples = wave.shape
    if lengths is None and axes and axes[-1] > MAX_CHANNELS >= samples:
        raise InputError(
            f"audio must be [..., samples], and {given} looks like [samples, channels]: swap its "
            "last two axes (wave.T), or pass lengths if these are clips"
        )
    batch = wave.reshape(-1, samples)
    counts = [samples] * len(batch)
    if lengths is not None:
        counts = _lengths_of(as_tokens(lengths, "lengths"), tuple(axes), samples)
    # One reduction over the batch, whose values are read together, because each reading from a GPU
    # waits for it, and `isfinite` of the whole batch would allocate as much memory again.
    if not all(map(math.isfinite, torch.stack(batch.aminmax()).tolist())):
        clips = [clip[:count] for clip, count in zip(batch, counts, strict=True)]
        finite = torch.stack([torch.isfinite(clip).all() for clip in clips]).tolist()
        if not all(finite):
            index = finite.index(False)
            where = int((~torch.isfinite(clips[index])).nonzero()[0, 0])
            raise InputError(f"clip {index} has NaN or infinity, first at sample {where}")
    return batch[:, : max(counts)], counts, tuple(axes)


def _lengths_of(lengths: Tensor, axes: tuple[int, ...], samples: int) -> list[int]:
    """Return the length of each clip [samples], in the order of the flattened axes.

    Lengths in the shape of the first axis apply to all channels of a clip.
    """
    shape = tuple(lengths.shape)
    clips = math.prod(axes)
    if axes and shape == axes[:1]:
        lengths = lengths.repeat_interleave(clips // len(lengths))
    elif shape not in (axes, (clips,)):
        raise InputError(
            f"audio {[*axes, samples]} has {clips} clips, and lengths are {list(shape)}: pass one "
            "number for each clip"
        )
    counts: list[int] = lengths.flatten().tolist()
    if any(not 1 <= count <= samples for count in counts):
        raise InputError(f"lengths must be in 1..{samples}, not {counts}")
    return counts


def on_device(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Return integers as a tensor, int64 [numbers], without waiting for a GPU."""
    # CUDA has read pageable memory when such a copy returns; other devices may not have.
    return torch.tensor(numbers, device="cpu").to(device, non_blocking=device.type == "cuda")


def as_tokens(values: Tokens, what: str = "tokens") -> Tensor:
    """Return integers of any type, in an array or a list, as a tensor of int32 or int64.

    Args:
        values: the integers.
        what: what they are called in an error.

    Raises:
        InputError: for anything but integers.
    """
    if isinstance(values, (list, tuple)) and not values:
        return torch.zeros(0, dtype=torch.int64)
    tensor = as_tensor(values)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise InputError(f"{what} must be integers, not {described(tensor)}")
    # Unsigned dtypes support few operations. Numbers beyond int64 become negative, and negative
    # numbers are never tokens.
    return tensor if tensor.dtype in (torch.int32, torch.int64) else tensor.long()
