"""The whole codec on the Triton backend gives the tokens and the samples of the torch backend."""

from __future__ import annotations

import pytest

import melcap
from melcap.codec import Codec
from melcap.kernels.launch import launched
from tests.helpers import count_ties, noise


@pytest.mark.slow
def test_tokens_and_samples_of_a_tiny_clip(codec: Codec) -> None:
    rate = codec.config.mel.sample_rate
    wave = noise(1500)
    with melcap.use_backend("torch"):
        expected = codec.encode(wave, rate)
        samples = codec.decode(expected)
    before = launched.copy()
    with melcap.use_backend("triton"):
        found = codec.encode(wave, rate)
        made = codec.decode(expected)
    ran = launched - before
    assert {"log_mel_kernel", "nominate", "upsample_conv1d_kernel", "convnext1d_mlp"} <= set(ran)
    assert ran["channel_norm_kernel"] >= len(codec.encoder)
    count_ties(codec, wave, expected.tokens, found.tokens)
    assert float((made - samples).abs().max()) <= 1e-4
