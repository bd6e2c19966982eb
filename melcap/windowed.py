"""An encoder and a decoder that code a clip of the published architecture in pieces.

The results, joined, are those of `BaseCodec.encode` and `BaseCodec.decode` for the whole clip, and
memory does not grow with its length. Results come a window of ten seconds at a time, so this is for
files, and no stream for live audio.
"""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.base_codec import BaseCodec
from melcap.config.base import SHORTEST_WINDOW
from melcap.inputs import Tokens, Wave, as_tensor, as_tokens
from melcap.io.resample import Resampler, resampled_length
from melcap.model.base.windows import Window, signal_of, windows_of
from melcap.ops.precision import exact_float32

_FAR = 1 << 60
"""A length of a clip of which the end is not known yet."""


class WindowedEncoder:
    """An encoder that takes pieces of audio and returns the tokens of whole windows.

    Args:
        codec: the codec.
        sample_rate: of the audio in Hz.
        batch: clips of one length that are coded together, such as the channels of a file.

    Attributes:
        samples: samples pushed so far, at `sample_rate`.
    """

    def __init__(self, codec: BaseCodec, sample_rate: int, batch: int) -> None:
        self.codec, self.batch, self.samples = codec, batch, 0
        rate = codec.sample_rate
        self._resampler = Resampler(sample_rate, rate, batch) if sample_rate != rate else None
        self._held = torch.zeros(batch, 0, dtype=torch.float32)
        self._offset = 0  # the place of the first sample that is held
        self._next = 0  # the first column of the next window

    @torch.no_grad()
    def push(self, wave: Wave) -> Tensor:
        """Return the tokens [batch, rows, columns] that audio [batch, samples] completes."""
        piece = as_tensor(wave).detach().cpu().float().clamp(-1, 1)
        self.samples += piece.shape[1]
        if self._resampler is not None:
            piece = torch.from_numpy(self._resampler.push(piece.numpy()))
        return self._advance(piece)

    @torch.no_grad()
    def flush(self) -> Tensor:
        """Return the tokens of the last windows, int32 [batch, rows, columns]."""
        tokens = [self._none()]
        if self._resampler is not None:
            tokens.append(self._advance(torch.from_numpy(self._resampler.flush())))
        total = self._offset + self._held.shape[1]
        columns, length = self.codec.columns(total), self.codec.config.tokenizer.window_columns
        windows = windows_of(columns, length) if columns else []
        rest = [window for window in windows if window[0] >= self._next]
        tokens += [self._tokens_of(window, total) for window in rest]
        return torch.cat(tokens, dim=-1)

    def _advance(self, wave: Tensor) -> Tensor:
        self._held = torch.cat((self._held, wave.clamp(-1, 1)), dim=1)
        length, mel = self.codec.config.tokenizer.window_columns, self.codec.config.mel
        tokens = [self._none()]
        # A window is sure to end here once there is another after it.
        while self._columns() >= self._next + length + SHORTEST_WINDOW:
            tokens.append(self._tokens_of((self._next, self._next + length), _FAR))
            self._next += length
            first = self._next * self.codec.config.column_samples - mel.n_fft // 2
            self._held = self._held[:, first - self._offset :].clone()
            self._offset = first
        return torch.cat(tokens, dim=-1)

    @exact_float32()
    def _tokens_of(self, window: Window, total: int) -> Tensor:
        signals = signal_of(self.codec.config, self._held.numpy(), self._offset, total, window)
        return self.codec.tokens_of(torch.from_numpy(signals))

    def _columns(self) -> int:
        """Return the number of columns of the audio up to now."""
        return self.codec.columns(self._offset + self._held.shape[1])

    def _none(self) -> Tensor:
        shape = (self.batch, self.codec.rows, 0)
        return torch.zeros(shape, dtype=torch.int32, device=self.codec.device)


