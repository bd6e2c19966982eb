"""Compare the published architecture with outputs of the published code.

`tests/conversion` does it in the published size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.config import BaseConfig
from melcap.errors import WeightsError
from melcap.model.base.layers import Upsample
from melcap.model.base.network import BaseNetwork
from melcap.model.base.published import config_of
from melcap.model.base.windows import signal_of
from melcap.ops import log_mel
from melcap.ops.precision import exact_float32
from tests.helpers import noise
from tests.model.base.published import FULL, TINY, Case, arrays, codec_of, shapes, stages


def largest_error(found: Tensor, expected: npt.NDArray[np.float32]) -> float:
    """Return the largest difference in the places that both have."""
    common = min(found.shape[-1], expected.shape[-1])
    assert abs(found.shape[-1] - expected.shape[-1]) <= 256
    return float((found[..., :common] - torch.from_numpy(expected)[..., :common]).abs().max())


@pytest.mark.parametrize("case", TINY, ids=lambda case: case.file)
def test_outputs_are_those_of_the_published_code(case: Case) -> None:
    """Every step agrees: the tokens are equal, and samples differ by rounding."""
    codec, expected = codec_of(case), arrays(case)
    wave = torch.from_numpy(expected["wave"])
    codes = codec.encode(wave, 44100)
    window, mel = (0, codes.tokens.shape[-1]), codec.config.mel
    with exact_float32():
        signal = signal_of(codec.config, expected["wave"], 0, len(wave), window)
        log_mels = log_mel(torch.from_numpy(signal)[None], mel, padding=(0, 0))
        latents = codec.encoder(log_mels)
        decoded = codec.ln_mel_of(codes.tokens[None])
    assert largest_error(log_mels[0] * mel.std, expected["mel"]) <= 1e-3
    assert largest_error(latents[0], expected["latents"]) <= 1e-3
    assert np.array_equal(codes.tokens.numpy(), expected["tokens"])
    assert largest_error(decoded[0], expected["recon"]) <= 1e-3
    samples = codec.decode(codes)
    assert samples.shape == wave.shape
    assert largest_error(samples, expected["audio"].clip(-1, 1)) <= 1e-5
    assert np.abs(expected["audio"]).max() > 0.01


def test_the_sizes_are_those_of_the_paper() -> None:
    """The configuration that the full layout implies is the default one."""
    stage1, stage2 = (
        {name: torch.empty(shape, device="meta") for name, shape in stage.items()}
        for stage in shapes(FULL.layout)
    )
    config = config_of(stage1, stage2, "tanh", "melcap-base")
    assert config == BaseConfig()
    assert BaseConfig.from_json(config.to_json()) == config
    assert (config.rows, config.column_samples, config.tokenizer.bits) == (12, 2048, 13)
    with torch.device("meta"):
        network = BaseNetwork(config)
    numbers = [
        sum(each.numel() for each in part.parameters())
        for part in (network.encoder, network.decoder, network.vocoder)
    ]
    assert numbers == [36_688_576, 52_171_268, 13_517_314]


def test_upsampling_at_the_lower_resolution_is_upsampling() -> None:
    layer = Upsample(5).double().requires_grad_(False)
    x = noise(2, 5, 3, 7).double()
    expected = layer.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_a_missing_tensor_is_named() -> None:
    stage1, stage2 = stages("tiny-tanh")
    lacking = {name: value for name, value in stage1.items() if "embedding" not in name}
    with pytest.raises(KeyError, match=r"quantizer\.embedding\.weight"):
        config_of(lacking, stage2, "tanh", "x")


def test_configurations_that_do_not_fit_are_refused() -> None:
    text = BaseConfig().to_json()
    for old, new, message in (
        ('"tanh"', '"relu"', "activation must be one of tanh, silu, not 'relu'"),
        ('"channels": 128', '"channels": 100', "channels must be a multiple of 32, not 100"),
        ('"hidden": 1536', '"hidden": 0', "hidden must be a whole number from 1 to 32768"),
        ('"n_mels": 96', '"n_mels": 100', "n_mels must be a multiple of 8, not 100"),
        ('"hop": 256', '"hop": 512', "n_fft must be 4 hops"),
    ):
        assert old in text
        with pytest.raises(WeightsError, match=message):
            BaseConfig.from_json(text.replace(old, new))
