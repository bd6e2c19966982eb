"""Audio, rates and tokens of any type give the same result, or an error of one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from melcap.codec import Codec
from melcap.codes import Codes
from melcap.errors import ContainerError, InputError
from melcap.io.container import Header
from melcap.io.resample import Resampler, resample
from melcap.limits import MAX_CHANNELS, checked_rate
from melcap.streaming import StreamDecoder, StreamEncoder
from tests.helpers import ID, noise

WAVE = noise(5000)
RATES: list[Any] = [
    44100,
    44100.0,
    np.int64(44100),
    np.float32(44100),
    np.array(44100),
    torch.tensor(44100),
    torch.tensor(44100.0),
]
NO_RATES: list[Any] = [
    "44100",
    b"44100",
    44100.5,
    True,
    None,
    0,
    -44100,
    999,
    768_001,
    10**30,
    float("nan"),
    float("inf"),
    44100j,
    np.array([44100]),
    torch.tensor([44100]),
]


@pytest.mark.parametrize("rate", RATES, ids=repr)
def test_a_rate_is_kept_as_an_int(rate: Any, codec: Codec) -> None:
    assert type(checked_rate(rate)) is int
    codes = codec.encode(WAVE, rate)
    assert (type(codes.sample_rate), codes.sample_rate) == (int, 44100)
    assert codec.decode(codes).shape == (5000,)
    stream = StreamEncoder(codec, rate)
    assert type(stream.sample_rate) is type(StreamDecoder(codec, rate).sample_rate) is int
    Header("m", ID, codes.sample_rate, 1, 5000, 3, 5, 9)
    assert resample(WAVE[None].numpy(), rate, 8000).shape == (1, 908)


@pytest.mark.parametrize("rate", NO_RATES, ids=repr)
def test_wrong_rates_are_refused_everywhere(rate: Any, codec: Codec) -> None:
    tokens = torch.zeros(1, 3, 5, dtype=torch.int32)
    calls: list[Callable[[], Any]] = [
        lambda: codec.encode(WAVE, rate),
        lambda: codec.encode({"array": WAVE, "sampling_rate": rate}),
        lambda: Codes(tokens, (5,), (5000,), rate, codec.tokenizer_id),
        lambda: Resampler(rate, 44100, 1),
        lambda: resample(WAVE[None].numpy(), 44100, rate),
    ]
    if rate is not None:  # None is the codec's own for a stream
        calls += [lambda: StreamEncoder(codec, rate), lambda: StreamDecoder(codec, rate)]
    for call in calls:
        with pytest.raises(InputError, match="rate") as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(ContainerError, match="sample_rate"):
        Header("m", ID, rate, 1, 5000, 3, 5, 9)


class Decoded:
    """Audio as newer `datasets` return it, which has subscripts but is not a mapping."""

    def __getitem__(self, key: str) -> Any:
        return {"array": WAVE.double().numpy(), "sampling_rate": 44100}[key]


FORMS: dict[str, Any] = {
    "array": WAVE.numpy(),
    "float64": WAVE.double().numpy(),
    "big-endian": WAVE.numpy().astype(">f4"),
    "reversed twice": WAVE.flip(0).numpy()[::-1],
    "list": WAVE.tolist(),
    "rows of a list": [WAVE.tolist()],
    "batch": WAVE[None],
    "dictionary": {"array": WAVE.numpy(), "sampling_rate": 44100, "path": "a.wav"},
    "dictionary of a list": {"array": WAVE.tolist(), "sampling_rate": 44100.0},
    "decoder": Decoded(),
}


@pytest.mark.parametrize("form", FORMS)
def test_audio_in_any_form(form: str, codec: Codec) -> None:
    wave = FORMS[form]
    expected = codec.encode(WAVE, 44100).tokens
    found = codec.encode(wave, 44100).tokens
    batch = (1,) if form in ("batch", "rows of a list") else ()
    assert found.shape == (*batch, *expected.shape)
    assert torch.equal(found.view_as(expected), expected)
    if form.startswith(("dict", "decoder")):
        assert torch.equal(codec.encode(wave).tokens, expected)
        with pytest.raises(InputError, match="sampling_rate is 44100, and sample_rate 16000"):
            codec.encode(wave, 16000)
    else:
        with pytest.raises(InputError, match="sample rate of the audio is missing"):
            codec.encode(wave)


@pytest.mark.parametrize(
    ("wave", "said"),
    [
        ({"array": [0.1]}, "dictionary with array and sampling_rate, not dict with array"),
        ({"sampling_rate": 44100, "bytes": b""}, "not dict with sampling_rate, bytes"),
        ({"array": "noise", "sampling_rate": 44100}, "not an array of numbers"),
        (3.5, "not float"),
        (None, "not NoneType"),
        ([[0.1, 0.2], [0.3]], "not an array of numbers"),
        ([1, 2, 3], "floating point"),
        (np.zeros(5, np.int16), "in -1..1 and not empty, not int16"),
        ("talk.wav", "not an array of numbers"),
    ],
)
def test_values_that_are_not_audio_are_refused(wave: Any, said: str, codec: Codec) -> None:
    with pytest.raises(InputError, match=said) as caught:
        codec.encode(wave, 44100)
    assert "\n" not in str(caught.value)


def test_samples_by_channels_is_refused_with_its_transpose(codec: Codec) -> None:
    stereo = torch.stack((WAVE, WAVE))
    for channels in (1, 2, 6, MAX_CHANNELS):
        turned = WAVE[:200, None].expand(-1, channels)
        with pytest.raises(InputError, match=r"looks like \[samples, channels\].*wave\.T"):
            codec.encode(turned, 44100)
        with pytest.raises(InputError, match="transpose"):
            resample(turned.numpy(), 44100, 16000)
    with pytest.raises(InputError, match=r"pass its transpose \(piece\.T\)"):
        StreamEncoder(codec, 44100, 2).push(stereo.T)
    # what is meant as clips is one batch
    clips = WAVE[:200, None].expand(-1, 2)
    assert len(codec.encode(clips, 44100, lengths=[2] * 200)) == 200


TOKENS: list[Any] = [
    np.uint8,
    np.int8,
    np.uint16,
    np.int16,
    np.uint32,
    np.int32,
    np.uint64,
    np.int64,
    ">u2",
]


@pytest.mark.parametrize("dtype", TOKENS, ids=str)
def test_tokens_of_any_integers(dtype: Any, codec: Codec) -> None:
    rows = codec.config.rows
    grid = np.arange(15, dtype=dtype).reshape(1, 5, rows)
    expected = Codes(torch.arange(15).view(1, 5, rows).mT, (5,), (5000,), 44100, codec.tokenizer_id)
    wave = codec.decode(expected)
    by_row = grid.transpose(0, 2, 1)
    for tokens in (by_row, torch.from_numpy(by_row.astype(np.int64)), by_row.tolist()):
        codes = Codes(tokens, [np.int64(5)], np.array([5000]), 44100, codec.tokenizer_id)  # type: ignore[arg-type]
        assert torch.equal(codec.decode(codes), wave)
        assert (codes.columns, codes.lengths) == ((5,), (5000,))
        assert {type(number) for number in (*codes.columns, *codes.lengths)} == {int}
    flat = grid.reshape(-1)
    for sequence in (flat, flat.tolist(), torch.from_numpy(flat.astype(np.int64))):
        codes = Codes.from_flat([sequence], rows, [5000], 44100, codec.tokenizer_id, codec.model)
        assert torch.equal(codec.decode(codes), wave)
    streams = [StreamDecoder(codec) for _ in range(2)]
    pieces = [expected.tokens[0], grid[0].T]
    found = [
        torch.cat([stream.push(piece), stream.flush(5000)], -1)
        for stream, piece in zip(streams, pieces, strict=True)
    ]
    assert torch.equal(*found)


def test_tokens_too_large_for_int64_are_outside_the_codebook(codec: Codec) -> None:
    tokens = np.full((1, 3, 5), 2**64 - 1, np.uint64)
    with pytest.raises(InputError, match=r"0\.\.299"):
        codec.decode(Codes(tokens, (5,), (5000,), 44100, codec.tokenizer_id))  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", ["5", [5.0], [None], 5])
def test_counts_must_be_whole_numbers(columns: Any, codec: Codec) -> None:
    tokens = torch.zeros(1, 3, 5, dtype=torch.int32)
    for given in ((columns, (5000,)), ((5,), columns)):
        with pytest.raises(InputError, match=r"(columns|lengths) must be whole numbers"):
            Codes(tokens, *given, 44100, codec.tokenizer_id)


def test_the_limit_of_channels_is_one(codec: Codec) -> None:
    StreamEncoder(codec, 44100, MAX_CHANNELS)
    Resampler(44100, 16000, MAX_CHANNELS)
    Header("m", ID, 44100, MAX_CHANNELS, 5000, 3, 5, 9)
    for call in (
        lambda: StreamEncoder(codec, 44100, MAX_CHANNELS + 1),
        lambda: StreamDecoder(codec, 44100, MAX_CHANNELS + 1),
        lambda: Resampler(44100, 16000, MAX_CHANNELS + 1),
        lambda: Header("m", ID, 44100, MAX_CHANNELS + 1, 5000, 3, 5, 9),
    ):
        with pytest.raises((InputError, ContainerError), match=f"{MAX_CHANNELS}"):
            call()
