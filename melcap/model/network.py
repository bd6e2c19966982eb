"""The networks of a codec, and the chunks, batches and CUDA graphs in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from melcap.config import CodecConfig
from melcap.errors import BackendError, InputError
from melcap.model.cuda_graphs import GraphedFunction
from melcap.model.mel import LogMel
from melcap.model.quality import Quality, griffin_lim_steps
from melcap.model.quantizer import Codebook
from melcap.model.stages import Stage, inputs_for, outputs_of, run
from melcap.model.tokenizer import mel_decoder, mel_encoder
from melcap.model.tokenizer_id import CachedTokenizerId
from melcap.model.vocoder import vocoder
from melcap.ops.precision import exact_float32

Self = TypeVar("Self", bound="Network")

UNTRAINED = "untrained"
"""The model name of weights that are in no file."""

GPU_CHUNKS = 64
"""The most chunks, with their context, that a GPU computes at once, over all clips of a batch.

64 clips of up to a chunk (11.9 s for lite) are computed together, which keeps a large GPU busy. A
CPU computes one chunk at a time, because the activations of several would not fit in its caches.
"""


class Network(nn.Module):
    """The front end, encoder, codebook, mel decoder and vocoder of a codec.

    Args:
        config: every size of the codec.
        model: name and hash of the weights.
        quality: the quality of decoding, which sets the number of Griffin-Lim steps.

    Attributes:
        chunk_columns: columns of a chunk. A larger chunk computes less context twice and takes more
            memory.
        silence: the silence column, int32 [rows].
    """

    silence: Tensor

    def __init__(
        self, config: CodecConfig, model: str = UNTRAINED, quality: Quality = "default"
    ) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.quality = quality
        self.chunk_columns = 256
        self.front = LogMel(config.mel)
        self.encoder = mel_encoder(config)
        self.codebook = Codebook(config.tokenizer.codebook_size, config.tokenizer.codebook_dim)
        self.decoder = mel_decoder(config)
        self.vocoder = vocoder(config, griffin_lim_steps(config, quality))
        self.register_buffer("silence", torch.zeros(config.rows, dtype=torch.int32))
        self._graphs: tuple[GraphedFunction, GraphedFunction] | None = None
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
        return self._cached_id.of(self.config, self.encoder, self.codebook.vectors)

    @property
    def columns_at_once(self) -> int:
        """Return how many columns are computed together over all clips, which bounds the memory."""
        return self.chunk_columns * (GPU_CHUNKS if self.device.type == "cuda" else 1)

    def use_graphs(self: Self, enabled: bool = True) -> Self:
        """Capture `encode` and `decode` as CUDA graphs, and return the codec.

        For single short clips, kernel launch overhead dominates, and graphs remove most of it. The
        results are the same.

        A graph is captured when a shape first occurs. To keep the shapes few, the last chunk is
        padded with silence to a power of two columns. A batch that is too large for `GPU_CHUNKS` is
        cut into pieces, and its last, smaller piece is another shape. It is not padded with clips
        of silence, which would take as long as real ones.

        Weights may change in place. Call `use_graphs` again after you have replaced a module or a
        parameter. A codec with graphs serves one thread at a time. Streams, and backends other than
        triton, do not use graphs.

        Args:
            enabled: False switches graphs off.

        Raises:
            BackendError: if the codec is not on a CUDA device.
        """
        if enabled and self.device.type != "cuda":
            raise BackendError(
                f"CUDA graphs need a codec on a CUDA device, this one is on {self.device}: "
                'melcap.load(device="cuda")'
            )
        watched = [*self.parameters(), *self.buffers()]
        self._graphs = (
            (GraphedFunction(self._tokens_of, watched), GraphedFunction(self._samples_of, watched))
            if enabled
            else None
        )
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
        if self._graphs is not None:  # captured with the weights at their former addresses
            self.use_graphs(self.device.type == "cuda")
        return self

    @torch.no_grad()
    @exact_float32()
    def learn_silence(self) -> None:
        """Set `silence` to the silence column, the tokens of one column of endless silence."""
        first, last = inputs_for(self.encode_stages, 0, 1)
        signal = torch.zeros(1, last - first, dtype=torch.float32, device=self.device)
        self.silence.copy_(self.codebook.tokens(run(self.encode_stages, signal))[0, :, 0])

    def _encode_clips(self, clips: Sequence[Tensor], columns: Sequence[int]) -> Tensor:
        """Return the tokens of clips, int32 [clips, rows, columns of the longest].

        Args:
            clips: floating point [samples] each, at the codec's rate.
            columns: the columns of each clip.
        """
        computed = self._columns_to_compute(max(columns))
        tokens_of = self._graphs[0] if self._graphs else self._tokens_of
        shape = (len(clips), self.config.rows, computed)
        tokens = torch.empty(shape, dtype=torch.int32, device=self.device)
        for some, (begin, end), inputs in self._pieces(self.encode_stages, computed, len(clips)):
            tokens[some, :, begin:end] = tokens_of(self._excerpt(clips[some], *inputs))
        return tokens[..., : max(columns)]

    def _excerpt(self, clips: Sequence[Tensor], begin: int, end: int) -> Tensor:
        """Return samples `begin` to `end` of clips, float32 [clips, end - begin].

        Samples before the beginning or after the end of a clip are zero.
        """
        shape = (len(clips), end - begin)
        signal = torch.zeros(shape, dtype=torch.float32, device=self.device)
        for row, clip in zip(signal, clips, strict=True):
            part = clip[max(begin, 0) : max(end, 0)].to(signal)
            start = max(-begin, 0)
            row[start : start + len(part)] = part.clamp(-1, 1)
        return signal

    def _decode_grid(self, tokens: Tensor, columns: Sequence[int], samples: int) -> Tensor:
        """Return the first samples [clips, samples] of integer tokens [clips, rows, columns].

        Tokens after a clip's own `columns` are those of silence.
        """
        stages, unit = self.decode_stages, self.config.column_samples
        count = self._columns_to_compute(tokens.shape[-1])
        first, last = inputs_for(stages, 0, count * unit)
        silence = self.silence[None, :, None].expand(len(tokens), -1, -1)
        before = silence.expand(-1, -1, -first)
        after = silence.expand(-1, -1, last - tokens.shape[-1])
        extended = torch.cat((before, tokens, after), dim=-1)
        samples_of = self._graphs[1] if self._graphs else self._samples_of
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

    def _columns_to_compute(self, columns: int) -> int:
        """Return `columns`, or with graphs more, so that the last chunk has one of few sizes."""
        rest = columns % self.chunk_columns
        if not self._graphs or not rest:
            return columns
        return columns - rest + (1 << (rest - 1).bit_length())

    def _pieces(
        self, stages: Sequence[Stage], columns: int, batch: int, unit: int = 1
    ) -> Iterator[tuple[slice, tuple[int, int], tuple[int, int]]]:
        """Yield pieces of work: clips, their output steps, and the input steps that these need.

        On a GPU a piece has as many clips and columns as `GPU_CHUNKS` allows, because every piece
        costs the time of all kernel launches. With graphs it has one chunk of that many clips, so
        that clips of any length have the same few shapes. On a CPU it is a chunk of one clip, or as
        many short clips as make up a chunk.

        Args:
            stages: the chain.
            columns: columns of the longest clip.
            batch: number of clips.
            unit: output steps of a column.
        """
        if self.device.type == "cuda":
            at_once = self.chunk_columns * (1 if self._graphs else GPU_CHUNKS)
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
