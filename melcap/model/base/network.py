"""The networks of a codec of the published architecture, and the windows in which they run."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from melcap.config import BaseConfig
from melcap.config.base import SHORTEST_WINDOW
from melcap.model.base.tokenizer import Encoder, MelDecoder
from melcap.model.base.vocoder import Vocoder
from melcap.model.base.windows import Window, signal_of, windows_of
from melcap.model.network import UNTRAINED
from melcap.model.quantizer import Codebook
from melcap.model.tokenizer_id import CachedTokenizerId
from melcap.ops import log_mel
from melcap.ops.precision import exact_float32

Item = TypeVar("Item")

GPU_WINDOWS = 16
"""The most windows that a GPU computes at once. A CPU computes one."""


class BaseNetwork(nn.Module):
    """The front end, encoder, codebook, mel decoder and vocoder of the published architecture.

    A clip is coded in windows of `window_columns` columns. Windows of one length form a batch; they
    are never padded, because norms and attention would take the padding into account.

    Args:
        config: every size of the codec.
        model: name and hash of the weights.

    Attributes:
        silence: the silence column, int32 [rows], from the middle of a short window of zeros.
    """

    silence: Tensor

    def __init__(self, config: BaseConfig, model: str = UNTRAINED) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.encoder = Encoder(config.tokenizer)
        self.codebook = Codebook(config.tokenizer.codebook_size, config.tokenizer.codebook_dim)
        self.decoder = MelDecoder(config.tokenizer)
        self.vocoder = Vocoder(config.vocoder, config.mel)
        self.register_buffer("silence", torch.zeros(config.rows, dtype=torch.int32))
        self._cached_id = CachedTokenizerId()

    @property
    def device(self) -> torch.device:
        """Return the device that the weights are on."""
        return self.silence.device

    @property
    def windows_at_once(self) -> int:
        """Return the most windows that are computed at once on this device."""
        return GPU_WINDOWS if self.device.type == "cuda" else 1

    @property
    def tokenizer_id(self) -> str:
        """Return the tokenizer's id; codecs of the same id write and read the same tokens."""
        return self._cached_id.of(self.config, self.encoder, self.codebook)

    @torch.no_grad()
    @exact_float32()
    def learn_silence(self) -> None:
        """Set `silence` to the tokens in the middle of the shortest window, of zeros."""
        columns = SHORTEST_WINDOW
        zeros = np.zeros((1, columns * self.config.column_samples), np.float32)
        signal = signal_of(self.config, zeros, 0, zeros.shape[1], (0, columns))
        tokens = self.tokens_of(torch.from_numpy(signal))
        self.silence.copy_(tokens[0, :, columns // 2])

    def tokens_of(self, signals: Tensor) -> Tensor:
        """Return the tokens [batch, rows, columns] of windows, given as by `signal_of`."""
        mel = log_mel(signals.to(self.device), self.config.mel, padding=(0, 0))
        return self.codebook.tokens(self.encoder(mel))

    def ln_mel_of(self, tokens: Tensor) -> Tensor:
        """Return the ln-mel [batch, n_mels, frames] of windows of tokens, for the vocoder."""
        mel = self.config.mel
        decoded: Tensor = self.decoder(self.codebook.latents(tokens))
        return (decoded * mel.std + mel.mean).clamp(min=math.log(mel.floor))

    def samples_of(self, mel: Tensor, window: Window) -> Tensor:
        """Return the samples of a window, [samples], from a clip's ln-mel [n_mels, frames].

        The vocoder runs across the ends of windows: it is given its context on both sides.
        """
        per_column = self.config.tokenizer.patch_frames
        first, last = window[0] * per_column, window[1] * per_column
        begin, end = max(0, first - self.vocoder.context), last + self.vocoder.context
        wave = self.vocoder(mel[None, :, begin:end])[0]
        hop = self.config.mel.hop
        samples: Tensor = wave[(first - begin) * hop : (last - begin) * hop]
        return samples

    def _encode_clips(
        self, batch: Tensor, lengths: Sequence[int], columns: Sequence[int]
    ) -> Tensor:
        """Return the tokens of clips, int32 [clips, rows, columns of the longest].

        Args:
            batch: floating point [clips, samples], at the codec's rate.
            lengths: the samples of each clip.
            columns: the columns of each clip.
        """
        batch = batch.detach().cpu()
        shape = (len(batch), self.config.rows, max(columns))
        tokens = torch.zeros(shape, dtype=torch.int32, device=self.device)
        for windows in self._batches(columns):
            signals = []
            for clip, window in windows:
                length = lengths[clip]
                samples = batch[clip, :length].float().clamp(-1, 1).numpy()
                signals.append(signal_of(self.config, samples, 0, length, window))
            found = self.tokens_of(torch.from_numpy(np.stack(signals)))
            for (clip, (begin, end)), of_window in zip(windows, found, strict=True):
                tokens[clip, :, begin:end] = of_window
        return tokens

    def _decode_grid(self, tokens: Tensor, columns: Sequence[int], samples: int) -> Tensor:
        """Return the first samples [clips, samples] of integer tokens [clips, rows, columns]."""
        per_column, unit = self.config.tokenizer.patch_frames, self.config.column_samples
        shape = (len(tokens), self.config.mel.n_mels, per_column * max(columns))
        mels = torch.zeros(shape, dtype=torch.float32, device=self.device)
        for batch in self._batches(columns):
            grid = torch.stack([tokens[clip, :, begin:end] for clip, (begin, end) in batch])
            for (clip, (begin, end)), mel in zip(batch, self.ln_mel_of(grid), strict=True):
                mels[clip, :, begin * per_column : end * per_column] = mel
        wave = torch.zeros(len(tokens), samples, dtype=torch.float32, device=self.device)
        for clip, count in enumerate(columns):
            mel = mels[clip, :, : count * per_column]
            for window in windows_of(count, self.config.tokenizer.window_columns):
                target = wave[clip, window[0] * unit : window[1] * unit]
                target.copy_(self.samples_of(mel, window)[: len(target)])
        return wave

    def _batches(self, columns: Sequence[int]) -> Iterator[list[tuple[int, Window]]]:
        """Yield the windows of all clips in batches of one length, each with its clip's number."""
        same: dict[int, list[tuple[int, Window]]] = defaultdict(list)
        for clip, count in enumerate(columns):
            for window in windows_of(count, self.config.tokenizer.window_columns):
                same[window[1] - window[0]].append((clip, window))
        most = self.windows_at_once
        for found in same.values():
            yield from (found[begin : begin + most] for begin in range(0, len(found), most))
