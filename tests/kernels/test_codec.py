"""The whole codec on the Triton backend gives the tokens and the samples of the torch backend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

import melcap
from melcap.config import CodecConfig
from melcap.kernels.launch import launched
from melcap.model import layers
from tests.helpers import SMALL, count_ties, noise, save_drawn

_2D = (nn.Conv2d, nn.ConvTranspose2d)
# Most programs compute context. One level and two Griffin-Lim steps less leave a third of them.
TINY = replace(
    SMALL,
    name="tiny",
    tokenizer=replace(
        SMALL.tokenizer, channels=(6, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1)
    ),
    vocoder=replace(SMALL.vocoder, griffin_lim_steps=2),
)


# Its second level halves time alone, so a column has twice the rows of the other.
TINY_HALF = replace(TINY, name="tiny-half", tokenizer=replace(TINY.tokenizer, time_levels=1))


@pytest.mark.slow
@pytest.mark.parametrize(("config", "shape"), [(TINY, (6, 2)), (TINY_HALF, (12, 2))])
def test_tokens_and_samples_of_a_tiny_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: CodecConfig, shape: tuple[int, int]
) -> None:
    codec = melcap.load(save_drawn(config, tmp_path / "tiny.safetensors"))
    rate = codec.config.mel.sample_rate
    wave = noise(700)
    with melcap.use_backend("torch"):
        expected = codec.encode(wave, rate)
        samples = codec.decode(expected)
    assert expected.tokens.shape == shape
    before = launched.copy()
    monkeypatch.setattr(layers, "is_a_convolution", lambda _: True)  # as on a GPU
    with melcap.use_backend("triton"):
        found = codec.encode(wave, rate)
        made = codec.decode(expected)
    ran = launched - before
    assert {
        "log_mel_kernel",
        "halves_kernel",
        "conv2d_kernel",
        "channel_norm_kernel",
        "nominate",
        "upsample_conv1d_kernel",
        "convnext1d_norm",
        "polar_istft_kernel",
        "griffin_lim_step",
    } <= set(ran)
    convolutions = [part for part in codec.modules() if isinstance(part, _2D)]
    assert ran["conv2d_kernel"] >= len(convolutions) >= 12
    count_ties(codec, wave, expected.tokens, found.tokens)
    assert float((made - samples).abs().max()) <= 1e-4
