"""A small language model of tokens, which measures how predictable they are."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from melcap.audio_codec import AudioCodec
from melcap.errors import InputError, WeightsError
from melcap.inputs import Tokens, as_tokens, described
from melcap.io.files import replacing, require_regular
from melcap.io.weights_file import check_finite, halved
from melcap.lm.context_model_config import ContextModelConfig
from melcap.lm.two_level_softmax import TwoLevelSoftmax

PIECE_COLUMNS = 2048
"""Columns that `bits_of_clip` computes at once, 95 s for lite."""


class ContextModel(nn.Module):
    """A model that predicts each token from the lower rows of its column and earlier columns.

    Tokens enter as their codebook entries. Causal convolutions over whole columns summarise the
    columns before, so they run once per column and not once per token. The model is for
    measurements. After minutes of training it generates texture, but no words or melodies.

    Args:
        config: sizes.
        tokenizer_id: the tokenizer whose tokens it reads.
        vectors: float [codebook size, dim], the codebook. None is for a model whose weights are
            loaded afterwards.
        training: settings of the training run; they are saved with the weights.

    Example:
        >>> import melcap, torch
        >>> from melcap.lm import ContextModel
        >>> codec = melcap.load()
        >>> model = ContextModel.of(codec)
        >>> model.bits(torch.zeros(1, codec.rows, 5, dtype=torch.int64)).shape
        torch.Size([1, 12, 5])
    """

    vectors: Tensor
    lower_rows: Tensor

    def __init__(
        self,
        config: ContextModelConfig,
        tokenizer_id: str,
        vectors: Tensor | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.tokenizer_id = config, tokenizer_id
        self.training_settings = dict(training or {})
        rows, dim, width, history = config.rows, config.dim, config.width, config.history_width
        if vectors is None:
            vectors = torch.zeros(config.codebook_size, dim)
        vectors = vectors.detach().to("cpu", torch.float32)
        vectors = vectors - vectors.mean(dim=0)
        vectors = vectors / vectors.std().clamp(min=1e-9)
        self.register_buffer("vectors", vectors)
        self.enter = nn.Linear(rows * dim, history)
        self.layers = nn.ModuleList(
            CausalLayer(history, config.kernel, dilation) for dilation in config.dilations
        )
        self.from_history = nn.Linear(history, rows * width)
        self.from_column = nn.Linear(rows * dim, rows * width, bias=False)
        # [rows * width, rows * dim]: a row depends on the rows below it, and on none above
        lower_rows = torch.ones(rows, rows).tril(-1)
        lower_rows = lower_rows.repeat_interleave(width, 0).repeat_interleave(dim, 1)
        self.register_buffer("lower_rows", lower_rows, persistent=False)
        self.mix = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.norm = nn.LayerNorm(width)
        self.softmax = TwoLevelSoftmax(vectors, width, config.classes, config.rank)

    @classmethod
    def of(cls, codec: AudioCodec, **sizes: Any) -> ContextModel:
        """Return an untrained model of a codec's tokens.

        Args:
            codec: the codec that makes the tokens.
            **sizes: fields of `ContextModelConfig` other than the codec's own.

        Raises:
            InputError: for a size below 1, or classes that do not divide the codebook.
        """
        vectors = codec.codebook.vectors
        size, dim = vectors.shape
        sizes = {"classes": math.gcd(size, 128)} | sizes
        config = ContextModelConfig(codec.rows, dim, size, **sizes)
        return cls(config, codec.tokenizer_id, vectors)

    def bits(self, tokens: Tokens) -> Tensor:
        """Return the bits that each token costs under the model: -log2 of its probability.

        The mean over all tokens is the cross entropy, the loss in training. Nothing comes before
        the first column of a sequence.

        Args:
            tokens: integers [batch, rows, columns], as in `Codes.tokens`.

        Returns:
            float32 [batch, rows, columns].

        Raises:
            InputError: for another number of rows, or tokens outside the codebook.

        Example:
            >>> import melcap, torch
            >>> from melcap.lm import ContextModel
            >>> codec = melcap.load()
            >>> tokens = codec.encode(torch.zeros(1, 44100), 44100).tokens
            >>> ContextModel.of(codec).bits(tokens).shape
            torch.Size([1, 12, 22])
        """
        grid = self._checked(tokens).mT  # [batch, columns, rows]
        if not grid.numel():
            return grid.mT.float()
        column = self.vectors[grid].flatten(2)
        before = pad(column, (0, 0, 1, 0))[:, :-1]
        hidden = self.from_history(self._history(before))
        hidden = hidden + nn.functional.linear(column, self.from_column.weight * self.lower_rows)
        hidden = self._mixed(hidden.unflatten(2, (self.config.rows, -1)))
        nats = self.softmax(hidden.flatten(0, 2), grid.flatten())
        return nats.view(grid.shape).mT / math.log(2)

    @torch.no_grad()
    def bits_of_clip(self, tokens: Tokens) -> Tensor:
        """Return `bits` of a clip of any length, computed in pieces to bound the memory.

        Args:
            tokens: integers [rows, columns].

        Returns:
            float32 [rows, columns], on the CPU.

        Raises:
            InputError: for another number of rows, or tokens outside the codebook.
        """
        grid = self._checked(as_tokens(tokens)[None])
        pieces = [torch.zeros(self.config.rows, 0)]
        for begin in range(0, grid.shape[2], PIECE_COLUMNS):
            first = max(0, begin - self.config.context)
            piece = self.bits(grid[:, :, first : begin + PIECE_COLUMNS])[0, :, begin - first :]
            pieces.append(piece.float().cpu())
        return torch.cat(pieces, dim=1)

    @torch.no_grad()
    def generate(
        self,
        tokens: Tokens,
        columns: int,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return tokens followed by columns that are sampled from the model.

        Args:
            tokens: integers [batch, rows, columns], the prompt; there may be no columns.
            columns: number of columns to add.
            temperature: below 1 for more probable tokens; 0 for the most probable ones.
            generator: the source of random numbers.

        Returns:
            int64 [batch, rows, columns before + `columns`].

        Raises:
            InputError: for another number of rows, tokens outside the codebook, or a temperature
                below 0.
        """
        if not temperature >= 0:
            raise InputError(f"temperature must be 0 or more, not {temperature}")
        grid = self._checked(tokens).mT
        batch, start, rows = grid.shape
        dim, width = self.config.dim, self.config.width
        grid = torch.cat((grid, grid.new_zeros(batch, columns, rows)), dim=1)
        weight = (self.from_column.weight * self.lower_rows).view(rows, width, rows * dim)
        for at in range(start, start + columns):
            first = max(0, at - self.config.context)
            before = self.vectors[grid[:, first:at]].flatten(2)
            before = pad(before, (0, 0, 1 if first == 0 else 0, 0))
            history = self.from_history(self._history(before)[:, -1]).unflatten(1, (rows, width))
            for row in range(rows):
                column = self.vectors[grid[:, at]].flatten(1)  # the weights ignore the rows above
                hidden = self._mixed(history[:, row] + column @ weight[row].mT)
                grid[:, at, row] = self.softmax.sample(hidden, temperature, generator)
        return grid.mT

    def save(self, path: Path) -> None:
        """Write the weights to a safetensors file, in float16.

        Its metadata hold the sizes, the tokenizer and the training settings.

        Raises:
            WeightsError: for weights that are not finite in float16.
            OSError: where the file cannot be written.
        """
        metadata = {
            "context_model": json.dumps(dataclasses.asdict(self.config)),
            "tokenizer_id": self.tokenizer_id,
            "training": json.dumps(self.training_settings),
        }
        data = safetensors_bytes(halved(self.state_dict(), path), metadata)
        with replacing(path) as temporary:
            temporary.write_bytes(data)

    @classmethod
    def load(cls, path: Path) -> ContextModel:
        """Return the model in a file that `save` wrote.

        Raises:
            WeightsError: where there is no such file, or it is of another kind.
        """
        try:
            require_regular(path)
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                sizes = json.loads(metadata["context_model"])
                sizes["dilations"] = tuple(sizes["dilations"])
                config = ContextModelConfig(**sizes)
                # the initial weights are replaced, so drawing them must leave no trace
                with torch.random.fork_rng(devices=[]):
                    training = json.loads(metadata["training"])
                    model = cls(config, metadata["tokenizer_id"], training=training)
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            model.load_state_dict(state)
            check_finite(state, str(path))
            model.softmax.check_classes()
        except OSError as error:
            raise WeightsError(f"{path}: cannot read the model: {error.strerror}") from error
        except (
            SafetensorError,
            InputError,
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,
        ) as error:
            raise WeightsError(f"{path}: this is not a context model: {error}") from error
        return model.eval()

    def _checked(self, tokens: Tokens) -> Tensor:
        grid = as_tokens(tokens).long().to(self.vectors.device)
        rows, size = self.config.rows, self.config.codebook_size
        if grid.ndim != 3 or grid.shape[1] != rows:
            raise InputError(f"tokens must be [batch, {rows} rows, columns], not {described(grid)}")
        if grid.numel() and not 0 <= int(grid.min()) <= int(grid.max()) < size:
            raise InputError(
                f"tokens must be in 0..{size - 1}, not {int(grid.min())}..{int(grid.max())}"
            )
        return grid

    def _history(self, columns: Tensor) -> Tensor:
        """Return a summary of each column and those before it, [batch, columns, history width]."""
        state = self.enter(columns)
        for layer in self.layers:
            state = layer(state)
        return state

    def _mixed(self, hidden: Tensor) -> Tensor:
        return self.norm(hidden + self.mix(hidden))


class CausalLayer(nn.Module):
    """A residual convolution over columns, which depend on themselves and on earlier ones."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.reach = (kernel - 1) * dilation
        self.norm = nn.LayerNorm(width)
        self.spread = nn.Conv1d(width, width, kernel, dilation=dilation)
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [batch, columns, width] for an input of this shape."""
        spread = self.spread(pad(self.norm(x), (0, 0, self.reach, 0)).mT).mT
        return x + self.mix(gelu(spread))
