"""A small codec with random weights, inputs for it, and comparisons."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from melcap.codec import Codec
from melcap.config import CodecConfig, MelSpec, TokenizerConfig, VocoderConfig
from melcap.io.resample import resample
from melcap.model.stages import inputs_for, run
from melcap.ops.precision import SETTINGS
from melcap.pretrained import save

SMALL = CodecConfig(
    name="small",
    mel=MelSpec(n_fft=512, hop=128, n_mels=24),
    tokenizer=TokenizerConfig(
        channels=(6, 8, 12),
        encoder_blocks=(1, 1, 1),
        decoder_blocks=(1, 1, 1),
        codebook_size=300,
        codebook_dim=8,
    ),
    vocoder=VocoderConfig(
        dim=16, hidden=24, blocks=1, strides=(4,), stage_channels=(8,), stage_blocks=(1,)
    ),
)
"""A configuration with every kind of layer; a column has 3 tokens for 1024 samples."""
HALF = replace(
    SMALL,
    name="small-half",
    tokenizer=replace(
        SMALL.tokenizer,
        channels=(6, 8, 12, 12),
        encoder_blocks=(1, 1, 1, 1),
        decoder_blocks=(1, 1, 1, 1),
        time_levels=1,
    ),
)
"""The same at half the rate of tokens; a column has 3 tokens for 2048 samples."""
ID = "0123456789abcdef"
"""The id of a tokenizer that does not exist."""


def examples(count: int) -> int:
    """Return the number of examples for a property test: `count`, but at most 5 with `--quick`."""
    return min(count, 5) if os.environ.get("MELCAP_TESTS") == "quick" else count


def noise(*shape: int, seed: int = 0, amplitude: float = 0.2) -> Tensor:
    """Return seeded normal noise, float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu") * amplitude


def in_nan(tensor: Tensor) -> Tensor:
    """Return the same numbers, contiguous, in the middle of memory that holds NaN elsewhere."""
    memory = tensor.new_full((tensor.numel() + 8192,), torch.nan)
    return memory[4096:-4096].view(tensor.shape).copy_(tensor)


def draw_weights(codec: Codec, seed: int = 0) -> Codec:
    """Draw random weights, none of them zero or one, and a codebook spread like the latents."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in codec.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if (parameter == parameter.flatten()[0]).all():
                parameter += 0.3 * drawn
            else:
                parameter.copy_(drawn * parameter.std())
        first, last = inputs_for(codec.encode_stages, 0, 30)
        latents = run(codec.encode_stages, noise(1, last - first, seed=seed))
        spread = latents.movedim(1, -1).flatten(0, -2)
        drawn = torch.randn(codec.codebook.vectors.shape, generator=generator)
        codec.codebook.vectors.copy_(spread.mean(0) + drawn * spread.std(0))
    codec.learn_silence()
    return codec.eval().requires_grad_(False)


def save_drawn(config: CodecConfig, path: Path) -> Path:
    """Write the weights file of a codec with random weights, always the same, and return it."""
    with torch.random.fork_rng():  # fresh layers are drawn from the global generator
        torch.manual_seed(0)
        save(draw_weights(Codec(config)), path)
    return path


@contextmanager
def reduced_precision() -> Iterator[None]:
    """Let the process trade precision for speed wherever PyTorch allows it."""
    before = [getattr(place, name) for place, name, _ in SETTINGS]
    allowed = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = allowed  # of recurrent layers too
        for (place, name, _), value in zip(SETTINGS, before, strict=True):
            setattr(place, name, value)


@contextmanager
def chunks_of(codec: Codec, columns: int) -> Iterator[None]:
    """Let a codec work in chunks of `columns` columns."""
    before = codec.chunk_columns
    codec.chunk_columns = columns
    try:
        yield
    finally:
        codec.chunk_columns = before


def cut_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make codecs cut their work into pieces as on a GPU, but compute these where they are."""
    pieces = Codec._pieces

    def found(codec: Codec, *arguments: Any) -> list[Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Codec, "device", torch.device("cuda"))
            return [*pieces(codec, *arguments)]

    monkeypatch.setattr(Codec, "_pieces", found)


