"""A codec whose tokens cover twice as many frames as mel bins keeps every promise of a codec.

`tests/onnx` exports it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import melcap
from melcap import audio
from melcap.codec import Codec
from melcap.codes import Codes
from melcap.config import CodecConfig
from melcap.config.named import named
from melcap.evaluation.measures.signals import Wave
from melcap.evaluation.measures.spectral import mel_l1
from melcap.evaluation.peers.partial import WithoutVocoder
from melcap.io import container
from melcap.model.layers import Down2d, Up2d
from melcap.model.stages import Chain, Stage, inputs_for, rate, run
from melcap.pretrained import save
from melcap.streaming import StreamDecoder, StreamEncoder
from melcap.training.config import TrainingConfig
from melcap.training.stage1 import Stage1
from melcap.transcode import decode_file, encode_file
from tests.helpers import (
    HALF,
    at_codec_rate,
    chunks_of,
    count_ties,
    cut,
    draw_weights,
    examples,
    noise,
    piece_sizes,
    sample_rates,
    save_drawn,
    waves,
)
from tests.model.test_budget import BUDGET, PARAMETERS, operations

FULL = Path(melcap.__file__).with_name("config") / "half-rate.json"
UNIT = HALF.column_samples
CLOSE = 1e-4  # as in test_codec


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_drawn(HALF, tmp_path_factory.mktemp("half") / "half.safetensors")


@pytest.fixture(scope="module")
def half(weights: Path) -> Codec:
    return melcap.load(weights)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def config() -> CodecConfig:
    return named("half-rate")


def test_the_configuration_is_half_the_rate_of_lite(config: CodecConfig) -> None:
    lite = named("lite")
    assert lite == CodecConfig()
    assert FULL.read_text() == config.to_json() + "\n"
    assert config.name == "melcap-half"
    assert (config.mel, config.vocoder) == (lite.mel, lite.vocoder)
    assert (config.tokenizer.codebook_size, config.tokenizer.codebook_dim) == (8192, 8)
    assert (config.tokenizer.patch_bins, config.tokenizer.patch_frames) == (8, 16)
    assert (config.rows, config.column_samples) == (12, 4096)
    assert 2 * config.tokens_per_second == lite.tokens_per_second
    assert config.bits_per_second == pytest.approx(1679.6, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [4, 16])
def test_the_budget(config: CodecConfig, steps: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The budget of test_budget holds with the Griffin-Lim steps of training and of decoding."""
    with torch.device("meta"):
        codec = Codec(replace(config, vocoder=replace(config.vocoder, griffin_lim_steps=steps)))
    columns = codec.chunk_columns
    assert columns * config.column_samples == 256 * CodecConfig().column_samples  # as much memory
    seconds = columns * config.column_samples / config.mel.sample_rate
    once, twice = operations(codec, columns), operations(codec, 2 * columns)
    for name, chunk, both in zip(("encode", "decode"), once, twice, strict=True):
        total = (both - chunk).total() / seconds
        with capsys.disabled():
            print(f"\n{name}: {total / 1e9:.3f} GFLOP for each second of audio, {steps} steps")
        assert total <= BUDGET, name
        assert chunk.total() / seconds <= 1.1 * total, "a chunk's context costs too much"
    numbers = sum(each.numel() for each in [*codec.parameters(), codec.codebook.vectors])
    with capsys.disabled():
        print(f"\n{numbers / 1e6:.2f} M parameters")
    assert numbers <= PARAMETERS


def test_the_networks_have_the_rates_of_the_configuration(half: Codec) -> None:
    assert (HALF.rows, UNIT) == (3, 2048)
    assert rate(half.encode_stages) == (1, UNIT)
    assert math.prod(stage.up for stage in half.decoder) == HALF.tokenizer.patch_frames
    first, last = inputs_for(half.encode_stages, 0, 5)
    latents = run(half.encode_stages, noise(1, last - first))
    assert latents.shape == (1, HALF.tokenizer.codebook_dim, HALF.rows, 5)
    first, last = inputs_for(half.decode_stages, 0, 2 * UNIT)
    mels = run(half.decoder, noise(1, HALF.tokenizer.codebook_dim, HALF.rows, last - first))
    assert mels.shape[1] == HALF.mel.n_mels
    assert mels.shape[2] % HALF.tokenizer.patch_frames == 0


