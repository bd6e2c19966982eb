"""What lite may cost: 3 GFLOP to encode and decode a second of audio; 12 M parameters.

Either way was meant to have half of that. Decoding has taken a little of what encoding leaves, for
its Griffin-Lim steps and their magnitudes: nothing else that was tried did as much for phase.

Counted on the meta device: what each further second costs, as in a stream or a long file; chunks
compute their context twice, which is printed too. Convolutions and matrix products (two operations
for each multiply-add) by torch's counter, the operations of melcap by the formulas here, FFTs as
2.5 n log2 n. What touches every number a few times (norms, activations) is left out.

Seen red with: the codebook search not counted; one more block in the vocoder; a deeper encoder.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from melcap import pretrained
from melcap.codec import Codec
from melcap.config import CodecConfig
from melcap.stages import inputs_for, run

BUDGET = 3.0e9  # operations for each second of audio, both ways together
LARGER = 1.6e9  # of these the one way that costs more
PARAMETERS = 12e6
FILE_BYTES = 20e6

Shape = tuple[int, ...]


def fft(n: int) -> float:
    """Of n real numbers, either way."""
    return 2.5 * n * math.log2(n)


def log_mel(
    wave: Shape, framing: list[int], scaling: list[float], lengths: None, *, out_shape: Shape
) -> int:
    _, n_fft, _, n_mels, _, _ = framing
    batch, _, frames = out_shape
    return round(batch * frames * (n_fft + fft(n_fft) + 2 * (n_fft // 2 + 1) * n_mels))


def nearest_code(x: Shape, codebook: Shape, *, out_shape: Shape) -> int:
    return 2 * x[0] * codebook[0] * codebook[1]


def upsample_conv1d(x: Shape, weight: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    return 2 * x[0] * x[2] * math.prod(weight)


def convnext1d(x: Shape, depthwise: Shape, *weights: Shape, out_shape: Shape) -> int:
    batch, channels, steps = out_shape
    return 2 * batch * steps * channels * (depthwise[2] + 2 * weights[3][0])


def forward_fft(x: Shape, dims: Any, *_: Any, out_shape: Shape) -> int:
    return round(math.prod(x[:-1]) * fft(x[-1]))


def inverse_fft(x: Shape, dims: Any, norm: Any, last: int, *, out_shape: Shape) -> int:
    return round(math.prod(x[:-1]) * fft(last))


FORMULAS = {
    torch.ops.melcap.log_mel: log_mel,
    torch.ops.melcap.nearest_code: nearest_code,
    torch.ops.melcap.upsample_conv1d: upsample_conv1d,
    torch.ops.melcap.convnext1d: convnext1d,
    torch.ops.aten._fft_r2c: forward_fft,
    torch.ops.aten._fft_c2r: inverse_fft,
}


@pytest.fixture(scope="module")
def shapes() -> Codec:
    """lite without its numbers."""
    with torch.device("meta"):
        return Codec(CodecConfig())


def operations(codec: Codec, columns: int) -> tuple[Counter[str], Counter[str]]:
    """Of encoding and of decoding so many columns with their context, by kind."""
    config, counted = codec.config, []
    for encoding in (True, False):
        counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
        with torch.no_grad(), torch.device("meta"), counter:
            if encoding:
                first, last = inputs_for(codec.encode_stages, 0, columns)
                codec.codebook.tokens(run(codec.encode_stages, torch.empty(1, last - first)))
            else:
                first, last = inputs_for(codec.decode_stages, 0, columns * config.column_samples)
                latents = torch.empty(1, config.tokenizer.codebook_dim, config.rows, last - first)
                run(codec.decode_stages, latents)
        kinds = counter.get_flop_counts()["Global"]
        counted.append(Counter({str(kind): count for kind, count in kinds.items()}))
    return counted[0], counted[1]


def test_operations(shapes: Codec, capsys: pytest.CaptureFixture[str]) -> None:
    columns = shapes.chunk_columns
    seconds = columns * shapes.config.column_samples / shapes.config.mel.sample_rate
    once, twice = operations(shapes, columns), operations(shapes, 2 * columns)
    totals = []
    for name, chunk, both in zip(("encode", "decode"), once, twice, strict=True):
        more = both - chunk
        parts = ", ".join(f"{kind} {count / seconds / 1e9:.3f}" for kind, count in more.items())
        total = more.total() / seconds
        with capsys.disabled():
            print(
                f"\n{name}: {total / 1e9:.3f} GFLOP for each second of audio ({parts}); "
                f"{chunk.total() / seconds / 1e9:.3f} in chunks of {columns} columns"
            )
        assert total <= LARGER, name
        totals.append(total)
        assert chunk.total() / seconds <= 1.1 * total, "a chunk's context costs too much"
    assert sum(totals) <= BUDGET


def test_the_counter_counts(shapes: Codec) -> None:
    """Each formula has been used; the codebook search by hand, two operations for each number."""
    encoding, decoding = operations(shapes, 10)
    for kind, formula in FORMULAS.items():
        assert (encoding + decoding)[str(kind)] > 0, f"{formula.__name__} has not been counted"
    search = 10 * 12 * 2 * 8192 * shapes.config.tokenizer.codebook_dim
    assert encoding["melcap.nearest_code"] == search


def test_parameters(shapes: Codec, lite: Codec, capsys: pytest.CaptureFixture[str]) -> None:
    """With the codebook; and the weights that ship are those of the configuration."""
    count = sum(each.numel() for each in [*shapes.parameters(), shapes.codebook.vectors])
    with capsys.disabled():
        print(f"\n{count / 1e6:.2f} M parameters")
    assert count <= PARAMETERS
    assert lite.config == shapes.config
    assert sum(each.numel() for each in [*lite.parameters(), lite.codebook.vectors]) == count


def test_the_file_of_weights(capsys: pytest.CaptureFixture[str]) -> None:
    size = (Path(pretrained.__file__).parent / "weights" / pretrained.DEFAULT).stat().st_size
    with capsys.disabled():
        print(f"\n{size / 1e6:.2f} MB of weights")
    assert size < FILE_BYTES
