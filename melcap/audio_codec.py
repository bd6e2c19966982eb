"""`AudioCodec`, what codecs of every architecture have in common: audio to tokens to audio."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from melcap.codes import UNKNOWN, Codes
from melcap.config import BaseConfig, CodecConfig
from melcap.errors import InputError, ModelMismatchError
from melcap.flat_tokens import OnInvalid, grid_of
from melcap.inputs import Tokens, Wave, as_tokens, clips_of, described, on_device, with_rate
from melcap.io.resample import resample, resampled_length
from melcap.limits import checked_rate
from melcap.model.quantizer import Codebook
from melcap.ops.precision import exact_float32


class AudioCodec(nn.Module, ABC):
    """A neural audio codec with one codebook, of any architecture; `melcap.load` returns one.

    `Codec` is melcap's own architecture. `BaseCodec` is the published one.

    Attributes:
        config: every size of the codec.
        model: name and hash of the weights, for information.
        codebook: the codebook.
        silence: the silence column, int32 [rows].
    """

    config: CodecConfig | BaseConfig
    model: str
    codebook: Codebook
    silence: Tensor

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Return the device that the weights are on."""

    @property
    @abstractmethod
    def tokenizer_id(self) -> str:
        """Return the tokenizer's id; codecs of the same id write and read the same tokens."""

    @abstractmethod
    def _encode_clips(
        self, batch: Tensor, lengths: Sequence[int], columns: Sequence[int]
    ) -> Tensor:
        """Return the tokens of clips, int32 [clips, rows, columns of the longest].

        Args:
            batch: floating point [clips, samples], at the codec's rate. Samples after the end of a
                clip may have any value.
            lengths: the samples of each clip.
            columns: the columns of each clip.
        """

    @abstractmethod
    def _decode_grid(self, tokens: Tensor, columns: Sequence[int], samples: int) -> Tensor:
        """Return the first samples [clips, samples] of tokens.

        Args:
            tokens: integers [clips, rows, columns], with the silence column after a clip's own.
            columns: the columns of each clip.
            samples: the samples of the longest clip, at the codec's rate.
        """

    @abstractmethod
    def needed_columns(self, first: int, last: int, columns: int) -> tuple[int, int]:
        """Return the columns that the decoder needs for a part of a clip, as (first, last).

        Decoded by themselves, they give the samples of the part that the whole clip gives, up to
        rounding.

        Args:
            first: the first column of the part.
            last: the column after its last.
            columns: the columns of the clip.
        """

    @property
    def sample_rate(self) -> int:
        """Return the sample rate of the audio that the networks process, in Hz."""
        return self.config.mel.sample_rate

    @property
    def rows(self) -> int:
        """Return the number of tokens in one column."""
        return self.config.rows

    @property
    def frame_rate(self) -> float:
        """Return the number of columns per second."""
        return self.config.frame_rate

    @property
    def tokens_per_second(self) -> float:
        """Return the number of tokens per second, for one channel."""
        return self.config.tokens_per_second

    @property
    def bitrate(self) -> float:
        """Return the number of bits per second, for one channel."""
        return self.config.bits_per_second

    @property
    def vocab_size(self) -> int:
        """Return the size of the codebook; tokens are 0 to `vocab_size` - 1."""
        return self.config.tokenizer.codebook_size

    def require_float32(self) -> None:
        """Raise an error unless the weights are float32; with others, the tokens would differ.

        Raises:
            InputError: after a call of `double()`. Such a codec can still decode.
        """
        dtype = self.codebook.vectors.dtype
        if dtype != torch.float32:
            raise InputError(
                "encoding is defined in float32, and this codec is "
                f"{str(dtype).removeprefix('torch.')}: call float() to make it float32 again"
            )

    def columns(self, samples: int) -> int:
        """Return the number of columns of a clip of `samples` samples at the codec's own rate."""
        return -(-samples // self.config.column_samples)

    @torch.no_grad()
    @exact_float32()
    def encode(
        self, wave: Wave, sample_rate: int | None = None, lengths: Tokens | None = None
    ) -> Codes:
        """Turn audio into tokens.

        Args:
            wave: floating point [..., samples]. Full scale is 1.0, and louder samples are clipped.
                Each [samples] is coded by itself: in [channels, samples] every channel, in
                [batch, channels, samples] every channel of every clip. A dictionary
                {"array": wave, "sampling_rate": Hz} has its own rate.
            sample_rate: the rate of `wave` in Hz. Audio at another rate than the codec's is
                resampled. It may be left out for a dictionary.
            lengths: integers, the samples of each clip of the first axis, or of each channel of
                each clip; None where all are of full length. Samples past these are not read.

        Returns:
            `Codes` with tokens int32 [..., rows, columns], on the codec's device.

        Raises:
            InputError: for empty audio, NaN or infinity, [samples, channels] instead of
                [channels, samples], or lengths or a sample rate that do not fit.

        Example:
            >>> import torch, melcap
            >>> codec = melcap.load()
            >>> codec.encode(torch.zeros(2, 48000), 48000).tokens.shape
            torch.Size([2, 12, 22])
        """
        self.require_float32()
        samples, sample_rate = with_rate(wave, sample_rate)
        resampling = sample_rate != self.sample_rate
        batch, counts, axes = clips_of(samples.cpu() if resampling else samples, lengths)
        own = counts  # the lengths at the codec's rate
        if resampling:
            own = [resampled_length(count, sample_rate, self.sample_rate) for count in counts]
            # Clipped before resampling too, because the filter would turn huge samples into
            # infinities.
            clips = (clip[:count].clamp(-1, 1) for clip, count in zip(batch, counts, strict=True))
            batch = _resampled(clips, own, sample_rate, self.sample_rate)
        columns = tuple(map(self.columns, own))
        tokens = self._encode_clips(batch, own, columns)
        return Codes(
            tokens=self._silence_after(tokens, columns).view(*axes, self.rows, max(columns)),
            columns=columns,
            lengths=tuple(counts),
            sample_rate=sample_rate,
            tokenizer_id=self.tokenizer_id,
            model=self.model,
        )

    @torch.no_grad()
    @exact_float32()
    def decode(self, codes: Codes) -> Tensor:
        """Turn tokens back into audio.

        Args:
            codes: tokens of this codec's tokenizer.

        Returns:
            Audio [..., samples] in -1..1 at `codes.sample_rate`, on the codec's device: float32, or
            float64 after `double()`. Every clip is exactly as long as the one that was encoded, and
            shorter ones end with zeros.

        Raises:
            ModelMismatchError: if the tokens are those of another tokenizer.
            InputError: for tokens outside the codebook, or lengths that the columns cannot hold.

        Example:
            >>> import torch, melcap
            >>> codec = melcap.load()
            >>> codec.decode(codec.encode(torch.zeros(48001), 48000)).shape
            torch.Size([48001])
        """
        self.require_tokenizer(codes.tokenizer_id, codes.model)
        grid = codes.tokens.reshape(len(codes.columns), *codes.tokens.shape[-2:])
        if grid.shape[1] != self.rows:
            raise InputError(f"tokens must have {self.rows} rows, not {grid.shape[1]}")
        # The check waits for the device, so that a copy to it need not.
        tokens = grid.to(self.device, non_blocking=self.device.type == "cuda").long()
        tokens = self._silence_after(tokens, codes.columns)
        self.codebook.check(tokens)
        rate = self.sample_rate
        lengths = [resampled_length(length, codes.sample_rate, rate) for length in codes.lengths]
        for index, (length, count) in enumerate(zip(lengths, codes.columns, strict=True)):
            if self.columns(length) != count:
                raise InputError(
                    f"clip {index} has {count} columns, but {codes.lengths[index]} samples at "
                    f"{codes.sample_rate} Hz need {self.columns(length)}"
                )
        wave = self._decode_grid(tokens, codes.columns, max(lengths))
        if codes.sample_rate == rate:
            for clip, length in zip(wave, lengths, strict=True):
                if length < len(clip):
                    clip[length:] = 0
        else:
            clips = (clip[:length] for clip, length in zip(wave.cpu(), lengths, strict=True))
            wave = _resampled(clips, codes.lengths, rate, codes.sample_rate).to(wave)
        return wave.clamp_(-1, 1).view(*codes.shape, -1)

    def decode_tokens(
        self, ids: Tokens, sample_rate: int | None = None, on_invalid: OnInvalid = "error"
    ) -> Tensor:
        """Turn a flat sequence of tokens, such as a language model generates, into audio.

        Args:
            ids: integers [n], a list, an array or a tensor, in the order of `Codes.flatten`: column
                by column, each from the lowest row to the highest. The audio ends with the last
                whole column.
            sample_rate: the rate of the audio in Hz; None for the codec's own.
            on_invalid: what to do with an id outside the codebook. "error" raises. "silence"
                replaces it with the token of the same row of the silence column. "drop" removes it,
                so that the ids after it move up. Drop ids that stand between tokens, such as
                separators. Replace ids that stand in place of a token.

        Returns:
            float32 [samples] in -1..1, on the codec's device; empty for less than a column.

        Raises:
            InputError: for ids that are not one flat sequence, or, with "error", for an id outside
                the codebook.

        Example:
            >>> import melcap
            >>> codec = melcap.load()
            >>> codec.decode_tokens([0] * 25, sample_rate=24000).shape  # two columns of twelve
            torch.Size([2229])
        """
        grid = grid_of(ids, self.silence, self.vocab_size, on_invalid)
        if not grid.numel():
            return self.codebook.vectors.new_zeros(0)
        return self.decode(self.codes_of(grid, sample_rate))

    def codes_of(self, tokens: Tokens, sample_rate: int | None = None) -> Codes:
        """Return `Codes` for whole columns of tokens, of which the length in samples is unknown.

        Args:
            tokens: integers [..., rows, columns].
            sample_rate: the rate of the decoded audio in Hz; None for the codec's own.

        Returns:
            `Codes` as long as the columns, to the last whole sample.

        Raises:
            InputError: for another shape, or an invalid sample rate.

        Example:
            >>> import torch, melcap
            >>> codec = melcap.load()
            >>> codec.codes_of(torch.zeros(12, 3, dtype=torch.int32)).lengths  # 3 * 2048
            (6144,)
        """
        rate = self.sample_rate if sample_rate is None else checked_rate(sample_rate)
        grid = as_tokens(tokens)
        if grid.ndim < 2 or grid.shape[-2] != self.rows or not grid.numel():
            raise InputError(f"tokens must be [..., {self.rows}, columns], not {described(grid)}")
        columns, clips = grid.shape[-1], math.prod(grid.shape[:-2])
        length = columns * self.config.column_samples * rate // self.sample_rate
        return Codes(
            tokens=grid,
            columns=(columns,) * clips,
            lengths=(length,) * clips,
            sample_rate=rate,
            tokenizer_id=self.tokenizer_id,
            model=self.model,
        )

    def forward(
        self, wave: Wave, sample_rate: int | None = None, lengths: Tokens | None = None
    ) -> Tensor:
        """Encode and decode audio: the arguments are those of `encode`, the result of `decode`."""
        return self.decode(self.encode(wave, sample_rate, lengths))

    def require_tokenizer(self, tokenizer_id: str, model: str) -> None:
        """Raise an error for tokens of another tokenizer.

        Args:
            tokenizer_id: the tokenizer of the tokens.
            model: name and hash of the weights that made them.

        Raises:
            ModelMismatchError: if the ids differ. The message names both tokenizers, and weights
                that can decode the tokens.
        """
        if tokenizer_id != self.tokenizer_id:
            source = suggestion = ""
            if model != UNKNOWN:
                source, suggestion = f" (made with {model})", f", such as {model}"
            raise ModelMismatchError(
                f"these tokens are of tokenizer {tokenizer_id}{source}, and {self.model} has "
                f"tokenizer {self.tokenizer_id}: load weights of tokenizer "
                f"{tokenizer_id}{suggestion}"
            )

    def _silence_after(self, tokens: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the tokens with the silence column in all places after a clip's own columns."""
        if min(counts) == tokens.shape[-1]:
            return tokens
        column = torch.arange(tokens.shape[-1], device=tokens.device)
        own = column < on_device(counts, tokens.device)[:, None]
        return torch.where(own[:, None], tokens, self.silence[:, None].to(tokens.dtype))


def _resampled(clips: Iterable[Tensor], lengths: Sequence[int], source: int, target: int) -> Tensor:
    """Return clips at another rate, float32 [clips, longest length] on the CPU.

    Args:
        clips: floating point [samples] each, on the CPU.
        lengths: the samples of each clip that are kept, from its beginning on; zeros follow them.
        source: the rate of the clips in Hz.
        target: the rate of the result in Hz.
    """
    made = torch.zeros(len(lengths), max(lengths), dtype=torch.float32, device="cpu")
    for row, clip, length in zip(made, clips, lengths, strict=True):
        samples = clip.detach().to(torch.float32)[None].numpy()
        row[:length] = torch.from_numpy(resample(samples, source, target)[0, :length])
    return made
