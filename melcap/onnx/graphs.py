"""Encoding and decoding as two modules that pad their own input, ready to be exported."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from melcap.codec import Codec
from melcap.onnx.stages import make_portable
from melcap.stages import Chain, inputs_for, outputs_of, run


class Encoder(nn.Module):
    """float32 [batch, samples] -> int32 [batch, rows, ceil(samples / column_samples)]."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        codec = copy.deepcopy(codec)
        make_portable(codec)
        first, last = inputs_for(codec.encode_stages, 0, 1)
        self.stages = Chain(*codec.encode_stages)
        self.codebook = codec.codebook
        # as much as the last column needs behind the one sample that it may have begun with
        self.silence = (-first, last - 1)

    def forward(self, wave: Tensor) -> Tensor:
        signal = nn.functional.pad(wave.clamp(-1, 1), self.silence)
        return self.codebook.tokens(run(self.stages, signal))


class Decoder(nn.Module):
    """int32 [batch, rows, columns] -> float32 [batch, columns * column_samples] in -1..1."""

    before: Tensor
    after: Tensor

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        codec = copy.deepcopy(codec)
        make_portable(codec)
        stages, unit = codec.decode_stages, codec.config.column_samples
        first, last = inputs_for(stages, 0, unit)
        given, until = outputs_of(stages, first, last)
        self.stages = Chain(*stages)
        self.codebook = codec.codebook
        self.cut = slice(-given, unit - until or None)
        quiet = codec.silence[None, :, None]
        self.register_buffer("before", quiet.repeat(1, 1, -first))
        self.register_buffer("after", quiet.repeat(1, 1, last - 1))

    def forward(self, tokens: Tensor) -> Tensor:
        clips = tokens.shape[0]  # len() would make a constant of it
        around = (self.before.expand(clips, -1, -1), self.after.expand(clips, -1, -1))
        extended = torch.cat((around[0], tokens, around[1]), dim=-1)
        wave = run(self.stages, self.codebook.latents(extended))
        return wave[:, self.cut].clamp(-1, 1)
