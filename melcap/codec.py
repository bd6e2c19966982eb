"""`Codec`, which turns audio into tokens and tokens into audio."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

from melcap import hub
from melcap.codes import UNKNOWN, Codes
from melcap.errors import InputError, ModelMismatchError
from melcap.flat_tokens import OnInvalid, grid_of
from melcap.inputs import Tokens, Wave, as_tokens, clips_of, described, with_rate
from melcap.io.resample import resample, resampled_length
from melcap.limits import checked_rate
from melcap.model.network import Network
from melcap.model.quality import Quality
from melcap.ops.precision import exact_float32


class Codec(Network):
    """A neural audio codec with one codebook; `melcap.load` returns one with trained weights.

    A clip is coded as if endless silence stood before and after it. So chunks, padded batches and
    streams give the tokens and the samples of the whole clip. Work is done in chunks of
    `chunk_columns` columns, at most `GPU_CHUNKS` of them at once on a GPU. Beyond that, memory
    grows only by the audio and the tokens themselves.

    Args:
        config: every size of the codec.
        model: name and hash of the weights, for information.
        quality: of decoding. "fast" takes a quarter of the configuration's Griffin-Lim steps,
            "best" four times as many. The tokens are the same.

    Raises:
        InputError: for another quality, or one that a vocoder without such steps cannot have.
    """

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        device: str = "cpu",
        *,
        quality: Quality = "default",
        revision: str | None = None,
    ) -> Codec:
        """Return the codec of a folder that `save_pretrained` wrote, or of the Hugging Face Hub.

        Args:
            name: a local folder, or a name such as `user/model`, for which `huggingface_hub` must
                be installed.
            device: where to compute.
            quality: of decoding.
            revision: branch, tag or commit of a repository of the Hub.

        Raises:
            WeightsError: where there is no such folder or repository, or it holds no codec.
            MelcapError: for a name on the Hub where `huggingface_hub` is not installed.

        Example:
            >>> import tempfile, melcap
            >>> codec = melcap.load()
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     codec.save_pretrained(folder, license="mit")
            ...     again = melcap.Codec.from_pretrained(folder)
            >>> again.tokenizer_id == codec.tokenizer_id
            True
        """
        return hub.load_pretrained(cls, name, quality, revision).to(device)

    def save_pretrained(
        self, folder: str | os.PathLike[str], license: str | None = None, card: str = ""
    ) -> None:
        """Write config.json, model.safetensors and README.md, a model card, to a folder.

        Weights are rounded to half precision. An existing README.md is left as it is.

        Args:
            folder: it is created if it does not exist.
            license: the name of the weights' licence, as the Hub spells it, such as "mit".
            card: Markdown for the end of the model card.

        Raises:
            WeightsError: for weights that are not finite, or a folder that cannot be written.
        """
        hub.save_pretrained(self, folder, license, card)

    @property
    def sample_rate(self) -> int:
        """Return the rate of the audio that the networks process, in Hz."""
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
        """Refuse to encode with weights of another dtype, because the tokens would differ.

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
        """Return how many columns a clip of `samples` at the codec's own rate has."""
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
                {"array": wave, "sampling_rate": Hz} brings its own rate.
            sample_rate: of `wave` in Hz; audio at another rate than the codec's is resampled.
            lengths: samples of each clip of the first axis, where they differ, or of each channel
                of each clip. Samples past these are not read.

        Returns:
            `Codes` with tokens [..., rows, columns], on the codec's device.

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
        clips, axes = clips_of(samples, lengths)
        counted = tuple(clip.shape[-1] for clip in clips)
        if sample_rate != self.sample_rate:
            # clipped before resampling as well: a filter would turn huge samples into infinities
            clips = [_resample(clip.clamp(-1, 1), sample_rate, self.sample_rate) for clip in clips]
        columns = tuple(self.columns(clip.shape[-1]) for clip in clips)
        tokens = self._encode_clips(clips, max(columns))[..., : max(columns)]
        return Codes(
            self._silence_after(tokens, columns).view(*axes, self.rows, max(columns)),
            columns,
            counted,
            sample_rate,
            self.tokenizer_id,
            self.model,
        )

    @torch.no_grad()
    @exact_float32()
    def decode(self, codes: Codes) -> Tensor:
        """Turn tokens back into audio.

        Args:
            codes: the tokens, of this codec's tokenizer.

        Returns:
            float32 [..., samples], in -1..1, at `codes.sample_rate`, on the codec's device. Every
            clip is exactly as long as the one that was encoded, and shorter ones end with zeros.

        Raises:
            ModelMismatchError: where the tokens are those of another tokenizer.
            InputError: for tokens outside the codebook, or lengths that the columns cannot hold.

        Example:
            >>> import torch, melcap
            >>> codec = melcap.load()
            >>> codec.decode(codec.encode(torch.zeros(48001), 48000)).shape
            torch.Size([48001])
        """
        self.require_tokenizer(codes.tokenizer_id, codes.model)
        grid = codes.tokens.flatten(0, -3) if codes.tokens.ndim > 2 else codes.tokens[None]
        if grid.shape[1] != self.rows:
            raise InputError(f"tokens must have {self.rows} rows, not {grid.shape[1]}")
        tokens = self._silence_after(grid.to(self.device).long(), codes.columns)
        self.codebook.check(tokens)
        rate = self.sample_rate
        lengths = [resampled_length(length, codes.sample_rate, rate) for length in codes.lengths]
        for index, (length, count) in enumerate(zip(lengths, codes.columns, strict=True)):
            if self.columns(length) != count:
                raise InputError(
                    f"clip {index} has {count} columns, but {codes.lengths[index]} samples at "
                    f"{codes.sample_rate} Hz need {self.columns(length)}"
                )
        wave = self._decode_tokens(tokens, max(lengths))
        if codes.sample_rate == rate:
            for clip, length in zip(wave, lengths, strict=True):
                clip[length:] = 0
        else:
            made, wave = wave, wave.new_zeros(len(wave), max(codes.lengths))
            for index, length in enumerate(codes.lengths):
                clip = _resample(made[index, : lengths[index]], rate, codes.sample_rate)
                wave[index, :length] = clip[:length]
        return wave.clamp_(-1, 1).view(*codes.shape, -1)

    def decode_tokens(
        self, ids: Tokens, sample_rate: int | None = None, on_invalid: OnInvalid = "error"
    ) -> Tensor:
        """Turn a flat sequence of tokens, such as a language model generates, into audio.

        Args:
            ids: integers [n], a list, an array or a tensor, in the order of `Codes.flatten`: column
                by column, each from the lowest row to the highest. The audio ends with the last
                whole column.
            sample_rate: of the audio in Hz; None for the codec's own.
            on_invalid: what to do with an id outside the codebook. "error" raises. "silence"
                replaces it with the token of the same row of the silence column. "drop" removes it,
                so that the ids after it move up. Drop ids that stand between tokens, such as
                separators. Replace ids that stand in place of a token.

        Returns:
            float32 [samples], in -1..1, on the codec's device; empty for less than a column.

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
        """Return the codes of whole columns of tokens, for audio of unknown length.

        Args:
            tokens: integers [..., rows, columns].
            sample_rate: of the decoded audio, in Hz; None for the codec's own.

        Returns:
            `Codes` as long as the columns, to the last whole sample.

        Raises:
            InputError: for another shape, or a wrong sample rate.

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
            grid, (columns,) * clips, (length,) * clips, rate, self.tokenizer_id, self.model
        )

    def forward(
        self, wave: Wave, sample_rate: int | None = None, lengths: Tokens | None = None
    ) -> Tensor:
        """Return the audio after `encode` and `decode`, in the same shape."""
        return self.decode(self.encode(wave, sample_rate, lengths))

    def require_tokenizer(self, tokenizer_id: str, model: str) -> None:
        """Refuse tokens of another tokenizer.

        Args:
            tokenizer_id: the tokenizer of the tokens.
            model: name and hash of the weights that made them.

        Raises:
            ModelMismatchError: it names both tokenizers, and weights that can decode the tokens.
        """
        if tokenizer_id != self.tokenizer_id:
            made = such = ""
            if model != UNKNOWN:
                made, such = f" (made with {model})", f", such as {model}"
            raise ModelMismatchError(
                f"these tokens are of tokenizer {tokenizer_id}{made}, and {self.model} has "
                f"tokenizer {self.tokenizer_id}: load weights of tokenizer {tokenizer_id}{such}"
            )


def _resample(clip: Tensor, source: int, target: int) -> Tensor:
    samples = clip.detach().cpu().to(torch.float32)[None].numpy()
    return torch.from_numpy(resample(samples, source, target)[0])
