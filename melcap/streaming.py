"""An encoder and a decoder for live audio, which take pieces of any size and keep their state.

The results, joined, are those of `Codec.encode` and `Codec.decode` for the whole clip. One object
is one stream, or one batch of streams that run in step, such as the channels of a clip.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from melcap.audio_codec import AudioCodec
from melcap.codec import require_own
from melcap.errors import InputError
from melcap.inputs import Tokens, Wave, as_tensor, as_tokens, described
from melcap.io.resample import Resampler, resampled_length
from melcap.limits import MAX_CHANNELS, checked_rate
from melcap.model.stages import StageStream, inputs_for, outputs_of
from melcap.ops.precision import exact_float32


class StreamEncoder:
    """A stream that turns pieces of audio into pieces of tokens.

    Args:
        codec: the codec; any number of streams may share it.
        sample_rate: of the audio in Hz; None for the codec's own.
        batch: number of streams that run in step, 1 to 64.

    Attributes:
        latency: seconds from the end of a column's audio until its tokens are ready, without the
            time of computing. A resampler adds its own delay.
        samples: samples pushed so far, at `sample_rate`.

    Raises:
        InputError: for a wrong rate or batch, or a codec that is not in float32.

    Example:
        >>> import torch, melcap
        >>> encoder = melcap.StreamEncoder(melcap.load(), sample_rate=16000)
        >>> wave = torch.zeros(16000)
        >>> tokens = [encoder.push(piece) for piece in wave.split(1600)] + [encoder.flush()]
        >>> torch.cat(tokens, dim=-1).shape
        torch.Size([1, 12, 22])
    """

    def __init__(self, codec: AudioCodec, sample_rate: int | None = None, batch: int = 1) -> None:
        if not 1 <= batch <= MAX_CHANNELS:
            raise InputError(f"batch must be in 1..{MAX_CHANNELS}, not {batch}")
        codec = require_own(codec, "a stream")
        codec.require_float32()
        rate = codec.config.mel.sample_rate
        self.codec, self.batch = codec, batch
        self.sample_rate = rate if sample_rate is None else checked_rate(sample_rate)
        first, last = inputs_for(codec.encode_stages, 0, 1)
        self.latency = (last - codec.config.column_samples) / rate
        self._context = -first
        self.reset()

    def reset(self) -> None:
        """Begin a new stream, and discard what the old one still held back."""
        rate, device = self.codec.sample_rate, self.codec.device
        self.samples = 0
        self._resampler = (
            Resampler(self.sample_rate, rate, self.batch) if self.sample_rate != rate else None
        )
        self._stream = StageStream(self.codec.encode_stages)
        self._pushed = self._given = 0
        self._closed = False
        self._advance(torch.zeros(self.batch, self._context, dtype=torch.float32, device=device))
        self._pushed = 0

    @torch.no_grad()
    def push(self, wave: Wave) -> Tensor:
        """Encode a piece of audio.

        Args:
            wave: floating point [samples] or [batch, samples], of any number of samples.

        Returns:
            int32 [batch, rows, columns], the columns that have become ready; there may be none.

        Raises:
            InputError: for audio of another shape or dtype, NaN or infinity, or after `flush`. The
                stream is then as it was before.
        """
        if self._closed:
            raise InputError("this stream has ended: call reset() to begin a new one")
        piece = as_tensor(wave)
        piece = piece[None] if piece.ndim == 1 else piece
        if piece.ndim != 2 or len(piece) != self.batch or not piece.is_floating_point():
            turned = piece.ndim == 2 and piece.shape[1] == self.batch and piece.is_floating_point()
            raise InputError(
                f"a piece must be floating point [{self.batch}, samples], not {described(piece)}"
                + ("; pass its transpose (piece.T)" if turned else "")
            )
        if not torch.isfinite(piece).all():
            raise InputError(f"NaN or infinity in the piece after sample {self.samples}")
        self.samples += piece.shape[1]
        if self._resampler is not None:
            piece = torch.from_numpy(self._resampler.push(_numpy(piece.clamp(-1, 1))))
        return self._advance(piece)

    @torch.no_grad()
    def flush(self) -> Tensor:
        """End the stream, and return the remaining columns, int32 [batch, rows, columns]."""
        if self._closed:
            return self._none()
        self._closed = True
        tokens = [self._none()]
        if self._resampler is not None:
            tokens.append(self._advance(torch.from_numpy(self._resampler.flush())))
        columns = self.codec.columns(self._pushed)
        if columns > self._given:
            _, last = inputs_for(self.codec.encode_stages, 0, columns)
            rest = (self.batch, last - self._pushed)
            silence = torch.zeros(rest, dtype=torch.float32, device=self.codec.device)
            tokens.append(self._advance(silence))
        return torch.cat(tokens, dim=-1)

    @torch.no_grad()
    @exact_float32()
    def _advance(self, wave: Tensor) -> Tensor:
        if not wave.shape[1]:
            return self._none()
        self._pushed += wave.shape[1]
        most = max(1, self.codec.columns_at_once // self.batch) * self.codec.config.column_samples
        tokens = [self._none()]
        for piece in wave.split(most, dim=1):
            latents = self._stream.push(piece.to(self.codec.device, torch.float32).clamp(-1, 1))
            if latents is not None:
                tokens.append(self.codec.codebook.tokens(latents))
        made = torch.cat(tokens, dim=-1)
        self._given += made.shape[-1]
        return made

    def _none(self) -> Tensor:
        shape = (self.batch, self.codec.config.rows, 0)
        return torch.zeros(shape, dtype=torch.int32, device=self.codec.device)


class StreamDecoder:
    """A stream that turns pieces of tokens into pieces of audio.

    Args:
        codec: a codec of the tokenizer that made the tokens; any number of streams may share it.
        sample_rate: of the decoded audio in Hz; None for the codec's own.
        batch: number of streams that run in step, 1 to 64.

    Attributes:
        latency: seconds of audio whose tokens must follow a column before all of its samples are
            ready, without the time of computing.
        columns: columns pushed so far.

    Raises:
        InputError: for a wrong rate or batch.

    Example:
        >>> import torch, melcap
        >>> decoder = melcap.StreamDecoder(melcap.load(), sample_rate=16000)
        >>> tokens = torch.zeros(12, 30, dtype=torch.int32)
        >>> audio = [decoder.push(piece) for piece in tokens.split(4, dim=1)]
        >>> torch.cat([*audio, decoder.flush(samples=20000)], dim=-1).shape
        torch.Size([1, 20000])
    """

    def __init__(self, codec: AudioCodec, sample_rate: int | None = None, batch: int = 1) -> None:
        if not 1 <= batch <= MAX_CHANNELS:
            raise InputError(f"batch must be in 1..{MAX_CHANNELS}, not {batch}")
        codec = require_own(codec, "a stream")
        rate = codec.config.mel.sample_rate
        self.codec, self.batch = codec, batch
        self.sample_rate = rate if sample_rate is None else checked_rate(sample_rate)
        stages, unit = codec.decode_stages, codec.config.column_samples
        first, last = inputs_for(stages, 0, unit)
        given, _ = outputs_of(stages, first, last)
        self.latency = (last - 1) * unit / rate
        self._context, self._early = -first, -given
        self.reset()

    def reset(self) -> None:
        """Begin a new stream, and discard what the old one still held back."""
        rate = self.codec.sample_rate
        self.columns = 0
        self._resampler = (
            Resampler(rate, self.sample_rate, self.batch) if self.sample_rate != rate else None
        )
        self._stream = StageStream(self.codec.decode_stages)
        self._skip = self._early
        self._made = self._given = 0
        self._closed = False
        self._advance(self._quiet(self._context))

    @torch.no_grad()
    def push(self, tokens: Tokens) -> Tensor:
        """Decode a piece of tokens.

        Args:
            tokens: integers [rows, columns] or [batch, rows, columns], of any number of columns.

        Returns:
            float32 [batch, samples], in -1..1, the samples that have become ready; there may be
            none.

        Raises:
            InputError: for tokens of another shape or outside the codebook, or after `flush`. The
                stream is then as it was before.
        """
        if self._closed:
            raise InputError("this stream has ended: call reset() to begin a new one")
        piece = as_tokens(tokens)
        piece = piece[None] if piece.ndim == 2 else piece
        rows = self.codec.config.rows
        if piece.ndim != 3 or piece.shape[:2] != (self.batch, rows):
            raise InputError(
                f"a piece must be integers [{self.batch}, {rows}, columns], not {described(piece)}"
            )
        piece = piece.to(self.codec.device).long()
        self.codec.codebook.check(piece)
        wave = self._advance(piece)
        self.columns += piece.shape[2]
        return self._emit(wave)

    @torch.no_grad()
    def flush(self, samples: int | None = None) -> Tensor:
        """End the stream, and return the remaining audio, float32 [batch, samples].

        Args:
            samples: length of the whole clip at `sample_rate`; None for whole columns.
        """
        if self._closed:
            return self._none()
        self._closed = True
        rate, unit = self.codec.config.mel.sample_rate, self.codec.config.column_samples
        whole = self.columns * unit
        if samples is not None:
            whole = min(whole, resampled_length(samples, self.sample_rate, rate))
        made, given = self._made, self._given
        rest = self._none()
        if self.columns:
            _, last = inputs_for(self.codec.decode_stages, 0, self.columns * unit)
            rest = self._advance(self._quiet(last - self.columns))[:, : max(0, whole - made)]
        parts = [self._emit(rest)]
        if self._resampler is not None:
            parts.append(torch.from_numpy(self._resampler.flush()).to(rest).clamp(-1, 1))
        wave = torch.cat(parts, dim=-1)
        return wave if samples is None else wave[:, : max(0, samples - given)]

    @torch.no_grad()
    @exact_float32()
    def _advance(self, tokens: Tensor) -> Tensor:
        """Return the audio at the codec's rate that these tokens make possible."""
        waves = []
        for piece in tokens.split(max(1, self.codec.columns_at_once // self.batch), dim=-1):
            made = self._stream.push(self.codec.codebook.latents(piece))
            if made is not None:
                waves.append(made)
        if not waves:
            return self._none()
        wave = torch.cat(waves, dim=-1)
        dropped = min(self._skip, wave.shape[1])
        self._skip -= dropped
        wave = wave[:, dropped:]
        self._made += wave.shape[1]
        return wave.clamp(-1, 1)

    def _emit(self, wave: Tensor) -> Tensor:
        if self._resampler is not None:
            wave = torch.from_numpy(self._resampler.push(_numpy(wave))).to(wave).clamp(-1, 1)
        self._given += wave.shape[1]
        return wave

    def _none(self) -> Tensor:
        return torch.zeros(self.batch, 0, dtype=torch.float32, device=self.codec.device)

    def _quiet(self, columns: int) -> Tensor:
        return self.codec.silence[None, :, None].expand(self.batch, -1, columns)


def _numpy(wave: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    samples: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = (
        wave.detach().cpu().to(torch.float32).numpy()
    )
    return samples
