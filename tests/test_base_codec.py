"""A codec of the published architecture keeps the promises that it makes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from melcap.base_codec import BaseCodec
from melcap.config.base import SHORTEST_WINDOW
from melcap.errors import InputError, ModelMismatchError
from melcap.model.base.windows import signal_of, windows_of
from melcap.ops.precision import exact_float32
from tests.helpers import examples, noise
from tests.model.base.published import TINY, codec_of

RATE = 44100
UNIT = 2048
CLOSE = 1e-5


@pytest.fixture(scope="module")
def base() -> BaseCodec:
    return codec_of(TINY[0])


@given(st.integers(1, 3000), st.integers(12, 300))
@settings(max_examples=examples(200))
def test_windows_cover_a_clip(columns: int, length: int) -> None:
    windows = windows_of(columns, length)
    assert [begin for begin, _ in windows] == [end for _, end in [(0, 0), *windows[:-1]]]
    assert windows[-1][1] == columns
    assert all(end - begin == length for begin, end in windows[:-1])
    assert windows[-1][1] - windows[-1][0] < length + SHORTEST_WINDOW
    assert len(windows) == 1 or windows[-1][1] - windows[-1][0] >= SHORTEST_WINDOW


@given(st.integers(1, 7000), st.integers(0, 99))
@settings(max_examples=examples(60))
@example(1, 0)
@example(512, 0)
@example(513, 0)
@example(1792, 0)
@example(1793, 0)
@example(2048, 0)
@example(2049, 0)
@example(5000, 0)
def test_decoded_audio_has_the_length_of_the_original(
    base: BaseCodec, samples: int, seed: int
) -> None:
    wave = noise(samples, seed=seed)
    codes = base.encode(wave, RATE)
    assert codes.tokens.shape == (12, -(-samples // UNIT))
    decoded = base.decode(codes)
    assert decoded.shape == (samples,)
    assert decoded.isfinite().all()


@given(
    st.lists(st.integers(1, 60_000), min_size=1, max_size=3),
    st.sampled_from([12, 216]),
    st.integers(0, 99),
)
@settings(max_examples=examples(20))
def test_a_batch_gives_what_each_clip_gives_alone(
    base: BaseCodec, lengths: list[int], window: int, seed: int
) -> None:
    """Clips are never padded, so tokens are equal; this holds with several windows as well."""
    short = with_windows(base, window)
    batch = noise(len(lengths), max(lengths), seed=seed)
    codes = short.encode(batch, RATE, lengths)
    decoded = short.decode(codes)
    for index, length in enumerate(lengths):
        alone = short.encode(batch[index, :length], RATE)
        assert torch.equal(codes[index].tokens[..., : alone.tokens.shape[-1]], alone.tokens)
        assert (decoded[index, :length] - short.decode(alone)).abs().max() <= CLOSE
        assert not decoded[index, length:].any()


def test_seams_of_windows_cannot_be_heard(base: BaseCodec) -> None:
    """The front end and the vocoder run across them, the image networks do not."""
    short = with_windows(base, 13)
    wave = noise(40 * UNIT - 700)
    codes = short.encode(wave, RATE)
    assert windows_of(40, 13) == [(0, 13), (13, 26), (26, 40)]
    with exact_float32():
        whole = signal_of(base.config, wave, 0, len(wave), (0, 40))
        middle = signal_of(base.config, wave, 0, len(wave), (13, 26))
        assert torch.equal(middle, whole[13 * UNIT : 26 * UNIT + 768])
        assert torch.equal(short.tokens_of(middle[None])[0], codes.tokens[:, 13:26])
        mels = [short.ln_mel_of(codes.tokens[None, :, a:b]) for a, b in windows_of(40, 13)]
        at_once = short.vocoder(torch.cat(mels, dim=-1))[0, : len(wave)].clamp(-1, 1)
    assert (short.decode(codes) - at_once).abs().max() <= CLOSE


def test_other_sample_rates_and_channels(base: BaseCodec) -> None:
    wave = noise(2, 24001)
    codes = base.encode(wave, 48000)
    assert codes.tokens.shape == (2, 12, 11)
    assert base.decode(codes).shape == (2, 24001)
    assert base.bitrate == pytest.approx(12 * 9 * RATE / UNIT)  # 512 entries


def test_flat_tokens(base: BaseCodec) -> None:
    ids = base.encode(noise(9000), RATE).flatten()[0]
    assert base.decode_tokens(ids).shape == (5 * UNIT,)
    ids[7] = 600
    with pytest.raises(InputError):
        base.decode_tokens(ids)
    assert base.decode_tokens(ids, on_invalid="silence").shape == (5 * UNIT,)


def test_tokens_of_another_codec_are_refused(base: BaseCodec) -> None:
    codes = base.encode(noise(9000), RATE)
    with pytest.raises(ModelMismatchError):
        codec_of(TINY[2]).decode(codes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_refused(base: BaseCodec, dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match="computes in float32"):
        base.to(dtype)
    assert base.codebook.vectors.dtype == torch.float32


def with_windows(codec: BaseCodec, columns: int) -> BaseCodec:
    """Return a codec with the same weights and windows of so many columns."""
    tokenizer = replace(codec.config.tokenizer, window_columns=columns)
    other = BaseCodec(replace(codec.config, tokenizer=tokenizer))
    other.load_state_dict(codec.state_dict())
    return other.eval().requires_grad_(False)