def at_codec_rate(codec: Codec, clip: Tensor, sample_rate: int) -> Tensor:
    """Return a clip [samples] as the encoder receives it: clipped, float32, at the codec's rate."""
    samples = clip.clamp(-1, 1).float()
    if sample_rate == codec.config.mel.sample_rate:
        return samples
    rate = codec.config.mel.sample_rate
    return torch.from_numpy(resample(samples[None].numpy(), sample_rate, rate)[0]).clamp(-1, 1)


def latents_of(codec: Codec, clip: Tensor) -> Tensor:
    """Return the latents [dim, rows, columns] of a clip at the codec's rate, from a single run."""
    first, last = inputs_for(codec.encode_stages, 0, codec.columns(len(clip)))
    signal = torch.zeros(1, last - first)
    signal[0, -first : len(clip) - first] = clip
    with torch.no_grad():
        return run(codec.encode_stages, signal)[0]


def count_ties(codec: Codec, clip: Tensor, expected: Tensor, found: Tensor) -> int:
    """Return how many tokens differ, and fail unless these are few and ties.

    At most 1 % of the tokens, or one, may differ. Both entries of a differing token must be as near
    to the latent as the nearest entry, within a relative 1e-5.

    Args:
        codec: the codec.
        clip: the clip at the codec's rate.
        expected: tokens [rows, columns].
        found: tokens [rows, columns].
    """
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == torch.int32
    places = (found != expected).nonzero()
    if not len(places):
        return 0
    latents = latents_of(codec, clip).double()
    codes = codec.codebook.vectors.double()
    for row, column in places.tolist():
        distances = (codes - latents[:, row, column]).norm(dim=1)
        both = distances[[int(found[row, column]), int(expected[row, column])]]
        assert both.max() <= distances.min() * (1 + 1e-5), (row, column)
    assert len(places) <= max(1, expected.numel() // 100)
    return len(places)


def cut(x: Tensor, sizes: list[int]) -> list[Tensor]:
    """Split the last axis into pieces of these sizes, as far as it goes, and one with the rest."""
    pieces = []
    for size in sizes:
        pieces.append(x[..., :size])
        x = x[..., size:]
    return [*pieces, x]


def piece_sizes(largest: int) -> st.SearchStrategy[list[int]]:
    """Draw sizes for `cut`, with small ones and zeros among them."""
    size = st.one_of(st.integers(0, 3), st.integers(0, largest), st.integers(0, largest))
    return st.lists(size, min_size=1, max_size=10)


@st.composite
def waves(draw: st.DrawFn, longest: int = 6000, batch: int = 8) -> Tensor:
    """Draw float32 [1..batch, 1..longest]: noise, tones, steps and clicks of any amplitude."""
    shape = draw(st.integers(1, batch)), draw(st.integers(1, longest))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["noise", "tone", "constant", "click", "bursts"]))
    if kind == "noise":
        wave = random.uniform(-1, 1, shape)
    elif kind == "tone":
        wave = np.sin(np.arange(shape[1]) * random.uniform(0, np.pi, (shape[0], 1)))
    elif kind == "constant":
        wave = np.ones(shape)
    elif kind == "click":
        wave = np.zeros(shape)
        wave[:, random.integers(shape[1])] = -1
    else:
        wave = random.uniform(-1, 1, shape) * (np.arange(shape[1]) // 700 % 2)
    decibels = st.one_of(st.floats(-60, 10), st.floats(-800, 760), st.sampled_from([-800, 760]))
    amplitude = 10.0 ** (draw(decibels) / 20)
    return torch.from_numpy((wave * amplitude).astype(np.float32))


def sample_rates() -> st.SearchStrategy[int]:
    """Draw usual and unusual sample rates from 8 to 192 kHz."""
    usual = [8000, 16000, 22050, 44100, 48000, 96000, 192000]
    return st.one_of(st.sampled_from(usual), st.integers(8000, 192000))
