"""A codec with the interface of `EncodecModel` in Hugging Face's transformers.

Code written for `EncodecModel` runs on `TransformersAdapter(melcap.load())` if it reads results by
the names of their fields. The rows of a column take the place of EnCodec's quantizers. This module
does not import transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcap.audio_codec import AudioCodec
from melcap.errors import InputError


@dataclass(frozen=True)
class AdapterConfig:
    """The numbers that code for codecs of transformers reads from `model.config`.

    Attributes:
        sampling_rate: the sample rate of the codec, in Hz.
        audio_channels: channels of all audio.
        hop_length: samples of a column.
        frame_rate: columns per second.
        codebook_size: entries of the codebook.
        num_quantizers: rows of all channels together.
    """

    sampling_rate: int
    audio_channels: int
    hop_length: int
    frame_rate: float
    codebook_size: int
    num_quantizers: int


@dataclass(frozen=True)
class AdapterOutput:
    """The result of a call; fields that the call does not fill are None.

    Attributes:
        audio_codes: int64 [1, batch, channels * rows, columns].
        audio_scales: a list of one None, because melcap has no scales.
        audio_values: float32 [batch, channels, samples].
    """

    audio_codes: Tensor | None = None
    audio_scales: list[None] | None = None
    audio_values: Tensor | None = None


class TransformersAdapter(nn.Module):
    """A codec with the methods `encode`, `decode` and `forward` of `EncodecModel`.

    Args:
        codec: the codec.
        audio_channels: channels of all audio; each channel is coded by itself.

    Example:
        >>> import torch, melcap
        >>> from melcap.transformers_adapter import TransformersAdapter
        >>> model = TransformersAdapter(melcap.load())
        >>> encoded = model.encode(torch.zeros(3, 1, 44100))
        >>> encoded.audio_codes.shape
        torch.Size([1, 3, 12, 22])
        >>> model.decode(encoded.audio_codes, encoded.audio_scales).audio_values.shape
        torch.Size([3, 1, 45056])
    """

    def __init__(self, codec: AudioCodec, audio_channels: int = 1) -> None:
        super().__init__()
        self.codec = codec
        self.config = AdapterConfig(
            sampling_rate=codec.sample_rate,
            audio_channels=audio_channels,
            hop_length=codec.config.column_samples,
            frame_rate=codec.frame_rate,
            codebook_size=codec.vocab_size,
            num_quantizers=codec.rows * audio_channels,
        )

    def encode(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        bandwidth: float | None = None,
        return_dict: bool | None = None,
    ) -> AdapterOutput:
        """Turn audio into tokens.

        Args:
            input_values: floating point [batch, channels, samples] at `config.sampling_rate`.
            padding_mask: [batch, samples] or [batch, channels, samples], 1 (or True) for samples
                and 0 for the padding after them; None if there is no padding.
            bandwidth: None, because melcap has one bit rate.
            return_dict: None or True.

        Returns:
            `audio_codes`, int64 [1, batch, channels * rows, columns]. The silence column fills the
            places after a clip's own columns.

        Raises:
            InputError: for audio of another shape, a mask that has padding before samples, or a
                bandwidth.
        """
        _require_defaults(bandwidth, return_dict)
        if input_values.ndim != 3 or input_values.shape[1] != self.config.audio_channels:
            raise InputError(
                f"input_values must be [batch, {self.config.audio_channels}, samples], not "
                f"{list(input_values.shape)}"
            )
        lengths = None if padding_mask is None else _lengths(padding_mask, input_values.shape)
        codes = self.codec.encode(input_values, self.config.sampling_rate, lengths)
        return AdapterOutput(codes.tokens.long().flatten(1, 2)[None], [None])

    def decode(
        self,
        audio_codes: Tensor,
        audio_scales: Any = None,
        padding_mask: Tensor | None = None,
        return_dict: bool | None = None,
        last_frame_pad_length: int = 0,
    ) -> AdapterOutput:
        """Turn tokens back into audio.

        Args:
            audio_codes: integers [1, batch, channels * rows, columns], as `encode` returns them.
            audio_scales: None, or the list of None that `encode` returns; melcap has no scales.
            padding_mask: as for `encode`. A clip is decoded from the columns of its own samples.
            return_dict: None or True.
            last_frame_pad_length: 0, which is its value in EnCodec without chunks.

        Returns:
            `audio_values`, float32 [batch, channels, samples]: all samples of the columns, or as
            many as the mask has. With a mask, zeros follow a clip's own samples.

        Raises:
            InputError: for tokens of another shape, or outside the codebook, for scales, or for a
                mask that does not fit.
        """
        _require_defaults(None, return_dict)
        if last_frame_pad_length or any(scale is not None for scale in audio_scales or ()):
            raise InputError(
                "melcap has neither scales nor padded frames: leave out both arguments"
            )
        rows, channels = self.codec.rows, self.config.audio_channels
        if (
            audio_codes.ndim != 4
            or len(audio_codes) != 1
            or audio_codes.shape[2] != rows * channels
        ):
            raise InputError(
                f"audio_codes must be [1, batch, {rows * channels}, columns], not "
                f"{list(audio_codes.shape)}"
            )
        codes = self.codec.codes_of(audio_codes[0].unflatten(1, (channels, rows)))
        samples = codes.lengths[0]
        if padding_mask is not None:
            lengths = _lengths(padding_mask, (*codes.shape, padding_mask.shape[-1]))
            own = tuple(lengths.clamp(max=samples).flatten().tolist())
            codes = replace(codes, columns=tuple(map(self.codec.columns, own)), lengths=own)
            samples = padding_mask.shape[-1]
        wave = self.codec.decode(codes)
        return AdapterOutput(audio_values=F.pad(wave, (0, samples - wave.shape[-1])))

    def forward(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        bandwidth: float | None = None,
        audio_codes: Tensor | None = None,
        audio_scales: Any = None,
        return_dict: bool | None = None,
    ) -> AdapterOutput:
        """Return `audio_codes` and their `audio_values`, which are as long as the input.

        Args:
            input_values: floating point [batch, channels, samples].
            padding_mask: as for `encode`.
            bandwidth: None.
            audio_codes: tokens to decode; None encodes `input_values`.
            audio_scales: as for `decode`.
            return_dict: None or True.

        Raises:
            InputError: as for `encode` and `decode`.
        """
        _require_defaults(bandwidth, return_dict)
        codes = audio_codes
        if codes is None:
            codes = self.encode(input_values, padding_mask).audio_codes
            assert codes is not None
        values = self.decode(codes, audio_scales, padding_mask).audio_values
        assert values is not None
        return AdapterOutput(codes, [None], values[..., : input_values.shape[-1]])


def _require_defaults(bandwidth: float | None, return_dict: bool | None) -> None:
    """Raise an error for options that melcap cannot follow."""
    if bandwidth is not None:
        raise InputError(f"melcap has one bit rate: leave out bandwidth, which is {bandwidth}")
    if return_dict is False:
        raise InputError("results are objects with named fields: leave out return_dict=False")


def _lengths(padding_mask: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the samples of each channel of each clip, [batch, channels].

    Args:
        padding_mask: the mask.
        shape: (batch, channels, samples) of the audio.
    """
    mask = padding_mask.bool()
    mask = mask[:, None] if mask.ndim == 2 else mask
    batch, channels, samples = shape
    if mask.shape not in ((batch, 1, samples), (batch, channels, samples)):
        raise InputError(f"padding_mask {list(padding_mask.shape)} does not fit {list(shape)}")
    mask = mask.expand(batch, channels, samples)
    lengths = mask.sum(-1)
    after = torch.arange(mask.shape[-1], device=mask.device) >= lengths[..., None]
    if (mask & after).any():
        raise InputError("padding_mask has padding before samples: pad on the right instead")
    return lengths
