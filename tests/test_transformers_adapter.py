"""The adapter runs code written for transformers' EnCodec, and returns what the codec returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from melcap.audio_codec import AudioCodec
from melcap.base_codec import BaseCodec
from melcap.codec import Codec
from melcap.errors import InputError
from melcap.transformers_adapter import TransformersAdapter
from tests.helpers import noise
from tests.model.base.published import TINY, codec_of, with_windows


@pytest.fixture(scope="module")
def base() -> BaseCodec:
    return with_windows(codec_of(TINY[0]), 12)


def train(model: Any, features: Any, clips: list[np.ndarray[Any, Any]]) -> tuple[float, Tensor]:
    """Tokenize a batch, train a model on the tokens, and decode what the model predicts."""
    inputs = features(
        raw_audio=clips, sampling_rate=features.sampling_rate, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        encoded = model.encode(inputs["input_values"], inputs["padding_mask"])
    (codes,) = encoded.audio_codes  # [batch, quantizers, steps]
    assert codes.dtype == torch.int64
    torch.manual_seed(0)
    flat = codes.mT.flatten(1)
    network = nn.Sequential(
        nn.Embedding(model.config.codebook_size, 8), nn.Linear(8, model.config.codebook_size)
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(10):
        loss = nn.functional.cross_entropy(
            network(flat[:, :-1]).flatten(0, 1), flat[:, 1:].flatten()
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    written = network(flat).argmax(-1).unflatten(1, (-1, codes.shape[1])).mT
    with torch.no_grad():
        decoded = model.decode(written[None], encoded.audio_scales, inputs["padding_mask"])
    return float(loss.detach()), decoded.audio_values


@pytest.mark.slow
@pytest.mark.parametrize("name", ["melcap", "encodec"])
def test_one_script_trains_on_either(name: str, codec: Codec) -> None:
    transformers = pytest.importorskip("transformers")
    if name == "melcap":
        model: Any = TransformersAdapter(codec)
    else:
        config = transformers.EncodecConfig(
            num_filters=4, hidden_size=16, codebook_dim=16, codebook_size=64, num_lstm_layers=1
        )
        model = transformers.EncodecModel(config).eval()
    features = transformers.EncodecFeatureExtractor(
        feature_size=model.config.audio_channels, sampling_rate=model.config.sampling_rate
    )
    clips = [noise(n).numpy() for n in (9000, 7000)]
    loss, values = train(model, features, clips)
    assert loss < np.log(model.config.codebook_size)
    assert values.shape == (2, 1, 9000)
    assert model.config.frame_rate == pytest.approx(
        model.config.sampling_rate / model.config.hop_length, rel=0.05
    )
    whole = model(torch.from_numpy(clips[0])[None, None])
    assert whole.audio_values.shape == (1, 1, 9000)
    assert whole.audio_codes.shape[:3] == (1, 1, model.config.num_quantizers) or name == "encodec"


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("axes", [2, 3])
def test_it_returns_what_the_codec_returns(codec: Codec, channels: int, axes: int) -> None:
    model = TransformersAdapter(codec, channels)
    wave, lengths = noise(2, channels, 5000), [5000, 1200]
    mask = (torch.arange(5000) < torch.tensor(lengths)[:, None]).int()
    mask = mask if axes == 2 else mask[:, None].expand(-1, channels, -1)
    encoded = model.encode(wave, mask)
    expected = codec.encode(wave, 44100, lengths)
    assert encoded.audio_codes is not None
    assert encoded.audio_codes.shape == (1, 2, channels * codec.rows, 5)
    for clip in range(2):
        for channel in range(channels):
            first = channel * codec.rows
            found = encoded.audio_codes[0, clip, first : first + codec.rows]
            assert torch.equal(found, expected.tokens[clip, channel].long())
    assert torch.equal(encoded.audio_codes[0, 1, : codec.rows, 3], codec.silence.long())
    values = model.decode(encoded.audio_codes, encoded.audio_scales, mask).audio_values
    assert values is not None
    assert values.shape == wave.shape
    alone = codec.decode(expected[0])
    torch.testing.assert_close(values[0], alone, atol=1e-4, rtol=0)
    forward = model(wave, mask)
    assert torch.equal(forward.audio_values, values)
    assert torch.equal(forward.audio_codes, encoded.audio_codes)
    given = model(wave[..., :4000], audio_codes=encoded.audio_codes)
    whole = model.decode(encoded.audio_codes).audio_values
    assert whole is not None
    assert torch.equal(given.audio_values, whole[..., :4000])
    assert torch.equal(values[0], whole[0, :, :5000])
    assert model.encode(wave).audio_codes is not None


def test_a_padded_batch_is_decoded_as_the_codec_decodes_it(codec: Codec, base: BaseCodec) -> None:
    """The silence after a clip's own columns is no part of the clip.

    What a `BaseCodec` decodes depends on all of a window.
    """
    wave, lengths = noise(3, 2, 60_000), [40_000, 9000, 50_000]
    mask = torch.arange(60_000) < torch.tensor(lengths)[:, None]
    each: AudioCodec
    for each in (codec, base):
        model = TransformersAdapter(each, 2)
        expected = each.encode(wave, 44100, lengths)
        found = model(wave, mask)
        assert torch.equal(found.audio_codes, expected.tokens.long().flatten(1, 2)[None])
        assert found.audio_values.shape == wave.shape
        assert torch.equal(found.audio_values[..., :50_000], each.decode(expected))
        assert not found.audio_values[..., 50_000:].any()
        (alone,) = model(wave[1:2, :, :9000]).audio_values
        torch.testing.assert_close(found.audio_values[1, :, :9000], alone, atol=1e-5, rtol=0)
        fewer = model.decode(found.audio_codes[..., :3], padding_mask=mask).audio_values
        assert fewer is not None
        assert fewer.shape == wave.shape
        samples = 3 * each.config.column_samples
        assert fewer[0, :, :samples].any()
        assert not fewer[..., samples:].any()


def test_arguments_that_do_not_fit(codec: Codec) -> None:
    model = TransformersAdapter(codec, 2)
    wave = noise(3, 2, 4000)
    left = torch.ones(3, 4000)
    left[1, :10] = 0
    codes = model.encode(wave).audio_codes
    assert codes is not None
    refused = [
        (lambda: model.encode(wave[0]), r"\[batch, 2, samples\], not \[2, 4000\]"),
        (lambda: model.encode(wave[:, :1]), r"not \[3, 1, 4000\]"),
        (lambda: model.encode(wave, left), "padding before samples"),
        (lambda: model.encode(wave, left[:, :-1]), r"padding_mask \[3, 3999\] does not fit"),
        (lambda: model.encode(wave, left[0]), r"padding_mask \[4000\] does not fit"),
        (lambda: model.encode(wave, left[:2]), r"padding_mask \[2, 4000\] does not fit"),
        (lambda: model.encode(wave, bandwidth=6.0), "one bit rate.* 6.0"),
        (lambda: model(wave, bandwidth=6.0), "one bit rate"),
        (lambda: model.encode(wave, return_dict=False), "return_dict"),
        (lambda: model.decode(codes, [torch.ones(1)]), "neither scales"),
        (lambda: model.decode(codes, last_frame_pad_length=3), "nor padded frames"),
        (lambda: model.decode(codes[0]), r"audio_codes must be \[1, batch, 6, columns\]"),
        (lambda: model.decode(codes[:, :, :3]), r"not \[1, 3, 3, 4\]"),
        (lambda: model.decode(codes + 300), r"0\.\.299"),
        (lambda: model.decode(codes, None, left), "padding before samples"),
        (lambda: model.decode(codes, None, left[:2]), r"padding_mask \[2, 4000\] does not fit"),
    ]
    for call, words in refused:
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