@settings(max_examples=examples(25))
@given(waves(longest=4 * UNIT, batch=3), sample_rates())
def test_decoded_audio_has_the_shape_of_the_input(half: Codec, wave: Tensor, rate: int) -> None:
    codes = half.encode(wave, rate)
    expected = math.ceil(math.ceil(wave.shape[1] * 44100 / rate) / UNIT)
    assert codes.tokens.shape == (len(wave), HALF.rows, expected)
    decoded = half.decode(codes)
    assert decoded.shape == wave.shape
    assert decoded.abs().max() <= 1


@settings(max_examples=examples(15))
@given(waves(longest=10 * UNIT, batch=2), st.integers(1, 6))
def test_chunks_give_the_result_of_whole_clips(half: Codec, wave: Tensor, columns: int) -> None:
    whole = half.encode(wave, 44100)
    with chunks_of(half, columns):
        found = half.encode(wave, 44100)
        decoded = half.decode(whole)
    for index, clip in enumerate(wave):
        count_ties(half, at_codec_rate(half, clip, 44100), whole.tokens[index], found.tokens[index])
    torch.testing.assert_close(decoded, half.decode(whole), atol=CLOSE, rtol=0)


@settings(max_examples=examples(15))
@given(waves(longest=6 * UNIT, batch=3), st.data())
def test_a_padded_batch_gives_what_each_clip_gives_alone(
    half: Codec, wave: Tensor, data: st.DataObject
) -> None:
    lengths = [data.draw(st.integers(1, wave.shape[1])) for _ in wave]
    together = half.encode(wave, 44100, lengths)
    decoded = half.decode(together)
    for index, (clip, length) in enumerate(zip(wave, lengths, strict=True)):
        alone = half.encode(clip[:length], 44100)
        own = at_codec_rate(half, clip[:length], 44100)
        count_ties(half, own, alone.tokens, together[index].tokens)
        again = half.decode(together[index])
        torch.testing.assert_close(decoded[index, :length], again, atol=CLOSE, rtol=0)


@settings(max_examples=examples(15))
@given(waves(longest=10 * UNIT, batch=2), sample_rates(), piece_sizes(4 * UNIT), piece_sizes(5))
def test_a_streamed_clip_is_the_whole_clip(
    half: Codec, wave: Tensor, rate: int, sizes: list[int], columns: list[int]
) -> None:
    whole = half.encode(wave, rate)
    encoder = StreamEncoder(half, rate, len(wave))
    parts = [encoder.push(piece) for piece in cut(wave, sizes)]
    tokens = torch.cat([*parts, encoder.flush()], dim=-1)
    for index, clip in enumerate(wave):
        count_ties(half, at_codec_rate(half, clip, rate), whole.tokens[index], tokens[index])
    decoder = StreamDecoder(half, rate, len(wave))
    parts = [decoder.push(piece) for piece in cut(whole.tokens, columns)]
    found = torch.cat([*parts, decoder.flush(wave.shape[1])], dim=-1)
    assert found.shape == wave.shape
    torch.testing.assert_close(found, half.decode(whole), atol=CLOSE, rtol=0)


def test_digital_silence_becomes_the_silence_column(half: Codec) -> None:
    codes = half.encode(torch.zeros(1, 7 * UNIT + 5), 44100)
    assert half.silence.shape == (HALF.rows,)
    assert torch.equal(codes.tokens[0], half.silence[:, None].expand(-1, 8))
    amid = half.encode(
        torch.cat((noise(1, UNIT), torch.zeros(1, 20 * UNIT), noise(1, UNIT)), dim=1), 44100
    )
    assert torch.equal(amid.tokens[0, :, 11], half.silence)


def test_flat_sequences_have_an_inverse(half: Codec) -> None:
    codes = half.encode(noise(2, 5 * UNIT), 44100, [5 * UNIT, 2 * UNIT + 1])
    flat = codes.flatten()
    assert [len(sequence) for sequence in flat] == [5 * HALF.rows, 3 * HALF.rows]
    back = Codes.from_flat(flat, HALF.rows, codes.lengths, 44100, codes.tokenizer_id, codes.model)
    assert torch.equal(half.decode(back), half.decode(codes))


