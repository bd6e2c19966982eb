"""The networks of a codec, and the chunks, batches and CUDA graphs in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from melcap.config import CodecConfig
from melcap.errors import BackendError, InputError
from melcap.inputs import on_device
from melcap.model.cpu_memory import keep_freed_memory
from melcap.model.cuda_graphs import GraphedFunction
from melcap.model.mel import LogMel
from melcap.model.quality import Quality, griffin_lim_steps
from melcap.model.quantizer import Codebook
from melcap.model.stages import Stage, inputs_for, outputs_of, run
from melcap.model.tokenizer import mel_decoder, mel_encoder
from melcap.model.tokenizer_id import CachedTokenizerId
from melcap.model.vocoder import vocoder
from melcap.ops import registry
from melcap.ops.precision import exact_float32

Self = TypeVar("Self", bound="Network")

UNTRAINED = "untrained"
"""The model name of weights that are in no file."""

CHUNK_SAMPLES = 1 << 19
"""Samples in a chunk, 11.9 s at 44.1 kHz, unless a codec is told otherwise.

Memory and the share of context go by samples, and not by columns, which some codecs have longer.
"""

GPU_CHUNKS = 64
"""The most chunks, with their context, that a GPU computes at once, over all clips of a batch.

64 clips of up to a chunk are computed together, which keeps a large GPU busy. A
CPU computes one chunk at a time, because the activations of several would not fit in its caches.
"""

GRAPH_COLUMNS = 1024
"""The most columns, over all clips of a batch, that run as a CUDA graph.

