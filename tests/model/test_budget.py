"""The lite model stays within 1.5 GFLOP per second of audio each way, and 12 M parameters.

`melcap.ops.flops` counts operations on the meta device. The budget is for each further second of
audio, as in a stream or a long file. Chunks compute their context twice; the test prints that too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from melcap import pretrained
from melcap.codec import Codec
from melcap.config import CodecConfig
from melcap.model.stages import inputs_for, run
from melcap.ops.flops import FORMULAS, count
from melcap.ops.products import linear

BUDGET = 1.5e9  # operations for each second of audio, one way
PARAMETERS = 12e6
FILE_BYTES = 20e6


@pytest.fixture(scope="module")
def shapes(lite: Codec) -> Codec:
    """Return the lite model on the meta device, without numbers."""
    with torch.device("meta"):
        return Codec(lite.config)


def operations(codec: Codec, columns: int) -> tuple[Counter[str], Counter[str]]:
    """Return the operations, by kind, of encoding and of decoding `columns` with their context."""
    unit, rows = codec.config.column_samples, codec.config.rows
    first, last = inputs_for(codec.encode_stages, 0, columns)
    signal = torch.empty(1, last - first, device="meta")
    encoding, _ = count(lambda x: codec.codebook.tokens(run(codec.encode_stages, x)), signal)
    first, last = inputs_for(codec.decode_stages, 0, columns * unit)
    latents = torch.empty(1, codec.config.tokenizer.codebook_dim, rows, last - first, device="meta")
    decoding, _ = count(lambda x: run(codec.decode_stages, x), latents)
    return encoding, decoding


def test_operations(shapes: Codec, capsys: pytest.CaptureFixture[str]) -> None:
    columns = shapes.chunk_columns
    seconds = columns * shapes.config.column_samples / shapes.config.mel.sample_rate
    once, twice = operations(shapes, columns), operations(shapes, 2 * columns)
    for name, chunk, both in zip(("encode", "decode"), once, twice, strict=True):
        more = both - chunk
        parts = ", ".join(f"{kind} {n / seconds / 1e9:.3f}" for kind, n in more.items())
        total = more.total() / seconds
        with capsys.disabled():
            print(
                f"\n{name}: {total / 1e9:.3f} GFLOP for each second of audio ({parts}); "
                f"{chunk.total() / seconds / 1e9:.3f} in chunks of {columns} columns"
            )
        assert total <= BUDGET, name
        assert chunk.total() / seconds <= 1.1 * total, "a chunk's context costs too much"


def test_the_counter_counts(shapes: Codec) -> None:
    """Every formula is used, and the codebook search takes two operations for each number."""
    stage = {"strides": (4,), "stage_channels": (8,), "stage_blocks": (1,)}
    with torch.device("meta"):
        codec = Codec(replace(shapes.config, vocoder=replace(shapes.config.vocoder, **stage)))
    encoding, decoding = operations(codec, 10)
    heads = torch.zeros(2, 1, 48, 64)
    attention, _ = count(lambda x: F.scaled_dot_product_attention(x, x, x), heads)
    inverse, _ = count(torch.fft.irfft, torch.zeros(3, 33))  # as in the published vocoder
    assert inverse.total() == 3 * 2.5 * 64 * 6
    # on the meta device this is an ordinary linear layer
    product, _ = count(lambda x: linear(x, torch.zeros(6, 8), torch.zeros(6)), torch.zeros(5, 8))
    assert product.total() == 2 * 5 * 6 * 8
    for kind in FORMULAS:
        found = encoding + decoding + attention + inverse + product
        assert found[str(kind)] > 0, f"{kind} has not been counted"
    assert attention.total() == 2 * 2 * (2 * 48 * 48 * 64)  # two products, of two clips
    search = 10 * 12 * 2 * 8192 * shapes.config.tokenizer.codebook_dim
    assert encoding["melcap.nearest_code"] == search


def test_parameters(shapes: Codec, lite: Codec, capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters include the codebook, and the weights that ship fit the configuration."""
    numbers = sum(each.numel() for each in [*shapes.parameters(), shapes.codebook.vectors])
    with capsys.disabled():
        print(f"\n{numbers / 1e6:.2f} M parameters")
    assert numbers <= PARAMETERS
    steps = CodecConfig().vocoder.griffin_lim_steps  # that many in training
    vocoder = replace(lite.config.vocoder, griffin_lim_steps=steps)
    assert replace(lite.config, vocoder=vocoder) == CodecConfig()
    assert sum(each.numel() for each in [*lite.parameters(), lite.codebook.vectors]) == numbers


def test_the_file_of_weights(capsys: pytest.CaptureFixture[str]) -> None:
    size = (Path(pretrained.__file__).parent / "weights" / pretrained.DEFAULT).stat().st_size
    with capsys.disabled():
        print(f"\n{size / 1e6:.2f} MB of weights")
    assert size < FILE_BYTES