class WindowedDecoder:
    """A decoder that takes pieces of tokens and returns audio, a window at a time.

    Args:
        codec: a codec of the tokenizer that made the tokens.
        sample_rate: of the decoded audio in Hz.
        batch: clips of one length that are decoded together, such as the channels of a file.
    """

    def __init__(self, codec: BaseCodec, sample_rate: int, batch: int) -> None:
        self.codec, self.batch, self.sample_rate = codec, batch, sample_rate
        rate = codec.sample_rate
        self._resampler = Resampler(rate, sample_rate, batch) if sample_rate != rate else None
        self._tokens = torch.zeros(batch, codec.rows, 0, dtype=torch.int64)
        shape = (batch, codec.config.mel.n_mels, 0)
        self._mel = torch.zeros(shape, dtype=torch.float32, device=codec.device)
        self._first = 0  # the frame at which the mel that is held begins
        self._done = 0  # frames whose samples were returned
        self._made = 0  # samples that were returned, at the codec's rate
        self._given = 0  # and at `sample_rate`

    @torch.no_grad()
    def push(self, tokens: Tokens) -> Tensor:
        """Return the audio [batch, samples] that tokens [batch, rows, columns] complete."""
        piece = as_tokens(tokens).to("cpu", torch.int64)
        self.codec.codebook.check(piece)
        self._tokens = torch.cat((self._tokens, piece), dim=-1)
        length = self.codec.config.tokenizer.window_columns
        waves = [self._none()]
        while self._tokens.shape[-1] >= length + SHORTEST_WINDOW:
            waves.append(self._decoded(length))
        return self._emit(torch.cat(waves, dim=-1))

    @torch.no_grad()
    def flush(self, samples: int) -> Tensor:
        """Return the rest of the audio, [batch, samples], of a clip of `samples` samples."""
        made, given = self._made, self._given
        waves = [self._none()]
        if self._tokens.shape[-1]:
            waves.append(self._decoded(self._tokens.shape[-1]))
        waves.append(self._samples(self._first + self._mel.shape[-1]))
        whole = resampled_length(samples, self.sample_rate, self.codec.sample_rate)
        parts = [self._emit(torch.cat(waves, dim=-1)[:, : max(0, whole - made)])]
        if self._resampler is not None:
            parts.append(torch.from_numpy(self._resampler.flush()).to(parts[0]).clamp(-1, 1))
        return torch.cat(parts, dim=-1)[:, : max(0, samples - given)]

    @exact_float32()
    def _decoded(self, columns: int) -> Tensor:
        """Return the samples that the mel of the next window makes possible."""
        window, self._tokens = self._tokens[..., :columns], self._tokens[..., columns:]
        mel = self.codec.ln_mel_of(window.to(self.codec.device))
        self._mel = torch.cat((self._mel, mel), dim=-1)
        return self._samples(self._first + self._mel.shape[-1] - self.codec.vocoder.context)

    @exact_float32()
    def _samples(self, end: int) -> Tensor:
        """Return the samples of the frames from the last ones returned to frame `end`."""
        if end <= self._done:
            return self._none()
        hop, context = self.codec.config.mel.hop, self.codec.vocoder.context
        wave: Tensor = self.codec.vocoder(self._mel)
        begin = (self._done - self._first) * hop
        wave = wave[:, begin : (end - self._first) * hop].clamp(-1, 1)
        kept = max(self._first, end - context)
        self._mel = self._mel[..., kept - self._first :].clone()
        self._first, self._done = kept, end
        return wave

    def _emit(self, wave: Tensor) -> Tensor:
        self._made += wave.shape[1]
        if self._resampler is not None:
            made = self._resampler.push(wave.cpu().numpy())
            wave = torch.from_numpy(made).to(wave).clamp(-1, 1)
        self._given += wave.shape[1]
        return wave

    def _none(self) -> Tensor:
        return torch.zeros(self.batch, 0, dtype=torch.float32, device=self.codec.device)