A GPU computes more of them for longer than the host takes to launch the kernels.
"""


class Graphs(NamedTuple):
    """The CUDA graphs of a codec, for both ways."""

    encode: GraphedFunction[Network]
    decode: GraphedFunction[Network]

    @staticmethod
    def none_yet(required: bool = False) -> Graphs:
        """Return the graphs of a codec before any is recorded; see `GraphedFunction`."""
        return Graphs(
            GraphedFunction(Network._tokens_of, ("front", "encoder", "codebook"), required),
            GraphedFunction(Network._samples_of, ("codebook", "decoder", "vocoder"), required),
        )


class Network(nn.Module):
    """The front end, encoder, codebook, mel decoder and vocoder of a codec.

    Args:
        config: every size of the codec.
        model: name and hash of the weights.
        quality: the quality of decoding, which sets the number of Griffin-Lim steps.

    Attributes:
        chunk_columns: columns of a chunk, at first those of `CHUNK_SAMPLES`. A larger chunk
            computes less context twice and takes more memory.
        silence: the silence column, int32 [rows].
    """

    silence: Tensor

    def __init__(
        self, config: CodecConfig, model: str = UNTRAINED, quality: Quality = "default"
    ) -> None:
        super().__init__()
        keep_freed_memory()
        self.config = config
        self.model = model
        self.quality = quality
        self.chunk_columns = max(1, CHUNK_SAMPLES // config.column_samples)
        self.front = LogMel(config.mel)
        self.encoder = mel_encoder(config)
        self.codebook = Codebook(config.tokenizer.codebook_size, config.tokenizer.codebook_dim)
        self.decoder = mel_decoder(config)
        self.vocoder = vocoder(config, griffin_lim_steps(config, quality))
        self.register_buffer("silence", torch.zeros(config.rows, dtype=torch.int32))
        self._graphs: Graphs | None = Graphs.none_yet()
        self._cached_id = CachedTokenizerId()

    @property
    def device(self) -> torch.device:
        """Return the device that the weights are on."""
        return self.silence.device

    @property
    def encode_stages(self) -> list[Stage]:
        """Return the stages from waves [B, samples] to latents [B, dim, rows, columns]."""
        return [self.front, *self.encoder]

    @property
    def decode_stages(self) -> list[Stage]:
        """Return the stages from latents [B, dim, rows, columns] to waves [B, samples]."""
        return [*self.decoder, *self.vocoder]

    @property
    def tokenizer_id(self) -> str:
        """Return the tokenizer's id; codecs of the same id write and read the same tokens.

        The id follows changes of the weights, except changes in place through `tensor.data`, which
        PyTorch does not count.
        """
        return self._cached_id.of(self.config, self.encoder, self.codebook)

    @property
    def columns_at_once(self) -> int:
        """Return how many columns are computed together over all clips, which bounds the memory."""
        return self.chunk_columns * (GPU_CHUNKS if self.device.type == "cuda" else 1)

    @property
    def uses_graphs(self) -> bool:
        """Return whether short inputs run as CUDA graphs, on the backend that is in force here."""
        graphs = self._graphs
        return (
            self.device.type == "cuda"
            and graphs is not None
            and not any(way.failed for way in graphs)
            and self.codebook.vectors.dtype == torch.float32
            and registry.choose("cuda") == "triton"
        )

    def use_graphs(self: Self, enabled: bool = True) -> Self:
        """Switch CUDA graphs off, or require them, and return the codec.

        For short inputs, kernel launch overhead dominates, and graphs remove most of it. On a CUDA
        device with the triton backend they are used without a call of this method, for inputs of
        up to 1024 columns over all clips (lite: 47 s). Streams do not use them.

        A shape runs without a graph at its first use. It is recorded at its second, which takes a
        few times as long, and replayed from then on. To keep the shapes few, clips are filled up
        with silence to a multiple of 8 columns (of 32 above 64), which is computed and cut off. The
        results are the same.

        Where a graph cannot be recorded, a warning with the reason is logged once, and the codec
        runs without graphs from then on. After `use_graphs()` it is an error.

        Threads may share a codec, and weights may change. Call `use_graphs` again after you have
        changed anything else in a module, such as a number of steps. While a graph is recorded,
        CUDA allows no other thread to wait for the whole device, as `torch.cuda.synchronize` does.
        Switch graphs off in programs with such threads.

        Args:
            enabled: False switches graphs off, until the next call.

        Raises:
            BackendError: if the codec is not on a CUDA device.
        """
        if enabled and self.device.type != "cuda":
            raise BackendError(
                f"CUDA graphs need a codec on a CUDA device, this one is on {self.device}: "
                'melcap.load(device="cuda")'
            )
        self._graphs = Graphs.none_yet(required=True) if enabled else None
        return self

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # `fn` is tried on an empty tensor first, so that a refusal leaves the codec unchanged.
        dtype = fn(torch.zeros(0, dtype=torch.float32, device=self.device)).dtype
        if dtype not in (torch.float32, torch.float64):
            raise InputError(
                "a codec computes in float32, which its tokens and phases need: it cannot be "
                f"{str(dtype).removeprefix('torch.')}"
            )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._graphs is not None:  # recorded with the weights at their former addresses
            self._graphs = Graphs.none_yet(self._graphs.encode.required)
        return self

    @torch.no_grad()
    @exact_float32()
    def learn_silence(self) -> None:
        """Set `silence` to the silence column, the tokens of one column of endless silence."""
        first, last = inputs_for(self.encode_stages, 0, 1)
        signal = torch.zeros(1, last - first, dtype=torch.float32, device=self.device)
        self.silence.copy_(self.codebook.tokens(run(self.encode_stages, signal))[0, :, 0])

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
        computed, tokens_of = max(columns), self._tokens_of
        if graphs := self._graphs_for(len(batch), computed):
            computed, tokens_of = filled(computed), partial(graphs.encode, self)
        shape = (len(batch), self.config.rows, computed)
        tokens = torch.empty(shape, dtype=torch.int32, device=self.device)
        for some, (begin, end), inputs in self._pieces(self.encode_stages, computed, len(batch)):
            signal = self._excerpt(batch[some], lengths[some], *inputs)
            tokens[some, :, begin:end] = tokens_of(signal)
        return tokens[..., : max(columns)].contiguous()

    def _excerpt(self, batch: Tensor, lengths: Sequence[int], begin: int, end: int) -> Tensor:
        """Return samples `begin` to `end` of clips, float32 [clips, end - begin].

        Samples before the beginning or after the end of a clip are zero. All clips are taken at
        once, because a GPU waits for the host where each has operations of its own.
        """
        shape = (len(batch), end - begin)
        signal = torch.zeros(shape, dtype=torch.float32, device=self.device)
        part = batch[:, max(begin, 0) : max(end, 0)].to(signal)
        start = max(-begin, 0)
        torch.clamp(part, -1, 1, out=signal[:, start : start + part.shape[1]])
        if min(lengths) < min(end, batch.shape[1]):
            sample = torch.arange(begin, end, device=self.device)
            signal.masked_fill_(sample >= on_device(lengths, self.device)[:, None], 0)
        return signal

    def _decode_grid(self, tokens: Tensor, columns: Sequence[int], samples: int) -> Tensor:
        """Return the first samples [clips, samples] of integer tokens [clips, rows, columns].

        Tokens after a clip's own `columns` are those of silence.
        """
        stages, unit = self.decode_stages, self.config.column_samples
        count, samples_of = tokens.shape[-1], self._samples_of
        if graphs := self._graphs_for(len(tokens), count):
            count, samples_of = filled(count), partial(graphs.decode, self)
        first, last = inputs_for(stages, 0, count * unit)
        silence = self.silence[None, :, None].expand(len(tokens), -1, -1)
        before = silence.expand(-1, -1, -first)
        after = silence.expand(-1, -1, last - tokens.shape[-1])
        extended = torch.cat((before, tokens, after), dim=-1)
        dtype = self.codebook.vectors.dtype
        wave = torch.empty(len(tokens), samples, dtype=dtype, device=self.device)
        for some, (begin, end), inputs in self._pieces(stages, count, len(tokens), unit):
            computed = samples_of(extended[some, :, inputs[0] - first : inputs[1] - first])
            computed_from, _ = outputs_of(stages, *inputs)
            target = wave[some, begin:end]  # empty for columns after the longest clip
            target.copy_(computed[:, begin - computed_from :][:, : target.shape[1]])
        return wave

    def _tokens_of(self, signal: Tensor) -> Tensor:
        """Return the tokens [batch, rows, columns] of a chunk with its context [batch, samples]."""
        return self.codebook.tokens(run(self.encode_stages, signal))

    def _samples_of(self, tokens: Tensor) -> Tensor:
        """Return the samples [batch, samples] of a chunk with its context, given as tokens."""
        return run(self.decode_stages, self.codebook.latents(tokens))

    def _graphs_for(self, clips: int, columns: int) -> Graphs | None:
        """Return the graphs for a batch of so many clips and columns; None where it has none."""
        short = clips * filled(columns) <= GRAPH_COLUMNS
        return self._graphs if short and self.uses_graphs else None

    def _pieces(
        self, stages: Sequence[Stage], columns: int, batch: int, unit: int = 1
    ) -> Iterator[tuple[slice, tuple[int, int], tuple[int, int]]]:
        """Yield pieces of work: clips, their output steps, and the input steps that these need.

        On a GPU a piece has as many clips and columns as `GPU_CHUNKS` allows, because every piece
        costs the time of all kernel launches. On a CPU it is a chunk of one clip, or as many short
        clips as make up a chunk.

        Args:
            stages: the chain.
            columns: columns of the longest clip.
            batch: number of clips.
            unit: output steps of a column.
        """
        if self.device.type == "cuda":
            at_once = self.chunk_columns * GPU_CHUNKS
            most = GPU_CHUNKS * _inputs_of(stages, self.chunk_columns * unit)
            clips = most // _inputs_of(stages, min(columns, at_once) * unit)
        else:
            at_once = self.chunk_columns
            clips = max(1, at_once // columns)
        for clip in range(0, batch, clips):
            for begin in range(0, columns, at_once):
                outputs = begin * unit, min(begin + at_once, columns) * unit
                yield slice(clip, min(clip + clips, batch)), outputs, inputs_for(stages, *outputs)


def _inputs_of(stages: Sequence[Stage], outputs: int) -> int:
    """Return the number of input steps that `outputs` output steps of a chain depend on."""
    first, last = inputs_for(stages, 0, outputs)
    return last - first


def filled(columns: int) -> int:
    """Return how many columns are computed for so many, if graphs are to have few shapes."""
    step = 8 if columns <= 64 else 32
    return -(-columns // step) * step
