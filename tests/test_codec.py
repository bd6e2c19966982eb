"""For every input the codec has the exact length, the range, and the same result in any chunks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import melcap
from melcap.codec import Codec
from melcap.codes import Codes
from melcap.config import CodecConfig
from melcap.errors import InputError, ModelMismatchError
from melcap.evaluation.measures.signals import Wave
from melcap.model import network
from melcap.model.stages import inputs_for, outputs_of, run
from tests.helpers import (
    ID,
    SMALL,
    at_codec_rate,
    chunks_of,
    count_ties,
    cut_as_on_a_gpu,
    draw_weights,
    examples,
    latents_of,
    noise,
    sample_rates,
    waves,
)

UNIT = SMALL.column_samples
CLOSE = 1e-4
"""Largest difference between samples that were computed in different ways."""


def check_same(codec: Codec, clip: Tensor, rate: int, expected: Codes, found: Codes) -> None:
    """Check that two codes of a clip [samples] are the same, except where distances tie."""
    assert found.columns == expected.columns
    assert found.lengths == expected.lengths
    assert (found.sample_rate, found.model) == (expected.sample_rate, expected.model)
    own = at_codec_rate(codec, clip, rate)
    count_ties(codec, own, *(codes.tokens.reshape(codec.rows, -1) for codes in (expected, found)))


@pytest.mark.slow
@settings(max_examples=examples(30))
@given(waves(), sample_rates())
@example(noise(8, 1), 192000)
@example(noise(1, UNIT), 44100)
@example(noise(1, UNIT + 1), 44100)
@example(noise(2, 6000), 8000)
def test_decoded_audio_has_the_shape_of_the_input(codec: Codec, wave: Tensor, rate: int) -> None:
    before = wave.clone()
    codes = codec.encode(wave, rate)
    assert torch.equal(wave, before)
    assert codes.tokens.dtype == torch.int32
    assert codes.tokens.shape[:2] == (len(wave), SMALL.rows)
    assert codes.lengths == (wave.shape[1],) * len(wave)
    expected = math.ceil(math.ceil(wave.shape[1] * 44100 / rate) / UNIT)
    assert codes.columns == (expected,) * len(wave)
    assert codes.tokens.shape[2] == expected
    assert codes.tokens.min() >= 0
    assert codes.tokens.max() < SMALL.tokenizer.codebook_size
    decoded = codec.decode(codes)
    assert decoded.dtype == torch.float32
    assert decoded.shape == wave.shape
    assert torch.isfinite(decoded).all()
    assert decoded.abs().max() <= 1


@settings(max_examples=examples(25))
@given(waves(longest=20 * UNIT, batch=3), st.integers(1, 12))
def test_chunks_give_the_result_of_whole_clips(codec: Codec, wave: Tensor, columns: int) -> None:
    whole = codec.encode(wave, 44100)
    with chunks_of(codec, columns):
        found = codec.encode(wave, 44100)
        decoded = codec.decode(whole)
    for index, clip in enumerate(wave):
        check_same(codec, clip, 44100, whole[index], found[index])
    torch.testing.assert_close(decoded, codec.decode(whole), atol=CLOSE, rtol=0)


@pytest.mark.slow
@settings(max_examples=examples(15))
@given(waves(longest=8 * UNIT, batch=4), sample_rates(), st.data())
def test_a_padded_batch_gives_what_each_clip_gives_alone(
    codec: Codec, wave: Tensor, rate: int, data: st.DataObject
) -> None:
    lengths = [data.draw(st.integers(1, wave.shape[1])) for _ in wave]
    padded = wave.clone()
    for row, length in zip(padded, lengths, strict=True):
        row[length:] = torch.nan  # the padding is not read
    together = codec.encode(padded, rate, lengths)
    decoded = codec.decode(together)
    assert together.lengths == tuple(lengths)
    assert decoded.shape == (len(wave), max(lengths))
    for index, (clip, length) in enumerate(zip(wave, lengths, strict=True)):
        alone = codec.encode(clip[:length], rate)
        check_same(codec, clip[:length], rate, alone, together[index])
        beyond = together.tokens[index, :, together.columns[index] :]
        assert torch.equal(beyond, codec.silence[:, None].expand_as(beyond))
        again = codec.decode(together[index])
        torch.testing.assert_close(decoded[index, :length], again, atol=CLOSE, rtol=0)
        assert not decoded[index, length:].any()


@settings(max_examples=examples(25))
@given(waves(longest=6 * UNIT), st.integers(0, 3 * UNIT), st.integers(0, 3 * UNIT))
def test_silence_around_a_clip_keeps_its_tokens(
    codec: Codec, wave: Tensor, before: int, after: int
) -> None:
    """Whole columns of silence before a clip, and any silence after it, only add columns."""
    before -= before % UNIT
    alone = codec.encode(wave, 44100)
    amid = codec.encode(torch.nn.functional.pad(wave, (before, after)), 44100)
    columns, front = alone.columns[0], before // UNIT
    for index, clip in enumerate(wave):
        inside = amid.tokens[index, :, front : front + columns]
        count_ties(codec, at_codec_rate(codec, clip, 44100), alone.tokens[index], inside)


@settings(max_examples=examples(25))
@given(st.integers(1, 3), st.integers(1, 9), st.integers(0, 6), st.integers(0, 6), st.data())
def test_silence_around_tokens_keeps_their_samples(
    codec: Codec, batch: int, columns: int, before: int, after: int, data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, 2**32))
    tokens = drawn_tokens(batch, columns, seed)
    quiet = codec.silence[None, :, None]
    amid = torch.cat(
        (quiet.expand(batch, -1, before), tokens, quiet.expand(batch, -1, after)), dim=2
    )
    alone = codec.decode(whole_columns(codec, tokens))
    inside = codec.decode(whole_columns(codec, amid))[:, before * UNIT :][:, : columns * UNIT]
    torch.testing.assert_close(inside, alone, atol=CLOSE, rtol=0)


def drawn_tokens(batch: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, SMALL.rows, columns)
    return torch.randint(300, shape, generator=generator, dtype=torch.int32)


def whole_columns(codec: Codec, tokens: Tensor) -> Codes:
    columns = (tokens.shape[2],) * len(tokens)
    lengths = (tokens.shape[2] * codec.config.column_samples,) * len(tokens)
    return Codes(tokens, columns, lengths, 44100, codec.tokenizer_id)


@settings(max_examples=examples(25))
@given(waves(longest=6 * UNIT, batch=4), sample_rates(), st.data())
def test_flat_sequences_have_an_inverse(
    codec: Codec, wave: Tensor, rate: int, data: st.DataObject
) -> None:
    lengths = [data.draw(st.integers(1, wave.shape[1])) for _ in wave]
    codes = codec.encode(wave, rate, lengths)
    flat = codes.flatten()
    for index, sequence in enumerate(flat):
        assert sequence.dtype == torch.int32
        expected = [
            int(codes.tokens[index, row, column])
            for column in range(codes.columns[index])
            for row in range(SMALL.rows)
        ]
        assert sequence.tolist() == expected
    back = Codes.from_flat(flat, SMALL.rows, codes.lengths, rate, codes.tokenizer_id, codes.model)
    assert back.columns == codes.columns
    assert (back.lengths, back.sample_rate, back.model) == (codes.lengths, rate, codes.model)
    for index in range(len(codes)):
        assert torch.equal(back[index].tokens, codes[index].tokens)
    assert torch.equal(codec.decode(back), codec.decode(codes))


@settings(max_examples=examples(10))
@given(waves(longest=5 * UNIT, batch=2))
def test_tokens_and_samples_equal_one_run_of_the_networks(codec: Codec, wave: Tensor) -> None:
    """Run the networks once over the whole receptive field, and take the nearest entries."""
    codes = codec.encode(wave, 44100)
    columns, vectors = codes.columns[0], codec.codebook.vectors
    for clip, tokens in zip(wave, codes.tokens, strict=True):
        own = at_codec_rate(codec, clip, 44100)
        latents = latents_of(codec, own).movedim(0, -1)
        expected = torch.cdist(latents, vectors[None]).argmin(-1)
        count_ties(codec, own, expected.int(), tokens)
    stages = codec.decode_stages
    first, last = inputs_for(stages, 0, columns * UNIT)
    quiet = codec.silence[None, :, None].expand(len(wave), -1, last - first).clone()
    quiet[:, :, -first : columns - first] = codes.tokens
    samples = run(stages, codec.codebook.latents(quiet))
    begin = -outputs_of(stages, first, last)[0]
    expected = samples[:, begin : begin + wave.shape[1]].clamp(-1, 1)
    torch.testing.assert_close(codec.decode(codes), expected, atol=CLOSE, rtol=0)


def test_input_beyond_full_scale_is_clipped(codec: Codec) -> None:
    wave = noise(1, 3 * UNIT, amplitude=2)
    for rate in (44100, 32000):
        expected = codec.encode(wave.clamp(-1, 1), rate)
        assert torch.equal(codec.encode(wave, rate).tokens, expected.tokens)
        largest = torch.finfo(torch.float64).max
        square = codec.encode(wave.sign(), rate).tokens
        assert torch.equal(codec.encode(wave.sign().double() * largest, rate).tokens, square)


@pytest.mark.parametrize("rate", [44100, 32000])
def test_decoded_audio_is_clipped_to_full_scale(
    codec: Codec, monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    codes = codec.encode(noise(1, 3 * UNIT), rate)
    loud = noise(1, 10 * UNIT, amplitude=2)
    monkeypatch.setattr(Codec, "_decode_grid", lambda self, *given: loud[:, : given[-1]].clone())
    assert codec.decode(codes).abs().max() == 1


def test_dtypes_and_arrays_give_the_same_tokens(codec: Codec) -> None:
    half = noise(2, 5 * UNIT).half()
    for rate in (44100, 48000):
        expected = codec.encode(half.float(), rate).tokens
        for same in (half, half.double(), half.numpy(), half.double().numpy()):
            assert torch.equal(codec.encode(same, rate).tokens, expected)
        strided = half.float().t().contiguous().t()
        assert torch.equal(codec.encode(strided, rate).tokens, expected)
        assert torch.equal(codec.encode(half.float()[0], rate).tokens, expected[0])
    fixed = half.float().numpy().copy()
    fixed.flags.writeable = False
    expected = codec.encode(half.float(), 44100).tokens
    for same in (fixed, fixed.T.copy().T):
        assert torch.equal(codec.encode(same, 44100).tokens, expected)


def test_encoding_leaves_the_input_and_the_graph_alone(codec: Codec) -> None:
    wave = noise(2, 2 * UNIT, amplitude=3).requires_grad_()
    before = wave.detach().clone()
    for rate in (44100, 16000):
        codes = codec.encode(wave, rate, torch.tensor([100, 2000]))
        assert codes.lengths == (100, 2000)
        assert not codec.decode(codes).requires_grad
    assert torch.equal(wave.detach(), before)
    tokens = codes.tokens.clone()
    codec.decode(codes)
    assert torch.equal(codes.tokens, tokens)


def test_results_are_deterministic(codec: Codec) -> None:
    wave = noise(3, 9 * UNIT)
    first = codec.encode(wave, 22050)
    assert torch.equal(first.tokens, codec.encode(wave, 22050).tokens)
    assert torch.equal(codec.decode(first), codec.decode(first))


def test_tokens_of_any_integer_type(codec: Codec) -> None:
    """Any integer type works, also where clips differ in length and silence fills the rest."""
    tokens = drawn_tokens(2, 5, seed=1) % 100
    lengths = (2 * UNIT, 5 * UNIT)
    expected = codec.decode(Codes(tokens, (2, 5), lengths, 44100, codec.tokenizer_id))
    assert codec.silence.max() > 127  # more than a byte holds
    for dtype in (torch.int64, torch.int16, torch.uint8, torch.int8, torch.uint16):
        found = codec.decode(Codes(tokens.to(dtype), (2, 5), lengths, 44100, codec.tokenizer_id))
        assert torch.equal(found, expected)


def test_tokens_after_a_clips_columns_are_not_read(codec: Codec) -> None:
    tokens = drawn_tokens(2, 6, seed=2)
    lengths = (2 * UNIT - 5, 4 * UNIT)
    codes = Codes(tokens, (2, 4), lengths, 44100, codec.tokenizer_id)
    expected = codec.decode(codes)
    other = tokens.clone()
    other[0, :, 2:], other[1, :, 4:] = 10**6, -1
    assert torch.equal(codec.decode(replace(codes, tokens=other)), expected)


def test_digital_silence_becomes_the_silence_column(codec: Codec) -> None:
    """Digital silence becomes the silence column at any place."""
    codes = codec.encode(torch.zeros(1, 7 * UNIT + 5), 44100)
    assert torch.equal(codes.tokens[0], codec.silence[:, None].expand(-1, 8))
    amid = codec.encode(
        torch.cat((noise(1, UNIT), torch.zeros(1, 20 * UNIT), noise(1, UNIT)), dim=1), 44100
    )
    assert torch.equal(amid.tokens[0, :, 11], codec.silence)


def test_silence_decodes_to_silence(lite: Codec) -> None:
    """Decoded silence is below -60 dB of full scale, with the weights that ship."""
    for rate in (44100, 16000):
        codes = lite.encode(torch.zeros(1, 2 * rate), rate)
        assert lite.decode(codes).abs().max() < 1e-3


@pytest.mark.slow
def test_chunks_of_a_real_clip_with_the_shipped_weights(lite: Codec) -> None:
    """Chunks give the tokens and samples of a whole real clip with the weights that ship."""
    soundfile = pytest.importorskip("soundfile")
    path = Path(__file__).parent / "data" / "music.flac"
    wave, rate = soundfile.read(path, dtype="float32", frames=44100)
    clip = torch.from_numpy(wave.reshape(len(wave), -1)[:, 0].copy())
    whole = lite.encode(clip, rate)
    with chunks_of(lite, 7):
        check_same(lite, clip, rate, whole, lite.encode(clip, rate))
        decoded = lite.decode(whole)
    assert decoded.shape == clip.shape
    # Griffin-Lim steps amplify rounding, a thousandfold in bins whose phase is nearly undefined.
    error = (decoded - lite.decode(whole)).square().mean().sqrt()
    assert error < 2**-15, f"{float(error)}: above the least significant of 16 bits"
    exact = copy.deepcopy(lite).double()
    with chunks_of(exact, 7):
        decoded = exact.decode(whole)
    torch.testing.assert_close(decoded, exact.decode(whole), atol=1e-9, rtol=0)


def test_chunks_bound_what_is_computed_at_once(codec: Codec) -> None:
    """No layer receives more than a chunk with its context, however long the clip."""
    longest = [0, 0]

    def watch(which: int) -> Callable[..., None]:
        def note(module: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
            longest[which] = max(longest[which], inputs[0].shape[-1])

        return note

    hooks = [
        codec.front.register_forward_hook(watch(0)),
        codec.decoder[0].register_forward_hook(watch(1)),
    ]
    try:
        with chunks_of(codec, 8):
            codec.decode(codec.encode(noise(1, 100 * UNIT), 44100))
    finally:
        for hook in hooks:
            hook.remove()
    first, last = inputs_for(codec.encode_stages, 0, 8)
    assert longest[0] == last - first
    first, last = inputs_for(codec.decode_stages, 0, 8 * UNIT)
    assert longest[1] == last - first


def test_invalid_audio_is_refused(codec: Codec) -> None:
    good = noise(2, 500)
    broken = good.clone()
    broken[1, 300] = torch.nan
    endless = good.clone()
    endless[0, 7] = -torch.inf
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: codec.encode(broken, 44100), "clip 1 has NaN or infinity, first at sample 300"),
        (lambda: codec.encode(broken, 16000), "clip 1 has NaN or infinity, first at sample 300"),
        (lambda: codec.encode(endless, 44100), "clip 0 .* sample 7"),
        (lambda: codec.encode(broken, 44100, [500, 301]), "clip 1"),
        (lambda: codec.encode(good[:, :0], 44100), r"not empty, not float32 \[2, 0\]"),
        (lambda: codec.encode(good[:0], 44100), r"\[0, 500\]"),
        (lambda: codec.encode(torch.zeros(0), 44100), r"float32 \[0\]"),
        (lambda: codec.encode(torch.tensor(1.0), 44100), r"float32 \[\]"),
        (lambda: codec.encode(good.int(), 44100), r"floating point.*int32 \[2, 500\]"),
        (lambda: codec.encode(np.zeros((2, 5), np.int16), 44100), r"int16 \[2, 5\]"),
        (lambda: codec.encode(good > 0, 44100), "bool"),
        (lambda: codec.encode(good + 0j, 44100), "complex64"),
        (lambda: codec.encode(good, 0), "rate must be.*not 0"),
        (lambda: codec.encode(good, -44100), "rate must be"),
        (lambda: codec.encode(good, 999), "rate must be"),
        (lambda: codec.encode(good, 10**7), "rate must be"),
        (lambda: codec.encode(good, 22050.5), "rate must be"),  # type: ignore[arg-type]
        (lambda: codec.encode(good, 44100, [500]), r"500\] has 2 clips, and lengths are \[1\]"),
        (lambda: codec.encode(good, 44100, [1, 2, 3]), r"lengths are \[3\]"),
        (lambda: codec.encode(good, 44100, [1.0, 2.0]), "lengths must be integers"),
        (lambda: codec.encode(good[0], 44100, [1, 2]), "1 clips"),
        (lambda: codec.encode(good[None], 44100, [[1], [2]]), r"has 2 .* are \[2, 1\]"),
        (lambda: codec.encode(good, 44100, [0, 500]), r"not \[0, 500\]"),
        (lambda: codec.encode(good, 44100, [501, 500]), r"not \[501, 500\]"),
        (lambda: codec.encode(good, 44100, torch.tensor([-1, 5])), r"not \[-1, 5\]"),
    ]
    for call, words in refused:
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert codec.encode(broken, 44100, [500, 300]).lengths == (500, 300)


def test_invalid_tokens_are_refused(codec: Codec) -> None:
    tokens = drawn_tokens(2, 4, seed=3)
    codes = Codes(tokens, (4, 3), (4 * UNIT, 3 * UNIT), 44100, codec.tokenizer_id)
    codec.decode(codes)
    over, under = tokens.clone(), tokens.clone()
    over[1, 2, 0], under[0, 0, 3] = 300, -1
    bounds = r"0\.\.299"
    refused: list[tuple[Codes, str]] = [
        (replace(codes, tokens=over), bounds),
        (replace(codes, tokens=under), bounds),
        (replace(codes, tokens=tokens[:, :2]), "3 rows, not 2"),
        (replace(codes, tokens=tokens[:, :1]), "3 rows, not 1"),
        (replace(codes, tokens=tokens.repeat(1, 2, 1)), "3 rows, not 6"),
        (replace(codes, lengths=(4 * UNIT + 1, 3 * UNIT)), "clip 0 has 4 columns, but 4097"),
        (replace(codes, lengths=(4 * UNIT, 2 * UNIT)), "clip 1 has 3 columns, but 2048"),
        (replace(codes, columns=(4, 2)), "clip 1 has 2 columns"),
        (replace(codes, sample_rate=16000), "clip 0 has 4 columns, but .* at 16000 Hz need 12"),
        (replace(codes, lengths=(10**15, 3 * UNIT)), "clip 0"),
    ]
    for wrong, words in refused:
        with pytest.raises(InputError, match=words) as caught:
            codec.decode(wrong)
        assert "\n" not in str(caught.value)
    words = rf"tokenizer {ID} \(made with other-1\), and {codec.model} has .*{codec.tokenizer_id}"
    with pytest.raises(ModelMismatchError, match=words):
        codec.decode(replace(codes, tokenizer_id=ID, model="other-1"))
    with pytest.raises(ModelMismatchError, match=rf"tokenizer {ID}, and .* tokenizer {ID}$"):
        codec.decode(replace(codes, tokenizer_id=ID))
    assert torch.equal(codec.decode(replace(codes, model="other-1")), codec.decode(codes))


def test_inconsistent_codes_are_refused() -> None:
    tokens = drawn_tokens(2, 4, seed=4)
    flat = [torch.arange(6), torch.arange(3)]
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: Codes(tokens[0, 0], (4,), (5,), 44100, ID), r"integers.*int32 \[4\]"),
        (lambda: Codes(tokens, (4, 4), (5, 5), 44100, "melcap-lite"), "not 16 hexadecimal digits"),
        (lambda: Codes(tokens.float(), (4, 4), (5, 5), 44100, ID), "float32"),
        (lambda: Codes(tokens > 3, (4, 4), (5, 5), 44100, ID), "bool"),
        (lambda: Codes(tokens + 0j, (4, 4), (5, 5), 44100, ID), "complex"),
        (lambda: Codes(tokens, (4,), (5, 5), 44100, ID), "not 1 and 2"),
        (lambda: Codes(tokens, (4, 4), (5,), 44100, ID), "not 2 and 1"),
        (lambda: Codes(tokens, (4, 5), (5, 5), 44100, ID), r"1\.\.4, not \[4, 5\]"),
        (lambda: Codes(tokens, (0, 4), (5, 5), 44100, ID), "columns"),
        (lambda: Codes(tokens, (4, 4), (5, 0), 44100, ID), "lengths must be positive"),
        (lambda: Codes(tokens, (4, 4), (5, 5), 999, ID), "sample rate must be from 1000"),
        (lambda: Codes(tokens[:0], (), (), 44100, ID), "empty|at least one"),
        (
            lambda: Codes.from_flat(flat, 4, [5, 5], 44100, ID),
            r"sequence 0 .* 4 tokens, not \[6\]",
        ),
        (lambda: Codes.from_flat([flat[0], flat[1][:0]], 3, [5, 5], 44100, ID), "sequence 1"),
        (lambda: Codes.from_flat([flat[0][None]], 3, [5], 44100, ID), "sequence 0"),
        (lambda: Codes.from_flat([flat[0].float()], 3, [5], 44100, ID), "integers"),
        (lambda: Codes.from_flat(flat, 3, [5], 44100, ID), "not 2 and 1"),
        (lambda: Codes.from_flat(flat, 0, [5, 5], 44100, ID), "rows"),
        (lambda: Codes.from_flat([], 3, [], 44100, ID), "at least one"),
    ]
    for call, words in refused:
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_indexing_codes_gives_one_clip() -> None:
    codes = Codes(drawn_tokens(3, 5, seed=5), (5, 2, 4), (50, 20, 40), 8000, ID, "m")
    assert (len(codes), codes.shape) == (3, (3,))
    one = codes[1]
    assert (one.shape, one.columns, one.lengths) == ((), (2,), (20,))
    assert (one.sample_rate, one.tokenizer_id, one.model) == (8000, ID, "m")
    assert torch.equal(one.tokens, codes.tokens[1, :, :2])
    assert torch.equal(codes[-1].tokens, codes.tokens[2, :, :4])
    with pytest.raises(TypeError, match="one clip"):
        len(one)
    assert [each.lengths for each in codes] == [(50,), (20,), (40,)]
    with pytest.raises(IndexError):
        codes[3]
    assert torch.equal(codes.to("cpu").tokens, codes.tokens)
    assert codes == codes
    assert codes != copy.copy(codes)  # codes compare by identity; torch.equal compares tokens


def test_another_sample_rate_and_other_sizes_of_a_column() -> None:
    """The codec does not assume 44.1 kHz, 12 rows or 8 frames for each column."""
    config = CodecConfig(
        name="other",
        mel=replace(SMALL.mel, sample_rate=16000, n_mels=20),
        tokenizer=replace(
            SMALL.tokenizer, channels=(4, 6), encoder_blocks=(1, 0), decoder_blocks=(0, 1)
        ),
        vocoder=replace(SMALL.vocoder, strides=(), stage_channels=(), stage_blocks=()),
    )
    codec = draw_weights(Codec(config))
    assert (config.rows, config.column_samples) == (5, 512)
    for rate in (16000, 44100):
        wave = noise(2, 5000)
        codes = codec.encode(wave, rate)
        with chunks_of(codec, 2):
            check_same(codec, wave[0], rate, codes[0], codec.encode(wave[:1], rate)[0])
            decoded = codec.decode(codes)
        assert decoded.shape == wave.shape
        torch.testing.assert_close(decoded, codec.decode(codes), atol=CLOSE, rtol=0)


def test_properties_of_a_codec(lite: Codec, codec: Codec) -> None:
    assert (lite.sample_rate, lite.rows, lite.vocab_size) == (44100, 12, 8192)
    assert lite.frame_rate == 44100 / 2048
    assert lite.tokens_per_second == 12 * lite.frame_rate
    assert lite.bitrate == 13 * lite.tokens_per_second
    assert (codec.sample_rate, codec.rows, codec.vocab_size) == (44100, 3, 300)
    assert (codec.frame_rate, codec.bitrate) == (44100 / 1024, 9 * 3 * 44100 / 1024)


@pytest.mark.gpu
def test_a_gpu_encodes_what_the_cpu_encodes(small_weights: Path, codec: Codec) -> None:
    there = melcap.load(small_weights, "cuda")
    wave = noise(3, 20 * UNIT)
    for rate in (44100, 16000):
        expected, found = (
            codec.encode(wave, rate, [5, 9000, 20 * UNIT]),
            there.encode(wave.cuda(), rate, [5, 9000, 20 * UNIT]),
        )
        assert found.tokens.is_cuda
        for index, clip in enumerate(wave):
            own = clip[: expected.lengths[index]]
            check_same(codec, own, rate, expected[index], found.to("cpu")[index])


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("way", ["encode", "decode"])
@pytest.mark.parametrize(
    ("batch", "columns"),
    [
        (1, 1),
        (2000, 1),
        (3, 40),
        (64, 216),
        (64, 256),
        (65, 256),
        (2000, 216),
        (7, 300),
        (1, 60000),
    ],
)
def test_gpu_pieces_cover_all_columns_within_the_limit(
    lite: Codec,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    columns: int,
    way: str,
    graphs: bool,
) -> None:
    codec = copy.copy(lite)
    codec._graphs = (None, None) if graphs else None  # type: ignore[assignment]
    monkeypatch.setattr(Codec, "device", torch.device("cuda"))
    stages, unit = codec.encode_stages, 1
    if way == "decode":
        stages, unit = codec.decode_stages, codec.config.column_samples
    pieces = [*codec._pieces(stages, columns, batch, unit)]
    taken = np.zeros((batch, columns), int)
    for some, (begin, end), needed in pieces:
        assert needed == inputs_for(stages, begin, end)
        taken[some, begin // unit : end // unit] += 1
    assert (taken == 1).all()
    first, last = inputs_for(stages, 0, codec.chunk_columns * unit)
    most = network.GPU_CHUNKS * (last - first)
    sizes = [(some.stop - some.start) * (last - first) for some, _, (first, last) in pieces]
    assert max(sizes) <= most
    if batch <= 64 and columns <= codec.chunk_columns:
        assert len(pieces) == 1
    elif not graphs:
        assert len(pieces) == 1 or sizes[0] > 0.8 * most


@pytest.mark.parametrize(("batch", "columns"), [(1, 40), (7, 3), (5, 11), (3, 23)])
def test_gpu_pieces_give_the_result_of_whole_clips(
    codec: Codec, monkeypatch: pytest.MonkeyPatch, batch: int, columns: int
) -> None:
    """Clips of different lengths are cut into pieces of several clips, one, or a part of one."""
    wave = noise(batch, columns * UNIT - 3)
    lengths = [wave.shape[1] - 300 * index for index in range(batch)]
    codes = codec.encode(wave, 44100, lengths)
    expected = codec.decode(codes)
    cut_as_on_a_gpu(monkeypatch)
    monkeypatch.setattr(network, "GPU_CHUNKS", 2)
    seen: tuple[list[int], list[int]] = ([], [])

    def watch(which: int) -> Callable[..., None]:
        def note(module: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
            seen[which].append(len(inputs[0]) * inputs[0].shape[-1])

        return note

    hooks = [
        codec.front.register_forward_hook(watch(0)),
        codec.decoder[0].register_forward_hook(watch(1)),
    ]
    try:
        with chunks_of(codec, 5):
            found = codec.encode(wave, 44100, lengths)
            decoded = codec.decode(codes)
    finally:
        for hook in hooks:
            hook.remove()
    for index, length in enumerate(lengths):
        check_same(codec, wave[index, :length], 44100, codes[index], found[index])
    torch.testing.assert_close(decoded, expected, atol=CLOSE, rtol=0)
    for sizes, stages, unit in (
        (seen[0], codec.encode_stages, 1),
        (seen[1], codec.decode_stages, UNIT),
    ):
        first, last = inputs_for(stages, 0, 5 * unit)
        assert len(sizes) > 1
        assert max(sizes) <= 2 * (last - first)


def test_columns_after_all_clips_are_ignored(codec: Codec) -> None:
    """There may be more than a chunk of them, because CUDA graphs pad the last chunk."""
    codes = codec.encode(noise(2, 3 * UNIT - 5), 44100)
    wide = codec.silence[:, None].repeat(2, 1, 40)
    wide[..., :3] = codes.tokens
    with chunks_of(codec, 7):
        torch.testing.assert_close(
            codec._decode_grid(wide, codes.columns, 3 * UNIT - 5),
            codec.decode(codes),
            atol=CLOSE,
            rtol=0,
        )


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "clips"), [(2, 4), (3, 3), (9, 1), (40, 1)])
def test_a_cpu_takes_as_many_clips_as_fill_a_chunk(
    small_weights: Path, columns: int, clips: int
) -> None:
    """A batch needs no more memory between two layers than one chunk, and keeps its order."""
    codec = melcap.load(small_weights)
    wave = noise(10, columns * UNIT - 3)
    expected = [codec.encode(clip, 44100) for clip in wave]
    seen: list[int] = []

    def watch(module: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        seen.append(len(inputs[0]))

    hooks = [
        codec.front.register_forward_hook(watch),
        codec.decoder[0].register_forward_hook(watch),
    ]
    try:
        with chunks_of(codec, 9):
            codes = codec.encode(wave, 44100)
            decoded = codec.decode(codes)
    finally:
        for hook in hooks:
            hook.remove()
    chunks = -(-columns // 9)
    groups = [min(clips, 10 - begin) for begin in range(0, 10, clips)]
    assert seen == [n for n in groups for _ in range(chunks)] * 2
    for index, own in enumerate(expected):
        check_same(codec, wave[index], 44100, own, codes[index])
        torch.testing.assert_close(decoded[index], codec.decode(own), atol=CLOSE, rtol=0)


@pytest.mark.gpu
def test_a_gpu_decodes_what_the_cpu_decodes(lite: Codec, speech: Wave) -> None:
    """Results agree within the least significant of 16 bits, and within 1e-9 in float64."""
    codes = lite.encode(torch.from_numpy(speech), 44100)
    there = melcap.load(device="cuda")
    decoded = there.decode(codes.to("cuda"))
    assert decoded.is_cuda
    error = (decoded.cpu() - lite.decode(codes)).square().mean().sqrt()
    assert error < 2**-15
    exact = there.double().decode(codes.to("cuda"))
    expected = copy.deepcopy(lite).double().decode(codes)
    torch.testing.assert_close(exact.cpu(), expected, atol=1e-9, rtol=0)
