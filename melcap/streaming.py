"""Live audio: an encoder and a decoder that take pieces of any size and keep their state.

What comes out, joined, is what `Codec.encode` and `Codec.decode` give for the whole clip, and
nothing is computed twice. One object is one stream, or one batch of streams that run in step (the
channels of a clip). A column of tokens is ready `StreamEncoder.latency` seconds after its audio.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from melcap.codec import Codec
from melcap.errors import InputError
from melcap.inputs import Tokens, Wave, as_tensor, as_tokens, described
from melcap.io.resample import Resampler, resampled_length
from melcap.limits import MAX_CHANNELS, checked_rate
from melcap.model.stages import StageStream, inputs_for, outputs_of
from melcap.ops.precision import exact_float32


class StreamEncoder:
    """Audio in pieces to tokens in pieces.

    Args:
        codec: the codec; shared by any number of streams.
        sample_rate: of the audio to come; None for the codec's own.
        batch: streams that run in step.
    """

    def __init__(self, codec: Codec, sample_rate: int | None = None, batch: int = 1) -> None:
        if not 1 <= batch <= MAX_CHANNELS:
            raise InputError(f"batch must be in 1..{MAX_CHANNELS}, not {batch}")
        codec.require_float32()
        rate = codec.config.mel.sample_rate
        self.codec, self.batch = codec, batch
        self.sample_rate = rate if sample_rate is None else checked_rate(sample_rate)
        first, last = inputs_for(codec.encode_stages, 0, 1)
        self.latency = (last - codec.config.column_samples) / rate
        self._context = -first
        self.reset()

    def reset(self) -> None:
        """Begin a new stream; what was waiting in the old one is gone."""
        rate, device = self.codec.sample_rate, self.codec.device
        self.samples = 0
        """Samples taken so far, at `sample_rate`."""
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
        """[samples] or [batch, samples] -> int32 [batch, rows, new columns], perhaps none.

        Raises `InputError` for audio that does not fit, NaN or infinity, and after `flush`.
        """
        if self._closed:
            raise InputError("this stream has ended: reset() begins a new one")
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
        """End the stream: the columns that were waiting for what comes after them."""
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
    """Tokens in pieces to audio in pieces.

    Args:
        codec: a codec of the tokenizer that made the tokens.
        sample_rate: of the audio to give; None for the codec's own.
        batch: streams that run in step.
    """

    def __init__(self, codec: Codec, sample_rate: int | None = None, batch: int = 1) -> None:
        if not 1 <= batch <= MAX_CHANNELS:
            raise InputError(f"batch must be in 1..{MAX_CHANNELS}, not {batch}")
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
        """Begin a new stream; what was waiting in the old one is gone."""
        rate = self.codec.sample_rate
        self.columns = 0
        """Columns taken so far."""
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
        """Integer [rows, columns] or [batch, rows, columns] -> [batch, new samples], perhaps none.

        Raises `InputError` for tokens that do not fit or are not in the codebook; after `flush`.
        """
        if self._closed:
            raise InputError("this stream has ended: reset() begins a new one")
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
        """End the stream: the audio that was waiting for what comes after it.

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
        """The codec-rate audio that these tokens make possible."""
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
