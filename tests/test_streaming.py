"""A stream returns what the whole clip returns, for any pieces, and keeps no more than it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import melcap
from melcap.codec import Codec
from melcap.codes import Codes
from melcap.errors import InputError
from melcap.model.stages import inputs_for
from melcap.streaming import StreamDecoder, StreamEncoder
from tests.helpers import (
    SMALL,
    at_codec_rate,
    chunks_of,
    count_ties,
    cut,
    examples,
    noise,
    piece_sizes,
    sample_rates,
    waves,
)

UNIT = SMALL.column_samples


def encoded(codec: Codec, wave: Tensor, rate: int, sizes: list[int]) -> Tensor:
    stream = StreamEncoder(codec, rate, len(wave))
    parts = [stream.push(piece) for piece in cut(wave, sizes)]
    assert stream.samples == wave.shape[1]
    return torch.cat([*parts, stream.flush()], dim=-1)


def decoded(codec: Codec, codes: Codes, sizes: list[int]) -> Tensor:
    stream = StreamDecoder(codec, codes.sample_rate, len(codes))
    parts = [stream.push(piece) for piece in cut(codes.tokens, sizes)]
    assert stream.columns == codes.tokens.shape[2]
    return torch.cat([*parts, stream.flush(codes.lengths[0])], dim=-1)


@pytest.mark.slow
@settings(max_examples=examples(20))
@given(waves(longest=16 * UNIT, batch=3), sample_rates(), piece_sizes(4 * UNIT), piece_sizes(5))
@example(noise(2, 16 * UNIT), 44100, [0, 1, 3 * UNIT, 0], [0, 1, 5])
@example(noise(1, 9 * UNIT), 16000, [UNIT, UNIT - 1], [2, 2, 2])
@example(noise(3, 1), 192000, [0], [0])
def test_a_streamed_clip_is_the_whole_clip(
    codec: Codec, wave: Tensor, rate: int, sizes: list[int], columns: list[int]
) -> None:
    whole = codec.encode(wave, rate)
    tokens = encoded(codec, wave, rate, sizes)
    for index, clip in enumerate(wave):
        own = at_codec_rate(codec, clip, rate)
        count_ties(codec, own, whole.tokens[index], tokens[index])
    found = decoded(codec, whole, columns)
    assert found.shape == wave.shape
    assert found.dtype == torch.float32
    assert found.abs().max() <= 1
    torch.testing.assert_close(found, codec.decode(whole), atol=1e-4, rtol=0)


@settings(max_examples=examples(10))
@given(st.integers(1, 3 * UNIT), st.sampled_from([44100, 48000, 8000]), st.integers(0, 2**32))
def test_one_sample_at_a_time_at_the_edges(
    codec: Codec, samples: int, rate: int, seed: int
) -> None:
    wave = noise(1, samples, seed=seed)
    whole = codec.encode(wave, rate)
    ones = [1] * 10
    tokens = encoded(codec, wave, rate, [*ones, max(0, samples - 20), *ones])
    count_ties(codec, at_codec_rate(codec, wave[0], rate), whole.tokens[0], tokens[0])
    found = decoded(codec, whole, [1] * whole.tokens.shape[2])
    torch.testing.assert_close(found, codec.decode(whole), atol=1e-4, rtol=0)


@pytest.mark.parametrize("columns", [1, 2, 7])
@pytest.mark.parametrize("rate", [44100, 16000, 96000])
def test_a_decoder_without_a_length_gives_whole_columns(
    codec: Codec, columns: int, rate: int
) -> None:
    tokens = torch.arange(SMALL.rows * columns).view(SMALL.rows, columns)
    stream = StreamDecoder(codec, rate)
    found = torch.cat([stream.push(tokens), stream.flush()], dim=1)
    samples = -(-columns * UNIT * rate // 44100)
    assert found.shape == (1, samples)
    if rate == 44100:
        whole = Codes(tokens[None], (columns,), (samples,), rate, codec.tokenizer_id)
        torch.testing.assert_close(found, codec.decode(whole), atol=1e-4, rtol=0)


def test_latency_is_exact(codec: Codec) -> None:
    """A column of tokens is ready with the last sample it depends on, and not before."""
    encoder = StreamEncoder(codec)
    late = round(encoder.latency * 44100)
    assert late == inputs_for(codec.encode_stages, 0, 1)[1] - UNIT
    for column in range(4):
        end = (column + 1) * UNIT + late
        assert encoder.push(torch.zeros(end - 1 - encoder.samples)).shape[2] == 0
        assert encoder.push(torch.zeros(1)).shape[2] == 1

    decoder = StreamDecoder(codec)
    late = round(decoder.latency * 44100)
    assert late % UNIT == 0
    column = torch.zeros(SMALL.rows, 1, dtype=torch.int32)
    given = 0
    for count in range(1, 12):
        given += decoder.push(column).shape[1]
        # part of the next column may be ready before all its context is there
        assert 0 <= given - max(0, count * UNIT - late) < UNIT
    assert given > 0


@pytest.mark.slow
def test_what_a_stream_holds_does_not_grow(codec: Codec) -> None:
    """Bytes kept between pushes are no more after 60 pieces than after 20."""

    def held(stream: Any) -> int:
        return sum(
            tensor.untyped_storage().nbytes()
            for tensor in stream._stream._pending
            if tensor is not None
        )

    encoder, decoder = StreamEncoder(codec, 48000, 2), StreamDecoder(codec, 48000, 2)
    peaks = []
    for _ in range(3):
        peak = 0
        for seed in range(20):
            decoder.push(encoder.push(noise(2, 1500, seed=seed)))
            peak = max(peak, held(encoder), held(decoder))
        peaks.append(peak)
    assert max(peaks[1:]) <= peaks[0] * 1.05
    for attribute in (*vars(encoder).values(), *vars(decoder).values()):
        assert not isinstance(attribute, list) or len(attribute) < 10


def test_streams_share_a_codec_and_nothing_else(codec: Codec) -> None:
    waves = noise(2, 10 * UNIT)
    encoders = [StreamEncoder(codec) for _ in waves]
    found: list[list[Tensor]] = [[], []]
    for begin in range(0, 10 * UNIT, 700):
        for encoder, wave, parts in zip(encoders, waves, found, strict=True):
            parts.append(encoder.push(wave[begin : begin + 700]))
    for encoder, wave, parts in zip(encoders, waves, found, strict=True):
        tokens = torch.cat([*parts, encoder.flush()], dim=-1)
        count_ties(codec, wave, codec.encode(wave, 44100).tokens, tokens[0])


def test_a_buffer_may_be_used_again(codec: Codec) -> None:
    wave = noise(5 * UNIT).numpy()
    for rate in (44100, 48000):
        encoder = StreamEncoder(codec, rate)
        buffer, parts = wave[:512].copy(), []
        for begin in range(0, 5 * UNIT, 512):
            buffer[:] = wave[begin : begin + 512]
            parts.append(encoder.push(buffer))
            buffer[:] = 0.5
        tokens = torch.cat([*parts, encoder.flush()], dim=-1)[0]
        own = at_codec_rate(codec, torch.from_numpy(wave), rate)
        count_ties(codec, own, codec.encode(wave, rate).tokens, tokens)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_pieces_of_any_precision(codec: Codec, dtype: torch.dtype) -> None:
    wave = noise(1, 4 * UNIT).half()
    for rate in (44100, 16000):
        expected = encoded(codec, wave.float(), rate, [700])
        assert torch.equal(encoded(codec, wave.to(dtype), rate, [700]), expected)


def test_an_empty_stream(codec: Codec) -> None:
    for rate in (44100, 8000):
        encoder, decoder = StreamEncoder(codec, rate), StreamDecoder(codec, rate)
        assert encoder.push(torch.zeros(0)).shape == (1, SMALL.rows, 0)
        assert encoder.flush().shape == (1, SMALL.rows, 0)
        assert decoder.push(torch.zeros(1, SMALL.rows, 0, dtype=torch.int32)).shape == (1, 0)
        assert decoder.flush().shape == (1, 0)


def test_the_end_is_the_end(codec: Codec) -> None:
    encoder, decoder = StreamEncoder(codec), StreamDecoder(codec)
    tokens = torch.cat((encoder.push(noise(5000)), encoder.flush()), dim=2)
    assert encoder.flush().shape == (1, SMALL.rows, 0)
    with pytest.raises(InputError, match="has ended"):
        encoder.push(noise(5000))
    decoder.push(tokens)
    decoder.flush(5000)
    assert decoder.flush().shape == (1, 0)
    with pytest.raises(InputError, match="has ended"):
        decoder.push(tokens)


def test_a_length_that_the_columns_do_not_hold(codec: Codec) -> None:
    for rate in (44100, 48000):
        for samples in (0, 1, 700):
            stream = StreamDecoder(codec, rate)
            given = stream.push(torch.zeros(SMALL.rows, 30, dtype=torch.int32))
            rest = stream.flush(samples)
            assert rest.shape == (1, 0), "what is out cannot be taken back, and nothing is added"
            assert given.shape[1] > samples


def test_wrong_pieces_are_refused(codec: Codec) -> None:
    encoder, decoder = StreamEncoder(codec, batch=2), StreamDecoder(codec, batch=2)
    wave = noise(2, 3000)
    broken = wave.clone()
    broken[1, 5] = torch.inf
    tokens = torch.zeros(2, SMALL.rows, 3, dtype=torch.int32)
    encoder.push(wave)
    for piece, words in [
        (broken, "NaN or infinity .* sample 3000"),
        (broken * torch.nan, "NaN or infinity"),
        (wave[0], r"\[2, samples\].*float32 \[1, 3000\]"),
        (wave[None], r"float32 \[1, 2, 3000\]"),
        (wave.int(), "int32"),
    ]:
        with pytest.raises(InputError, match=words):
            encoder.push(piece)
    decoder.push(tokens)
    for piece, words in [
        (tokens + 300, r"0\.\.299"),
        (tokens - 1, r"0\.\.299"),
        (tokens[:1], r"\[2, 3, columns\].*int32 \[1, 3, 3\]"),
        (tokens[:, :2], r"int32 \[2, 2, 3\]"),
        (tokens[0, 0], r"int32 \[3\]"),
        (tokens.float(), "float32"),
    ]:
        with pytest.raises(InputError, match=words):
            decoder.push(piece)
    assert encoder.samples == 3000
    assert decoder.columns == 3, "what was refused does not count"
    for kind in (StreamEncoder, StreamDecoder):
        for rate in (-5, 0, 10, 10**7):
            with pytest.raises(InputError, match="rate"):
                kind(codec, rate)
        for batch in (0, -1):
            with pytest.raises(InputError, match="batch"):
                kind(codec, batch=batch)


def test_a_refused_piece_leaves_the_stream_unchanged(codec: Codec) -> None:
    wave = noise(1, 6 * UNIT)
    encoder, decoder = StreamEncoder(codec), StreamDecoder(codec)
    parts, out = [], []
    for piece in cut(wave, [1500] * 3):
        with pytest.raises(InputError):
            encoder.push(piece * torch.nan)
        parts.append(encoder.push(piece))
        with pytest.raises(InputError):
            decoder.push(parts[-1] + 300 if parts[-1].shape[2] else torch.full((3, 1), -1))
        out.append(decoder.push(parts[-1]))
    parts.append(encoder.flush())
    out += [decoder.push(parts[-1]), decoder.flush(6 * UNIT)]
    whole = codec.encode(wave, 44100)
    tokens = torch.cat(parts, dim=2)
    count_ties(codec, wave[0], whole.tokens[0], tokens[0])
    torch.testing.assert_close(
        torch.cat(out, dim=1),
        codec.decode(Codes(tokens, whole.columns, whole.lengths, 44100, codec.tokenizer_id)),
        atol=1e-4,
        rtol=0,
    )


def test_a_codec_that_still_learns_can_stream(codec: Codec) -> None:
    """Weights that ask for gradients leave no graph in a stream's buffers."""
    learning = Codec(SMALL)
    learning.load_state_dict(codec.state_dict())
    for kind in (melcap.StreamEncoder, melcap.StreamDecoder):
        for held in kind(learning)._stream._pending:
            assert held is None or not held.requires_grad


