"""Build encoding and decoding as chains of modules that pad their own input, ready to be exported.

Each module is exported by itself, because an export spends most of its time on tracing with
symbolic sizes. So a Griffin-Lim step, of which the decoder has many, is traced once, and the sizes
inside a module do not contain the arithmetic of the modules before it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from melcap.codec import Codec
from melcap.model.griffin_lim import GriffinLim
from melcap.model.stages import Chain, Stage, inputs_for, outputs_of, run
from melcap.onnx.stages import make_portable
from melcap.ops.griffin_lim.portable import FirstState, GriffinLimStep


class Part(NamedTuple):
    """A module of a graph, which runs `times` times, each time on its own last output.

    It takes tensors [batch, ..., time] and returns a tuple of such tensors.
    """

    module: nn.Module
    times: int = 1


def encoder_parts(codec: Codec) -> list[Part]:
    """Return the parts from float32 [batch, samples] to int32 [batch, rows, columns].

    Columns are ceil(samples / column_samples).
    """
    codec = copy.deepcopy(codec)
    make_portable(codec)
    return [Part(_ToMel(codec)), Part(_ToTokens(codec))]


def decoder_parts(codec: Codec) -> list[Part]:
    """Return the parts from int32 [batch, rows, columns] to float32 [batch, samples] in -1..1.

    Samples are columns * column_samples.
    """
    codec = copy.deepcopy(codec)
    make_portable(codec)
    stages = codec.decode_stages
    iterative = [stage for stage in stages if isinstance(stage, GriffinLim)]
    if not iterative:
        return [Part(_FromTokens(codec, stages, _ToWave(codec, [])))]
    first, begin = iterative[0], stages.index(iterative[0])
    end = begin + len(iterative)
    step = GriffinLimStep(first.n_fft, first.hop, first.momentum)
    return [
        Part(_FromTokens(codec, stages[:begin], FirstState(first.n_fft, first.hop))),
        Part(step, sum(stage.steps for stage in iterative)),
        Part(_ToWave(codec, stages[end:])),
    ]


class _ToMel(nn.Module):
    """The log-mel of waves, with the silence around them that the encoder needs."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        first, last = inputs_for(codec.encode_stages, 0, 1)
        # The last column may hold one sample only; it needs this much silence after that sample.
        self.silence = (-first, last - 1)
        self.front = codec.front

    def forward(self, wave: Tensor) -> tuple[Tensor]:
        return (self.front(nn.functional.pad(wave.clamp(-1, 1), self.silence)),)


class _ToTokens(nn.Module):
    """The encoder and the search in the codebook."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.stages = codec.encoder
        self.codebook = codec.codebook

    def forward(self, mel: Tensor) -> tuple[Tensor]:
        return (self.codebook.tokens(run(self.stages, mel)),)


class _FromTokens(nn.Module):
    """The first stages of the decoder, on tokens with columns of silence around them."""

    before: Tensor
    after: Tensor

    def __init__(self, codec: Codec, stages: Sequence[Stage], end: nn.Module) -> None:
        super().__init__()
        self.stages, self.end = Chain(*stages), end
        self.codebook = codec.codebook
        first, last = inputs_for(codec.decode_stages, 0, codec.config.column_samples)
        silence = codec.silence[None, :, None]
        self.register_buffer("before", silence.repeat(1, 1, -first))
        self.register_buffer("after", silence.repeat(1, 1, last - 1))

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        clips = tokens.shape[0]  # len() would make a constant of it
        before, after = self.before.expand(clips, -1, -1), self.after.expand(clips, -1, -1)
        latents = self.codebook.latents(torch.cat((before, tokens, after), dim=-1))
        state: tuple[Tensor, ...] = self.end(run(self.stages, latents))
        return state


class _ToWave(nn.Module):
    """The last stages of the decoder, which also cut off the silence around the columns.

    Of the state of the Griffin-Lim steps, only the wave is used.
    """

    def __init__(self, codec: Codec, stages: Sequence[Stage]) -> None:
        super().__init__()
        unit = codec.config.column_samples
        first, last = inputs_for(codec.decode_stages, 0, unit)
        given, until = outputs_of(codec.decode_stages, first, last)
        self.cut = slice(-given, unit - until or None)
        self.stages = Chain(*stages)

    def forward(
        self, wave: Tensor, before: Tensor | None = None, wanted: Tensor | None = None
    ) -> tuple[Tensor]:
        return (run(self.stages, wave)[:, self.cut].clamp(-1, 1),)