def test_weights_are_the_same_after_saving_and_loading(
    half: Codec, weights: Path, tmp_path: Path
) -> None:
    assert half.config == HALF
    assert half.model.startswith("small-half-")
    again = melcap.load(weights)
    wave = noise(1, 3 * UNIT)
    assert torch.equal(again.encode(wave, 44100).tokens, half.encode(wave, 44100).tokens)
    save(again, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == weights.read_bytes()


@settings(max_examples=examples(10))
@given(st.integers(1, 3), st.integers(1, 4 * UNIT), st.sampled_from([44100, 48000, 16000]))
def test_a_decoded_file_has_the_length_of_the_original(
    half: Codec, folder: Path, channels: int, samples: int, rate: int
) -> None:
    source, packed, back = folder / "a.wav", folder / "a.melcap", folder / "b.wav"
    wave = noise(channels, samples, seed=samples)
    audio.write(source, wave.numpy(), rate)
    encode_file(source, packed, half, force=True)
    header, tokens = container.read(packed)
    whole = half.encode(torch.from_numpy(audio.read(source)[0]), rate)
    assert tokens.shape == whole.tokens.shape
    assert (header.rows, header.columns, header.bits) == (3, whole.columns[0], 9)
    assert (header.model, header.tokenizer_id) == (half.model, half.tokenizer_id)
    decode_file(packed, back, half, force=True)
    found, found_rate = audio.read(back)
    assert (found_rate, found.shape) == (rate, (channels, samples))
    codes = Codes(torch.from_numpy(tokens), whole.columns, whole.lengths, rate, half.tokenizer_id)
    assert np.abs(found - half.decode(codes).numpy()).max() <= 2**-15 + CLOSE


def test_stage_1_compares_whole_columns() -> None:
    """A crop of four columns is compared over its 64 frames, and the new level gets gradients."""
    torch.manual_seed(0)
    recipe = Stage1(TrainingConfig.of(codec=HALF, columns=4, batch=2, codebook_warmup=0))
    made, target = recipe.reconstruct(noise(2, recipe.samples), 4)
    assert made.shape == target.shape == (2, HALF.mel.n_mels, 64)
    assert recipe.samples_for(5) == recipe.samples + UNIT
    coarsest = [
        stage
        for stage in (*recipe.encoder, *recipe.decoder)
        if isinstance(stage, (Down2d, Up2d)) and stage.conv.stride == (1, 2)
    ]
    assert [type(stage) for stage in coarsest] == [Down2d, Up2d]
    before = [stage.conv.weight.clone() for stage in coarsest]
    figures = recipe.step(noise(2, recipe.samples))
    assert all(torch.isfinite(value) for value in figures.values())
    for stage, weight in zip(coarsest, before, strict=True):
        assert not torch.equal(stage.conv.weight, weight)


def test_a_first_stage_is_decoded_in_full(
    config: CodecConfig, speech: Wave, tmp_path: Path
) -> None:
    """The peer of a stage 1 checkpoint asks its decoder for every frame of its columns."""
    tokenizer = replace(config.tokenizer, channels=(6,) * 4, codebook_size=300)
    vocoder = replace(config.vocoder, dim=8, hidden=8)
    path = tmp_path / "thin.safetensors"
    save(draw_weights(Codec(replace(config, tokenizer=tokenizer, vocoder=vocoder))), path)
    peer = WithoutVocoder("half", melcap.load(path))
    part = speech[:30_001].astype(np.float32)
    coded = peer.encode(part, 44100)
    assert coded.tokens is not None
    assert coded.tokens.shape == (12, 8)
    padded = F.pad(torch.from_numpy(part), (384, 8 * 4096 - len(part) + 384))
    peer.codec.decoder = Chain(Known(peer.codec.front(padded[None])))
    decoded = peer.decode(coded)
    assert decoded.shape == part.shape
    inner = slice(1000, -1000)
    assert mel_l1(part[inner], decoded[inner], 44100) < 0.2


class Known(Stage):
    """A decoder that returns the same mel for any tokens."""

    up = 16

    def __init__(self, mel: Tensor) -> None:
        super().__init__()
        self.mel = mel

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] * self.up == self.mel.shape[-1]
        return self.mel
