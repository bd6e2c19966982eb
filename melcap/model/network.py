"""The networks of a codec, and how they are run: chunk by chunk, in batches, with CUDA graphs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from melcap.config import CodecConfig
from melcap.errors import BackendError, InputError
from melcap.model.cuda_graphs import Graphs
from melcap.model.mel import LogMel
from melcap.model.quantizer import Codebook
from melcap.model.stages import Stage, inputs_for, outputs_of, run
from melcap.model.tokenizer import mel_decoder, mel_encoder
from melcap.model.tokenizer_id import tokenizer_id_of
from melcap.model.vocoder import vocoder
from melcap.ops.precision import exact_float32

Self = TypeVar("Self", bound="Network")

GPU_CHUNKS = 64
"""The most that a GPU computes at once, in chunks with their context, over all clips of a batch.

64 clips of up to a chunk (11.9 s for lite) are computed together: enough to keep a large GPU busy.
A CPU computes one chunk at a time, since the activations of several would not fit in its caches.
"""


class _Identity(NamedTuple):
    """A tokenizer's id, and the state of the tensors that it was computed from."""

    tensors: list[Tensor]
    state: list[tuple[int, int]] | None
    tokenizer_id: str


class Network(nn.Module):
    """Front end, encoder, codebook, mel decoder and vocoder of a codec.

    Args:
        config: every size of the codec.
        griffin_lim_steps: of the vocoder; None for those of the configuration.
    """

    silence: Tensor

    def __init__(self, config: CodecConfig, griffin_lim_steps: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.chunk_columns = 256
        self.front = LogMel(config.mel)
        self.encoder = mel_encoder(config)
        self.codebook = Codebook(config.tokenizer.codebook_size, config.tokenizer.codebook_dim)
        self.decoder = mel_decoder(config)
        self.vocoder = vocoder(config, griffin_lim_steps)
        self.register_buffer("silence", torch.zeros(config.rows, dtype=torch.int32))
        self._graphs: tuple[Graphs, Graphs] | None = None
        self._identity: _Identity | None = None

    @property
    def device(self) -> torch.device:
        return self.silence.device

    @property
    def encode_stages(self) -> list[Stage]:
        """From waves [B, samples] to latents [B, dim, rows, columns]."""
        return [self.front, *self.encoder]

    @property
    def decode_stages(self) -> list[Stage]:
        """From latents [B, dim, rows, columns] to waves [B, samples]."""
        return [*self.decoder, *self.vocoder]

    @property
    def tokenizer_id(self) -> str:
        """The tokenizer's id: codecs of the same id give and read the same tokens.

        It is that of the weights as they are now. A change in place that PyTorch does not count
        itself, through `tensor.data`, is not noticed.
        """
        tensors = [*self._tokenizer_tensors()]
        try:
            state = [(each._version, each.data_ptr()) for each in tensors]
        except RuntimeError:  # tensors that were made in inference mode count no changes
            state = None
        kept = self._identity
        # The tensors are kept, so that no other one can get the address of one of them.
        same = kept is not None and all(map(operator.is_, kept.tensors, tensors))
        if kept is None or state is None or not same or kept.state != state:
            encoder, vectors = self.encoder.state_dict(), self.codebook.vectors
            found = tokenizer_id_of(self.config, encoder, vectors)
            self._identity = kept = _Identity(tensors, state, found)
        return kept.tokenizer_id

    def _tokenizer_tensors(self) -> Iterator[Tensor]:
        """Yield what the tokenizer's id depends on; faster than `state_dict` by far."""
        modules: list[nn.Module] = [self.encoder, self.codebook]
        while modules:
            module = modules.pop()
            modules.extend(each for each in module._modules.values() if each is not None)
            yield from (each for each in module._parameters.values() if each is not None)
            yield from (each for each in module._buffers.values() if each is not None)

    @property
    def columns_at_once(self) -> int:
        """Columns that are computed together, over all clips: this bounds the memory."""
        return self.chunk_columns * (GPU_CHUNKS if self.device.type == "cuda" else 1)

    def use_graphs(self: Self, enabled: bool = True) -> Self:
        """Replay `encode` and `decode` from CUDA graphs, so that short clips do not wait for each
        launch; the same results. Returns the codec.

        Each shape is recorded when it first occurs. A batch has few shapes: the last chunk is
        filled up with silence to a power of two columns. A batch that `GPU_CHUNKS` cuts into pieces
        has the shapes of a whole piece and of the last, smaller one. The latter is not filled up:
        clips of silence would take as long as real ones.

        Weights may change in place; call it again where a module or a parameter was replaced. Not
        for several threads at a time. Streams, and backends other than triton, do without.

        Raises:
            BackendError: where the codec is not on a CUDA device.
        """
        if enabled and self.device.type != "cuda":
            raise BackendError(
                f"CUDA graphs need a codec on a CUDA device, this one is on {self.device}: "
                'melcap.load(device="cuda")'
            )
        watched = [*self.parameters(), *self.buffers()]
        self._graphs = (
            (Graphs(self._tokens_of, watched), Graphs(self._samples_of, watched))
            if enabled
            else None
        )
        return self

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # A probe, so that nothing has changed when this is refused.
        dtype = fn(torch.zeros(0, dtype=torch.float32, device=self.device)).dtype
        if dtype not in (torch.float32, torch.float64):
            raise InputError(
                "a codec computes in float32, which its tokens and phases need: it cannot be "
                f"{str(dtype).removeprefix('torch.')}"
            )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._graphs is not None:  # recorded where the weights were before
            self.use_graphs(self.device.type == "cuda")
        return self

    @torch.no_grad()
    @exact_float32()
    def learn_silence(self) -> None:
        """Set `silence` to the column of tokens that endless silence gives."""
        first, last = inputs_for(self.encode_stages, 0, 1)
        quiet = torch.zeros(1, last - first, dtype=torch.float32, device=self.device)
        self.silence.copy_(self.codebook.tokens(run(self.encode_stages, quiet))[0, :, 0])

    def _encode_clips(self, clips: Sequence[Tensor], longest: int) -> Tensor:
        """Clips [samples] at the codec's rate -> int32 [clips, rows, columns], of `longest` columns
        or more."""
        columns = self._filled_up(longest)
        tokens_of = self._graphs[0] if self._graphs else self._tokens_of
        shape = (len(clips), self.config.rows, columns)
        tokens = torch.empty(shape, dtype=torch.int32, device=self.device)
        for some, (begin, end), needed in self._pieces(self.encode_stages, columns, len(clips)):
            tokens[some, :, begin:end] = tokens_of(self._stretch(clips[some], *needed))
        return tokens

    def _stretch(self, clips: Sequence[Tensor], begin: int, end: int) -> Tensor:
        """Samples `begin` to `end` of each clip, [clips, end - begin], and silence around them."""
        shape = (len(clips), end - begin)
        signal = torch.zeros(shape, dtype=torch.float32, device=self.device)
        for row, clip in zip(signal, clips, strict=True):
            part = clip[max(begin, 0) : max(end, 0)].to(signal)
            start = max(-begin, 0)
            row[start : start + len(part)] = part.clamp(-1, 1)
        return signal

    def _decode_tokens(self, tokens: Tensor, longest: int) -> Tensor:
        """int [batch, rows, columns] -> [batch, longest], of the samples that the columns hold."""
        stages, unit = self.decode_stages, self.config.column_samples
        columns = self._filled_up(tokens.shape[-1])
        first, last = inputs_for(stages, 0, columns * unit)
        quiet = self.silence[None, :, None].expand(len(tokens), -1, -1)
        behind = quiet.expand(-1, -1, last - tokens.shape[-1])
        extended = torch.cat((quiet.expand(-1, -1, -first), tokens, behind), dim=-1)
        samples_of = self._graphs[1] if self._graphs else self._samples_of
        dtype = self.codebook.vectors.dtype
        wave = torch.empty(len(tokens), longest, dtype=dtype, device=self.device)
        for some, (begin, end), (needed, until) in self._pieces(stages, columns, len(tokens), unit):
            made = samples_of(extended[some, :, needed - first : until - first])
            given, _ = outputs_of(stages, needed, until)
            kept = wave[some, begin:end]  # of columns behind all clips nothing
            kept.copy_(made[:, begin - given :][:, : kept.shape[1]])
        return wave

    def _tokens_of(self, signal: Tensor) -> Tensor:
        """A chunk with its context [batch, samples] -> tokens [batch, rows, columns]."""
        return self.codebook.tokens(run(self.encode_stages, signal))

    def _samples_of(self, tokens: Tensor) -> Tensor:
        """A chunk with its context [batch, rows, columns] -> samples [batch, samples]."""
        return run(self.decode_stages, self.codebook.latents(tokens))

    def _filled_up(self, columns: int) -> int:
        """The columns that are computed: with graphs there must be few sizes of a last chunk."""
        rest = columns % self.chunk_columns
        if not self._graphs or not rest:
            return columns
        return columns - rest + (1 << (rest - 1).bit_length())

    def _pieces(
        self, stages: Sequence[Stage], columns: int, batch: int, unit: int = 1
    ) -> Iterator[tuple[slice, tuple[int, int], tuple[int, int]]]:
        """Yield what is computed at once: the clips, their output steps (`unit` for each column),
        and the input steps that these need.

        A GPU takes as many clips and columns as `GPU_CHUNKS` allows, because each piece costs the
        time of all its launches. With graphs it takes as many clips of one chunk, so that clips of
        any length have the same few shapes. A CPU takes a chunk of one clip, or as many short clips
        as make up a chunk.
        """
        if self.device.type == "cuda":
            at_once = self.chunk_columns * (1 if self._graphs else GPU_CHUNKS)
            most = GPU_CHUNKS * _field(stages, self.chunk_columns * unit)
            clips = most // _field(stages, min(columns, at_once) * unit)
        else:
            at_once = self.chunk_columns
            clips = max(1, at_once // columns)
        for one in range(0, batch, clips):
            for begin in range(0, columns, at_once):
                span = begin * unit, min(begin + at_once, columns) * unit
                yield slice(one, min(one + clips, batch)), span, inputs_for(stages, *span)

    def _silence_after(self, tokens: Tensor, counts: Sequence[int]) -> Tensor:
        """The same tokens with the column of silence behind each clip's own columns."""
        place = torch.arange(tokens.shape[-1], device=tokens.device)
        own = place < torch.tensor(counts, device=tokens.device)[:, None]
        return torch.where(own[:, None], tokens, self.silence[:, None].to(tokens.dtype))


def _field(stages: Sequence[Stage], outputs: int) -> int:
    """Return the number of input steps that so many output steps of a chain depend on."""
    first, last = inputs_for(stages, 0, outputs)
    return last - first