@pytest.mark.slow
def test_a_long_piece_is_worked_through_in_parts(codec: Codec) -> None:
    """Memory is bounded for any length of a piece and any number of streams."""
    largest = [0, 0]

    def watch(which: int) -> Callable[..., None]:
        def note(module: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
            largest[which] = max(largest[which], inputs[0].shape[0] * inputs[0].shape[-1])

        return note

    hooks = [
        codec.front.register_forward_hook(watch(0)),
        codec.decoder[0].register_forward_hook(watch(1)),
    ]
    wave, found = noise(4, 30 * UNIT), []
    try:
        for columns in (256, 8):
            largest[:] = 0, 0
            with chunks_of(codec, columns):
                encoder, decoder = StreamEncoder(codec, None, 4), StreamDecoder(codec, None, 4)
                tokens = torch.cat([encoder.push(wave), encoder.flush()], -1)
                found += [tokens, torch.cat([decoder.push(tokens), decoder.flush()], -1)]
    finally:
        for hook in hooks:
            hook.remove()
    first, last = inputs_for(codec.encode_stages, 0, 2)
    assert largest[0] <= 4 * (last - first)
    first, last = inputs_for(codec.decode_stages, 0, 2 * UNIT)
    assert largest[1] <= 4 * (last - first)
    assert torch.equal(found[0], found[2])
    torch.testing.assert_close(found[1], found[3], atol=1e-4, rtol=0)


@pytest.mark.parametrize("rate", [44100, 16000])
def test_a_stream_that_is_reset_is_a_new_one(codec: Codec, rate: int) -> None:
    wave = noise(2, 9 * UNIT)
    encoder, decoder = StreamEncoder(codec, rate), StreamDecoder(codec, rate)
    found = []
    for clip in (wave[0], wave[1], wave[0]):
        tokens = torch.cat((encoder.push(clip[:3000]), encoder.push(clip[3000:])), dim=-1)
        if len(found) != 1:  # the second is given up half-way
            tokens = torch.cat((tokens, encoder.flush()), dim=-1)
        assert (encoder.samples, decoder.columns) == (9 * UNIT, 0)
        samples = decoder.push(tokens)
        if len(found) != 1:
            samples = torch.cat((samples, decoder.flush(9 * UNIT)), dim=-1)
        found.append((tokens, samples))
        encoder.reset()
        decoder.reset()
        assert (encoder.samples, decoder.columns) == (0, 0)
    for one, other in zip(found[0], found[2], strict=True):
        assert torch.equal(one, other)
    encoder.flush()
    with pytest.raises(InputError, match=r"ended: call reset\(\)"):
        encoder.push(wave[0])
